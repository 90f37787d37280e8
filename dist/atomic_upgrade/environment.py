"""The environment that env.py sees: Alembic's own, with an eye on what env.py configures."""

from __future__ import annotations

import builtins
import contextlib
import os
import sys

from atomic_upgrade.alembic_patches import put_in_env
from atomic_upgrade.failures import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator
    from typing import Any, Protocol

    from alembic.runtime.migration import MigrationContext, RevisionStep
    from alembic.script import ScriptDirectory

    from atomic_upgrade.project import Project

    class Watch(Protocol):
        """Of one run of env.py; where it migrates several databases, they come one after another."""

        # Whether it renders, and has no database.
        as_sql: bool

        def configured(self, context: MigrationContext) -> None: ...

        def begins(self, bind: str, context: MigrationContext) -> None:
            """Its migrations are about to run."""

        def steps(self, bind: str, heads: tuple[str, ...]) -> Iterable[RevisionStep]:
            """What shall run."""

        def applied(self, bind: str, heads: set[str]) -> None:
            """A revision has been."""


default = "default"


def run_env(project: Project, script: ScriptDirectory, target: str, watch: Watch) -> None:
    """Runs env.py like `alembic upgrade`, repairs what it configures, and tells `watch` of each database."""
    from alembic.runtime.environment import EnvironmentContext

    seen: list[str] = []

    def fn(heads: tuple[str, ...], context: MigrationContext) -> Iterable[RevisionStep]:
        return watch.steps(seen[-1], heads)

    env = EnvironmentContext(project.config, script, fn=fn, as_sql=watch.as_sql, destination_rev=target, tag=None)
    configure_as_given, run_as_given = env.configure, env.run_migrations

    def configure(*args: Any, **options: Any) -> None:
        if watch.as_sql:
            options["dialect_opts"] = {**(options.get("dialect_opts") or {}), "paramstyle": "named"}
            options["transaction_per_migration"] = False
            for name in ("version_table", "version_table_schema"):
                if project.configure_args.get(name):
                    options.setdefault(name, project.configure_args[name])
        options.update(project.forced)
        given = options.get("on_version_apply") or ()
        given = given if isinstance(given, (list, tuple, set)) else [given]
        options["on_version_apply"] = (*given, lambda heads, **_: watch.applied(seen[-1], heads))
        configure_as_given(*args, **options)
        context = env.get_context()
        if context.dialect.name != "postgresql":
            raise Failed(
                "render-failed",
                "The project is configured for %s, and Atomic Upgrade migrates PostgreSQL only: "
                "let the app read its URL from DATABASE_URL, or set it in the workflow." % context.dialect.name,
            )
        watch.configured(context)

    def run_migrations(**arguments: Any) -> None:
        # Both multi-database templates name it so; Flask-Migrate's calls its default database ''.
        bind = arguments.get("engine_name") or default
        if bind in seen:
            raise Failed(
                "render-failed",
                "env.py runs the migrations more than once for the database %s (one version table for each schema, "
                "perhaps), and Atomic Upgrade knows one version table for each database." % bind,
            )
        seen.append(bind)
        watch.begins(bind, env.get_context())
        run_as_given(**arguments)

    put_in_env(env, configure=configure, run_migrations=run_migrations)
    silence = no_files(script) if watch.as_sql else contextlib.nullcontext()
    with project.context(), quiet() if watch.as_sql else contextlib.nullcontext(), silence, env:
        script.run_env()


@contextlib.contextmanager
def no_files(script: ScriptDirectory) -> Iterator[None]:
    """The env.py of several databases would write a file of SQL for each into the working directory."""
    env_py = os.path.realpath(os.path.join(script.dir, "env.py"))
    opened = builtins.open

    def open_elsewhere(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode and os.path.realpath(sys._getframe(1).f_code.co_filename) == env_py:
            file = os.devnull
        return opened(file, mode, *args, **options)

    builtins.open = open_elsewhere
    try:
        yield
    finally:
        builtins.open = opened


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Alembic logs a dry run as if it ran; our own log says it better."""
    import logging

    def hide(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    names = ("alembic.runtime.migration", "alembic.runtime.plugins", "alembic.env")
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(hide)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(hide)
