"""Loads the user's Flask app or Alembic configuration, as the commands `flask` and `alembic` do."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import os
import re
import sys

from atomic_upgrade.alembic_patches import generate_by
from atomic_upgrade.connections import gates, guard_drivers, watch_connections
from atomic_upgrade.dry_run import databases_of
from atomic_upgrade.environment import default
from atomic_upgrade.failures import Failed, is_users
from atomic_upgrade.graph import whole_graph
from atomic_upgrade.scripts import scripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Dialect, Engine

    from atomic_upgrade.messages import Frame, Load, Loaded, LoadedRevision


class Project:
    """The user's Alembic configuration, in its Flask app if it has one."""

    # The graph as it was read.
    graph: ScriptDirectory

    def __init__(
        self,
        config: Config,
        configure_args: dict[str, Any],
        context: Callable[[], AbstractContextManager[object]],
        engines: Callable[[], dict[str, Engine]],
        request: Load,
    ) -> None:
        self.config = config
        self.configure_args = configure_args
        self.context = context
        # Called inside of the context: the app's own engines by bind.
        self.engines = engines
        self.binds: list[str] = []
        table, schema = request["version_table"], request["version_table_schema"]
        # What the inputs say goes before what env.py says.
        self.forced = {
            name: given for name, given in (("version_table", table), ("version_table_schema", schema)) if given
        }

    def bind_of(self, dialect: Dialect, arguments: Mapping[str, object]) -> str | None:
        """The bind of an engine, by its dialect, which no two engines share, or by where it would connect to."""
        for bind, engine in self.engines().items():
            if engine.dialect is dialect:
                return bind
        found = [bind for bind in self.binds if self.leads_to(bind, dialect, arguments)]
        return found[0] if len(found) == 1 else None

    def leads_to(self, bind: str, dialect: Dialect, arguments: Mapping[str, object]) -> bool:
        from sqlalchemy.engine import make_url

        section = self.config.config_ini_section if bind == default else bind
        url = self.config.get_section_option(section, "sqlalchemy.url")
        if not url:
            return False
        _, wanted = dialect.create_connect_args(make_url(url))
        place = ("host", "port", "user", "dbname", "database")
        return all(wanted.get(name) == arguments.get(name) for name in place)

    def scripts(self) -> ScriptDirectory:
        from alembic.script import ScriptDirectory

        script = ScriptDirectory.from_config(self.config)
        generate_by(script, lambda: scripts.load(script))
        return script


def load(request: Load) -> tuple[Project, Loaded]:
    offer_database_url(request["urls"].get(default))
    watch_connections()
    gates.loading = True
    project = load_alembic(request) if request.get("alembic_config") else load_flask(request)
    gates.loading = False
    guard_drivers()
    script = project.scripts()
    # env.py may set where they lie.
    databases = databases_of(project, script)
    scripts.list(script)
    script = project.graph = project.scripts()
    with whole_graph():
        walked = list(script.walk_revisions())
    revisions: list[LoadedRevision] = [
        {
            "id": each.revision,
            "down": list(each._versioned_down_revisions),
            "depends_on": list(each._resolved_dependencies),
            "labels": sorted(each.branch_labels or ()),
            "message": each.doc or "",
            "path": each.path,
            "file": scripts.know([each.path])[0].number,
            "created": (re.search(r"Create Date: *(.+)", each.longdoc or "") or ["", ""])[1],
        }
        for each in walked
    ]
    project.binds = [each["bind"] for each in databases]
    return project, {"revisions": revisions, "heads": sorted(script.get_heads()), "databases": databases}


def load_flask(request: Load) -> Project:
    try:
        import flask.cli
        import flask_migrate  # noqa: F401
    except ImportError as error:
        raise Failed("render-failed", "%s in %s (%s)" % (error, sys.executable, sys.version.split()[0]))
    os.environ["FLASK_RUN_FROM_CLI"] = "true"
    with contextlib.suppress(ImportError):
        import dotenv  # noqa: F401

        if os.environ.get("FLASK_SKIP_DOTENV") in (None, "0", "false"):
            flask.cli.load_dotenv()
    scripts.watch()
    name = request.get("flask_app") or os.environ.get("FLASK_APP")
    info = flask.cli.ScriptInfo(app_import_path=name)
    try:
        app = info.load_app()
    except flask.cli.NoAppException as error:
        raise no_app(str(error))
    extension = app.extensions.get("migrate")
    if extension is None:
        raise Failed("render-failed", "The Flask app %r has no Flask-Migrate: call Migrate(app, db)." % app.name)
    directory = request["directory"]
    if directory == "migrations":
        directory = extension.directory
    if not os.path.isfile(os.path.join(directory, "alembic.ini")):
        raise Failed("invalid-input", "directory: there is no %s." % os.path.join(directory, "alembic.ini"))
    with app.app_context():
        config = extension.migrate.get_config(directory)
    args = extension.configure_args

    def engines() -> dict[str, Engine]:
        database = extension.db
        if hasattr(database, "engines"):
            return {name or default: engine for name, engine in database.engines.items()}
        # Flask-SQLAlchemy before 3.
        names = (None, *(app.config.get("SQLALCHEMY_BINDS") or ()))
        return {name or default: database.get_engine(bind=name) for name in names}

    return Project(config, args, app.app_context, engines, request)


def no_app(told: str) -> Failed:
    """Flask tells of an error in the app by printing its traceback into the message."""
    if "Traceback" not in told:
        return Failed("render-failed", "The Flask app was not found: %s" % told)
    places = re.findall(r'File "([^"]+)", line (\d+)', told)
    frames: list[Frame] = [{"file": file, "line": int(line), "function": ""} for file, line in places if is_users(file)]
    last = told.strip().splitlines()[-1]
    return Failed("render-failed", "The Flask app does not import: %s" % last, quoted=last, frames=frames)


def load_alembic(request: Load) -> Project:
    """As the `alembic` command does with -c: an ini file, or pyproject.toml with an ini file beside it or without."""
    try:
        from alembic.config import Config
    except ImportError as error:
        raise Failed("render-failed", "%s in %s (%s)" % (error, sys.executable, sys.version.split()[0]))
    scripts.watch()
    path = request["alembic_config"]
    if not os.path.isfile(path):
        raise Failed("invalid-input", "alembic-config: there is no %s in %s." % (path, os.getcwd()))
    options = argparse.Namespace(x=None, name="alembic", config=[path], raiseerr=None, sql=False, tag=None)
    if os.path.basename(path) == "pyproject.toml":
        ini = os.path.join(os.path.dirname(path), "alembic.ini")
        config = Config(ini if os.path.isfile(ini) else None, toml_file=path, cmd_opts=options)
    elif os.path.isfile("pyproject.toml") and "toml_file" in inspect.signature(Config).parameters:
        config = Config(path, toml_file="pyproject.toml", cmd_opts=options)
    else:
        config = Config(path, cmd_opts=options)
    offered = {bind: with_driver(url) for bind, url in request["urls"].items()}
    if "DATABASE_URL" in os.environ:
        offered[default] = os.environ["DATABASE_URL"]
    for bind, url in offered.items():
        section = config.config_ini_section if bind == default else bind
        given = config.get_section_option(section, "sqlalchemy.url")
        if not given or given.startswith("driver://"):
            # As the templates leave it: nothing that a raw `alembic upgrade` could use.
            config.set_section_option(section, "sqlalchemy.url", url.replace("%", "%%"))
    return Project(config, {}, contextlib.nullcontext, dict, request)


def offer_database_url(url: str | None) -> None:
    """An app that reads DATABASE_URL gets one, without a password, where the workflow set none."""
    if url and "DATABASE_URL" not in os.environ:
        os.environ["DATABASE_URL"] = with_driver(url)


def with_driver(url: str) -> str:
    """A URL that SQLAlchemy can use: it does not know libpq's short form, and its own driver may not be installed."""
    scheme, rest = url.split("://", 1)
    scheme = re.sub(r"^postgres\b", "postgresql", scheme)
    if "+" not in scheme:
        installed = [name for name in ("psycopg2", "psycopg", "asyncpg", "pg8000") if importlib.util.find_spec(name)]
        with contextlib.suppress(Exception):
            from sqlalchemy.engine import make_url

            make_url("postgresql://").get_dialect().import_dbapi()
            installed = []
        if installed:
            scheme = "postgresql+" + installed[0]
    return scheme + "://" + rest
