"""What a script asks of the database in a dry run: the answer is a refusal, which is kept, for a script may swallow it."""

import inspect
import sys

from atomic_upgrade.failures import NotRenderable


class Asked:
    """Knows whose turn it is, and what was refused to whom."""

    def __init__(self):
        # The path of the script that is rendered; None outside of any.
        self.path = None
        self.refused = None
        # What modules were refused while they were imported, by their files.
        self.imports = {}

    def begins(self, path):
        self.path, self.refused = path, self.imports.get(path)

    def ends(self):
        """Returns the first refusal, as its reason and the line of the script, or None."""
        refused, self.path, self.refused = self.refused, None, None
        return refused

    def refuse(self, reason, line=None):
        """Keeps the reason, and returns the exception for the script."""
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if self.path is not None and code.co_filename == self.path and line is None:
                line = frame.f_lineno
            if code.co_name == "<module>":
                self.imports.setdefault(code.co_filename, (reason, frame.f_lineno))
            frame = frame.f_back
        if self.path is not None and self.refused is None:
            self.refused = (reason, line)
        return NotRenderable(reason)


asked = Asked()

reads = "it reads the database, and a dry run has none"
offline = "it asks whether it runs offline, so its SQL is not what the online run does"
connects = "it connects to the database, which is not possible in a dry run"


def is_asking(frame):
    """Whether a script, or what it calls, looks: Alembic and SQLAlchemy look themselves."""
    if asked.path is None:
        return False
    return frame.f_globals.get("__name__", "").split(".")[0] not in ("alembic", "sqlalchemy", "atomic_upgrade")


def watch(thing, reason, *names):
    """Refuses to tell a script these attributes of a thing; one that somebody has set is what it was set to."""

    def watched(name):
        given = thing.__dict__[name] = getattr(thing, name, None)

        def read(self):
            if self.__dict__[name] is given and is_asking(sys._getframe(1)):
                raise asked.refuse(reason)
            return self.__dict__[name]

        return property(read, lambda self, value: self.__dict__.update({name: value}))

    kind = type(thing)
    thing.__class__ = type(kind.__name__, (kind,), {name: watched(name) for name in names})


class Options(dict):
    """What a context was configured with; to a script it is not said that offline mode was."""

    def __getitem__(self, name):
        self.refuse(name, sys._getframe(1))
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.refuse(name, sys._getframe(1))
        return super().get(name, default)

    def refuse(self, name, frame):
        if name == "as_sql" and is_asking(frame):
            raise asked.refuse(offline)


def watch_dialect(dialect):
    """What it knows of a server, and what it asks when it is handed a connection."""

    def takes_connection(name):
        method = getattr(type(dialect), name, None)
        return inspect.isfunction(method) and "connection" in list(inspect.signature(method).parameters)[1:2]

    watch(dialect, "it asks for the version of the server, and a dry run has none", "server_version_info")
    watch(dialect, offline, "dbapi", "paramstyle", "positional")
    watch(dialect, reads, "default_schema_name", "default_isolation_level", *filter(takes_connection, dir(type(dialect))))


class Unreadable:
    """The result of a statement that was only rendered: to look at it means to need the database."""

    def _refuse(self, *_, **__):
        raise asked.refuse("it reads the result of a statement, and without a database there is none")

    __getattr__ = __iter__ = __next__ = __bool__ = __len__ = __getitem__ = __contains__ = __call__ = _refuse
    __enter__ = __exit__ = __await__ = __aiter__ = __aenter__ = __eq__ = __ne__ = __lt__ = __gt__ = _refuse
    __hash__ = object.__hash__

    def close(self):
        pass


# What a connection that only renders can be asked for.
told = {"dialect", "engine", "name", "execute", "execution_options", "schema_for_object", "compiler", "create", "drop"}


def unconnected(connection):
    """Makes SQLAlchemy's mock connection refuse what it cannot know, an inspection above all."""
    from sqlalchemy import inspection

    kind = type(connection)

    class Unconnected(kind):
        def __getattribute__(self, name):
            # isinstance() asks for it, and online it is another one.
            if name == "__class__" and is_asking(sys._getframe(1)):
                raise asked.refuse(offline)
            if name in told or name.startswith("__") or name in ("_dialect", "_execute_impl", "_run_ddl_visitor"):
                return super().__getattribute__(name)
            # Alembic looks whether there is a transaction.
            if asked.path is None or sys._getframe(1).f_globals.get("__name__", "").startswith("alembic."):
                return super().__getattribute__(name)
            raise asked.refuse(reads)

        def __enter__(self):
            raise asked.refuse(reads)

        def __exit__(self, *_):
            return None

    @inspection._inspects(Unconnected)
    def refuse(_):
        raise asked.refuse(reads)

    Unconnected.__name__ = "Connection"
    connection.__class__ = Unconnected


def watch_operations():
    """Alembic's own operations that need a connection: of these it says so itself, by an exception that may be swallowed."""
    from alembic.operations import base, batch
    from alembic.util import CommandError

    # The class is Operations alone before Alembic 1.11, which brought run_async.
    operations, flush = getattr(base, "AbstractOperations", base.Operations), batch.BatchOperationsImpl.flush
    run_async = getattr(operations, "run_async", None)

    def watched_flush(self):
        try:
            return flush(self)
        except CommandError:
            if asked.path is None:
                raise
            raise asked.refuse(reads)

    def watched_run_async(self, *args, **options):
        if asked.path:
            raise asked.refuse(reads)
        return run_async(self, *args, **options)

    batch.BatchOperationsImpl.flush = watched_flush
    if run_async:
        operations.run_async = watched_run_async
