"""Atomic Upgrade's side of the user's Python, handed to `python -c`.

Reads requests as JSON lines from stdin, one at a time, and answers on what was stdout; every answer starts with the
nonce of the first request, so that nothing an app prints can be taken for one. Whatever else is printed goes to stderr.
"""

import argparse
import ast
import contextlib
import copy
import functools
import importlib.util
import inspect
import json
import os
import re
import sys
import traceback
import warnings


class Failed(Exception):
    """A failure that is already in words: `kind` tells the action which one."""

    def __init__(self, kind, message, **details):
        super().__init__(message)
        self.kind = kind
        self.details = details


class NotRenderable(Exception):
    """The script cannot be shown as SQL without a database; says why."""


class Channel:
    def __init__(self):
        self.output = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
        self.input = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.nonce = ""

    def receive(self):
        line = self.input.readline()
        if not line:
            # The action has gone. Nothing may run on without it.
            os._exit(3)
        return json.loads(line)

    def send(self, **answer):
        self.output.write("\n" + self.nonce + json.dumps(answer) + "\n")
        self.output.flush()


channel = Channel()


# ── Connections: to the gate or not at all ──────────────────────────────────────────────────────────────────────────


class Gates:
    """Where PostgreSQL connections may go now; nowhere outside of a run."""

    def __init__(self):
        self.address = None
        self.loading = False
        self.opening = False
        self.approved = set()

    def reroute(self, dialect, record, cargs, cparams):
        """SQLAlchemy's do_connect event: https://docs.sqlalchemy.org/en/20/core/events.html"""
        if dialect.name != "postgresql":
            return None
        if self.loading:
            raise Failed(
                "render-failed",
                "The app connects to the database while it is imported, and Atomic Upgrade opens a connection "
                "only for the migrations themselves. Move that into a command, a request or a migration.",
            )
        if self.address is None:
            raise NotRenderable("it connects to the database, which is not possible in a dry run")
        for name in ("service", "dsn", "hostaddr", "passfile", "require_auth", "channel_binding", "krbsrvname",
                     "target_session_attrs", "load_balance_hosts", "unix_sock", "direct_tls", "source_address",
                     "requirepeer", "dbname", "database"):
            cparams.pop(name, None)
        for name in [name for name in cparams if name.startswith(("ssl", "gss"))]:
            del cparams[name]
        cparams.update(
            host=self.address["host"],
            port=self.address["port"],
            user=self.address["user"],
            password=self.address["password"],
        )
        cparams["database" if dialect.driver in ("asyncpg", "pg8000") else "dbname"] = self.address["database"]
        if dialect.driver == "asyncpg":
            cparams["ssl"] = False
        elif dialect.driver == "pg8000":
            cparams["ssl_context"] = None
        else:
            cparams.update(sslmode="disable", gssencmode="disable")
        self.opening = True
        try:
            connection = dialect.connect(**cparams)
        finally:
            self.opening = False
        self.approved.add(id(connection))
        return connection

    def check(self, connection, record):
        """SQLAlchemy's pool connect event: a connection that `reroute` did not make fails closed."""
        if id(connection) in self.approved:
            self.approved.discard(id(connection))
            return
        if type(connection).__module__.split(".")[0] in ("sqlite3", "pysqlite2", "aiosqlite"):
            return
        module = type(connection).__module__
        if any(name in module for name in ("psycopg", "asyncpg", "pg8000", "pygresql", "pgdb", "postgresql")):
            connection.close()
            raise RuntimeError(
                "This database connection was not made by SQLAlchemy itself (an engine with creator=, or a custom "
                "pool), so it cannot be part of the transaction of Atomic Upgrade and was closed. "
                "Let SQLAlchemy connect by a URL when it runs migrations."
            )

    def guard(self, connect):
        """Wraps a driver's own connect(), which a script may call past SQLAlchemy."""

        def guarded(*args, **kwargs):
            if not self.opening:
                raise RuntimeError(
                    "This script connects to PostgreSQL past SQLAlchemy, so its statements could not be part of the "
                    "transaction of Atomic Upgrade. Use op.get_bind() or an SQLAlchemy engine instead."
                )
            return connect(*args, **kwargs)

        return guarded


gates = Gates()


def watch_connections():
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

    event.listen(Engine, "do_connect", gates.reroute)
    event.listen(Pool, "connect", gates.check)


def guard_drivers():
    for name in ("psycopg2", "psycopg"):
        if importlib.util.find_spec(name) is None:
            continue
        with contextlib.suppress(ImportError):
            module = __import__(name)
            module.connect = gates.guard(module.connect)
            if name == "psycopg":
                module.Connection.connect = staticmethod(gates.guard(module.Connection.connect))
                module.AsyncConnection.connect = staticmethod(gates.guard(module.AsyncConnection.connect))


# ── Loading the project ─────────────────────────────────────────────────────────────────────────────────────────────


class Project:
    """The user's Alembic configuration, in its Flask app if it has one."""

    def __init__(self, config, configure_args, context, request):
        self.config = config
        self.configure_args = configure_args
        self.context = context
        # What the inputs say goes before what env.py says.
        self.forced = {
            name: request[name] for name in ("version_table", "version_table_schema") if request.get(name)
        }

    def scripts(self):
        from alembic.script import ScriptDirectory

        return ScriptDirectory.from_config(self.config)


def load(request):
    offer_database_url(request.get("url"))
    watch_connections()
    gates.loading = True
    project = load_alembic(request) if request.get("alembic_config") else load_flask(request)
    gates.loading = False
    guard_drivers()
    script = project.scripts()
    with whole_graph(script):
        walked = list(script.walk_revisions())
    revisions = [
        {
            "id": each.revision,
            "down": list(each._versioned_down_revisions),
            "depends_on": [name for name in each._resolved_dependencies],
            "labels": sorted(each.branch_labels or ()),
            "message": each.doc or "",
            "path": each.path,
            "created": (re.search(r"Create Date: *(.+)", each.longdoc or "") or ["", ""])[1],
        }
        for each in walked
    ]
    table, schema = version_table_of(project, script)
    heads = sorted(script.get_heads())
    return project, {"revisions": revisions, "heads": heads, "version_table": table, "version_table_schema": schema}


@contextlib.contextmanager
def whole_graph(script):
    """Says in words what is wrong with the scripts' graph: Alembic only warns of some of it, or dies of a KeyError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (ImportError, SyntaxError):
            raise
        except Exception as error:
            raise broken_graph(script) or error
    told = [str(warning.message) for warning in caught]
    if any("present more than once" in text for text in told):
        raise broken_graph(script)
    for text in told:
        sys.stderr.write("warning: %s\n" % text)


def broken_graph(script):
    paths = {}
    for directory in script._version_locations if hasattr(script, "_version_locations") else [script.versions]:
        for folder, _, names in os.walk(directory):
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        for node in read_scripts([file.read()]):
                            paths.setdefault(node["id"], []).append((path, node))
    for name, found in sorted(paths.items()):
        if len(found) > 1:
            files = " and ".join(sorted(os.path.relpath(path) for path, _ in found))
            return Failed("render-failed", "Two scripts have the revision id %s: %s." % (name, files), path=found[-1][0])
    for name, [(path, node)] in sorted(paths.items()):
        for down in node["down"]:
            if down not in paths:
                told = "Revision %s (%s) revises %s, and there is no script of that id."
                return Failed("render-failed", told % (name, os.path.relpath(path), down), path=path)
    remaining = {name: set(found[0][1]["down"]) for name, found in paths.items()}
    while True:
        done = {name for name, downs in remaining.items() if not downs & set(remaining)}
        if not done:
            break
        for name in done:
            del remaining[name]
    if remaining:
        return Failed("render-failed", "These revisions revise each other in a circle: %s." % ", ".join(sorted(remaining)))
    return None


def load_flask(request):
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
    return Project(config, args, app.app_context, request)


def no_app(told):
    """Flask tells of an error in the app by printing its traceback into the message."""
    if "Traceback" not in told:
        return Failed("render-failed", "The Flask app was not found: %s" % told)
    places = re.findall(r'File "([^"]+)", line (\d+)', told)
    frames = [{"file": file, "line": int(line), "function": ""} for file, line in places if is_users(file)]
    return Failed("render-failed", "The Flask app does not import: %s" % told.strip().splitlines()[-1], frames=frames)


def load_alembic(request):
    """As the `alembic` command does with -c: an ini file, or pyproject.toml with an ini file beside it or without."""
    try:
        from alembic.config import Config
    except ImportError as error:
        raise Failed("render-failed", "%s in %s (%s)" % (error, sys.executable, sys.version.split()[0]))
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
    url = config.get_main_option("sqlalchemy.url")
    if "DATABASE_URL" in os.environ and (not url or url.startswith("driver://")):
        # As the templates leave it: nothing that a raw `alembic upgrade` could use.
        config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"].replace("%", "%%"))
    return Project(config, {}, contextlib.nullcontext, request)


def version_table_of(project, script):
    """Asks env.py, by a dry run in which nothing is to be done."""
    renderer = Renderer(True)
    env = environment(project, script, "heads", lambda current, context: (), renderer)
    with project.context(), quiet(), env:
        script.run_env()
    return renderer.context.version_table, renderer.context.version_table_schema


def offer_database_url(url):
    """An app that reads DATABASE_URL gets one, without a password, where the workflow set none."""
    if not url or "DATABASE_URL" in os.environ:
        return
    scheme, rest = url.split("://", 1)
    # SQLAlchemy does not know libpq's short form.
    scheme = re.sub(r"^postgres\b", "postgresql", scheme)
    if "+" not in scheme:
        installed = [name for name in ("psycopg2", "psycopg", "asyncpg", "pg8000") if importlib.util.find_spec(name)]
        with contextlib.suppress(Exception):
            from sqlalchemy.engine import make_url

            make_url("postgresql://").get_dialect().import_dbapi()
            installed = []
        if installed:
            scheme = "postgresql+" + installed[0]
    os.environ["DATABASE_URL"] = scheme + "://" + rest


@contextlib.contextmanager
def quiet():
    """Alembic logs a dry run as if it ran; our own log says it better."""
    import logging

    def hide(record):
        return record.levelno > logging.INFO

    loggers = [logging.getLogger("alembic.runtime." + name) for name in ("migration", "plugins")]
    for logger in loggers:
        logger.addFilter(hide)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(hide)


# ── The environment that env.py sees ────────────────────────────────────────────────────────────────────────────────


def environment(project, script, target, fn, render=None, start=None, applied=None):
    """An EnvironmentContext like that of `alembic upgrade`, which also notes and repairs what env.py configures."""
    from alembic.runtime.environment import EnvironmentContext

    env = EnvironmentContext(
        project.config, script, fn=fn, as_sql=bool(render), starting_rev=start, destination_rev=target, tag=None
    )
    original = env.configure

    def configure(*args, **options):
        if render:
            options["dialect_opts"] = {**(options.get("dialect_opts") or {}), "paramstyle": "named"}
            options["transaction_per_migration"] = False
            for name in ("version_table", "version_table_schema"):
                if project.configure_args.get(name):
                    options.setdefault(name, project.configure_args[name])
        options.update(project.forced)
        if applied:
            given = options.get("on_version_apply") or ()
            options["on_version_apply"] = (*(given if isinstance(given, (list, tuple, set)) else [given]), applied)
        original(*args, **options)
        context = env.get_context()
        if context.dialect.name != "postgresql":
            raise Failed(
                "render-failed",
                "The project is configured for %s, and Atomic Upgrade migrates PostgreSQL only: "
                "let the app read its URL from DATABASE_URL, or set it in the workflow." % context.dialect.name,
            )
        if render:
            render.install(context)

    # Not a subclass: Alembic hands env.py its `context` by the exact class. The proxy calls what the instance has.
    env.configure = configure
    return env


def steps_to(script, direction, target, heads):
    from alembic.script import revision
    from alembic.util import CommandError

    find = script._upgrade_revs if direction == "upgrade" else script._downgrade_revs
    try:
        return list(find(target, heads))
    except CommandError as error:
        several = isinstance(error.__cause__, revision.MultipleHeads)
        raise Failed("multiple-heads" if several else "unknown-revision", str(error))


def read_scripts(sources):
    """The graph of scripts that are read and not run: module-level names with literal values, annotated or not."""
    nodes = []
    for source in sources:
        values = {}
        with contextlib.suppress(SyntaxError, ValueError):
            for statement in ast.parse(source).body:
                targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
                for target in targets:
                    if isinstance(target, ast.Name) and getattr(statement, "value", None) is not None:
                        with contextlib.suppress(ValueError):
                            values[target.id] = ast.literal_eval(statement.value)
        if isinstance(values.get("revision"), str) and "down_revision" in values:
            nodes.append(
                {
                    "id": values["revision"],
                    "down": as_names(values["down_revision"]),
                    "dependsOn": as_names(values.get("depends_on")),
                    "labels": as_names(values.get("branch_labels")),
                }
            )
    return nodes


def as_names(value):
    return [value] if isinstance(value, str) else sorted(value or ())


# ── Dry run ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Unreadable:
    """The result of a statement that was only rendered: to look at it means to need the database."""

    def _refuse(self, *_):
        raise NotRenderable("it reads the result of a statement, and without a database there is none")

    __getattr__ = __iter__ = __next__ = __bool__ = __len__ = __getitem__ = __contains__ = _refuse

    def close(self):
        pass


class Renderer:
    """Collects each revision's statements where Alembic's offline mode would print them, and keeps them faithful."""

    def __init__(self, version_table_exists):
        self.version_table_exists = version_table_exists
        self.revisions = []
        self.path = None

    def install(self, context):
        self.context = context
        self.dialect = context.dialect
        # Offline the dialect does not know that the server has standard_conforming_strings on.
        self.dialect._backslash_escapes = False
        context.impl._exec = self.execute
        context.impl.static_output = self.note
        context.connection.execute = self.execute_on_connection
        create = context.connection._run_ddl_visitor

        def create_without_looking(visitor, element, **options):
            if options.get("checkfirst") and self.path:
                raise NotRenderable("it creates or drops what may be there already (checkfirst), which only the database knows")
            return create(visitor, element, **options)

        context.connection._run_ddl_visitor = create_without_looking
        self.hide_offline_mode(context)

    def hide_offline_mode(self, context):
        """A script that asks whether it runs offline would show what the online run does not do."""

        told = "it asks whether it runs offline, so its SQL is not what the online run does"

        def as_sql(_):
            # Alembic itself asks as well.
            if self.path and is_users(sys._getframe(1).f_code.co_filename):
                raise NotRenderable(told)
            return True

        def is_offline_mode():
            if self.path:
                raise NotRenderable(told)
            return True

        name, watched = type(context).__name__, {"as_sql": property(as_sql, lambda *_: None)}
        context.__class__ = type(name, (type(context),), watched)
        context.environment_context.is_offline_mode = is_offline_mode

    def execute(self, construct, execution_options=None, multiparams=None, params=None):
        if multiparams or params:
            raise NotRenderable("it executes a statement with parameters, which offline mode would drop")
        from sqlalchemy import schema, text

        if isinstance(construct, str):
            construct = text(construct)
        if isinstance(construct, schema.CreateTable) and construct.element is self.context._version:
            if self.version_table_exists:
                return None
        self.add(self.compile(construct))
        return None

    def execute_on_connection(self, construct, *multiparams, **params):
        params.pop("execution_options", None)
        if any(multiparams) or any(params.values()):
            raise NotRenderable("it executes a statement with parameters, which offline mode would drop")
        self.execute(construct)
        return Unreadable()

    def compile(self, construct):
        from sqlalchemy import schema
        from sqlalchemy.sql import elements, visitors

        if isinstance(construct, schema.DDLElement):
            return str(construct.compile(dialect=self.dialect)).strip()
        for part in visitors.iterate(construct):
            if isinstance(part, elements.BindParameter) and part.required and part.value is None:
                if part.callable is None:
                    raise NotRenderable("the parameter :%s of a statement has no value" % part.key)
        compiled = construct.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True})
        for column in getattr(compiled, "insert_prefetch", ()) or getattr(compiled, "update_prefetch", ()):
            raise NotRenderable("the column %s has a default that Python computes as it runs" % column.name)
        return str(compiled).strip()

    def note(self, text):
        text = text.strip()
        if not text.startswith("-- Running "):
            self.add(text[:-1] if text.endswith(";") else text)

    def add(self, sql):
        if self.revisions:
            self.revisions[-1]["statements"].append({"sql": sql, "line": self.line(), "own": self.path is None})

    def line(self):
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back
        return frame.f_lineno if frame else None

    def steps(self, steps):
        for step in steps:
            self.revisions.append({"id": step.revision.revision, "statements": [], "reason": None, "line": None})
            step.migration_fn = self.guarded(step.migration_fn, step.revision.path, self.revisions[-1])
            yield step

    def repeat(self, migrate, kwargs, statements, start, memo):
        """Renders once more, from the same state of Alembic's, to see whether the script would write the same again."""
        end = len(statements)
        kept, self.context.impl.memo = self.context.impl.memo, memo
        try:
            migrate(**kwargs)
        except Exception:
            # It cannot run twice in one process (a global Table, for one), which says nothing about its SQL.
            return
        finally:
            self.context.impl.memo = kept
            again = statements[end:]
            del statements[end:]
        first = statements[start:end]
        changed = [one for one, other in zip(first, again) if one["sql"] != other["sql"]]
        if changed or len(first) != len(again):
            told = "it writes something else every time, such as a time or a random value"
            raise NotRenderable(told, changed[0]["line"] if changed else None)

    def guarded(self, migrate, path, revision):
        @functools.wraps(migrate)
        def run(**kwargs):
            self.path = path
            before = len(revision["statements"])
            try:
                memo = copy.deepcopy(self.context.impl.memo)
                migrate(**kwargs)
                self.repeat(migrate, kwargs, revision["statements"], before, memo)
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, Failed)):
                    raise
                del revision["statements"][before:]
                line = error.args[1] if isinstance(error, NotRenderable) and len(error.args) > 1 else line_in(error, path)
                revision.update(reason=reason_of(error), line=line)
            finally:
                self.path = None

        return run


def reason_of(error):
    cause = error
    while cause is not None:
        if isinstance(cause, NotRenderable):
            return cause.args[0]
        cause = cause.__cause__ or cause.__context__
    text = one_line(error)
    if "MockConnection" in text or "MockEngine" in text:
        return "it reads the database, and a dry run has none"
    return text


def plan(project, request):
    script = project.scripts()
    try:
        from alembic.util import CommandError

        names = request["heads"]
        prior = [each.revision for name in names for each in script.get_revisions(name) if each is not None]
    except CommandError as error:
        raise Failed("unknown-revision", str(error), heads=names)
    renderer = Renderer(request["version_table_exists"])
    new = set(prior)

    def applied(heads, **_):
        new.clear()
        new.update(heads)

    def fn(current, context):
        return renderer.steps(steps_to(script, request["direction"], request["target"], current))

    env = environment(project, script, request["target"], fn, renderer, tuple(prior) or None, applied)
    with project.context(), quiet(), env:
        script.run_env()
    return {"prior": sorted(prior), "new": sorted(new), "revisions": renderer.revisions}


# ── Run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def run(project, request):
    # Fresh modules: a script may have changed its own globals in the dry run.
    script = project.scripts()
    running = {"path": None, "id": None}

    def fn(current, context):
        steps = steps_to(script, request["direction"], request["target"], current)
        if [step.revision.revision for step in steps] != request["revisions"]:
            raise Failed("drift", "Alembic finds the heads %s in the database." % (", ".join(current) or "(base)"))
        for step in steps:
            running.update(path=step.revision.path, id=step.revision.revision)
            channel.send(revision=step.revision.revision)
            channel.receive()
            yield step

    gates.address = request["gate"]
    try:
        with project.context(), environment(project, script, request["target"], fn):
            script.run_env()
        return {"ran": True}
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, Failed)):
            raise
        if isinstance(error, SystemExit):
            raise Failed("script", "The script ended Python with SystemExit(%s)." % error.code, **where(error, running))
        raise Failed("script", one_line(error), database=is_database_error(error), **where(error, running))
    finally:
        gates.address = None


def where(error, running):
    return {"revision": running["id"], "line": line_in(error, running["path"]), "frames": frames_of(error)}


def is_database_error(error):
    from sqlalchemy.exc import DBAPIError

    while error is not None:
        if isinstance(error, DBAPIError) or hasattr(error, "sqlstate") or hasattr(error, "pgcode"):
            return True
        error = error.__cause__
    return False


# ── Errors in words ─────────────────────────────────────────────────────────────────────────────────────────────────


def one_line(error):
    text = str(error).strip().splitlines()
    return "%s: %s" % (type(error).__name__, text[0][:2000]) if text else type(error).__name__


def line_in(error, path):
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path]
    return lines[-1] if lines else None


def is_users(path):
    here = os.getcwd() + os.sep
    outside = os.sep + "site-packages" + os.sep in path
    return os.path.abspath(path).startswith(here) and os.path.isfile(path) and not outside


def frames_of(error):
    """The frames in the user's own files, outermost first."""
    frames = [
        {"file": frame.f_code.co_filename, "line": line, "function": frame.f_code.co_name}
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_users(frame.f_code.co_filename)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append({"file": error.filename, "line": error.lineno, "function": "<module>"})
    return frames


def answer(action):
    try:
        channel.send(**action())
    except Failed as error:
        channel.send(failed={"kind": error.kind, "message": str(error), **error.details})
    except BaseException as error:
        channel.send(failed={"kind": "render-failed", "message": one_line(error), "frames": frames_of(error)})


def main():
    first = channel.receive()
    channel.nonce = first["nonce"]
    project = None

    def loading():
        nonlocal project
        project, loaded = load(first["load"])
        return {"loaded": loaded}

    answer(loading)
    while project is not None:
        request = channel.receive()
        if "plan" in request:
            answer(lambda: {"planned": plan(project, request["plan"])})
        elif "read" in request:
            answer(lambda: {"read": read_scripts(request["read"])})
        elif "run" in request:
            answer(lambda: run(project, request["run"]))


main()
