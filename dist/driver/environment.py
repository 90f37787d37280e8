"""The environment that env.py sees: Alembic's own, with an eye on what env.py configures."""

import contextlib

from atomic_upgrade.failures import Failed


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
