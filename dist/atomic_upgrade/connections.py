"""Connections of the app: to the gate or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
import threading

from atomic_upgrade.asked import asked, connects
from atomic_upgrade.channel import channel
from atomic_upgrade.failures import Failed, is_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any

    from sqlalchemy.engine import Connection, Dialect

    from atomic_upgrade.messages import Address, Place

    BindOf = Callable[[Dialect, Mapping[str, object]], "str | None"]
    # The thread, the task of an event loop, and the place in the user's code.
    Who = tuple[str, "str | None", "Place | None"]

# Where SQLAlchemy keeps the number of a connection, which the gate knows as well, and who was told to use it.
numbered, told = "atomic_upgrade.number", "atomic_upgrade.told"


class Gates:
    """Where PostgreSQL connections may go now; nowhere outside of a run."""

    def __init__(self) -> None:
        self.addresses: Mapping[str, Address] = {}
        self.bind_of: BindOf | None = None
        self.loading = False
        self.opening = False
        # The numbers of connections that were just made, by their id().
        self.approved: dict[int, int] = {}
        self.numbers = itertools.count(1)

    def open(self, addresses: Mapping[str, Address], bind_of: BindOf | None) -> None:
        """`addresses` by bind; `bind_of` tells the bind of a dialect and its arguments, or None."""
        self.addresses, self.bind_of = addresses, bind_of

    def close(self) -> None:
        self.addresses = {}

    def address_for(self, dialect: Dialect, arguments: Mapping[str, object]) -> Address:
        if len(self.addresses) == 1:
            return next(iter(self.addresses.values()))
        bind = self.bind_of(dialect, arguments) if self.bind_of else None
        if bind is None or bind not in self.addresses:
            raise Failed(
                "migration-failed",
                "A connection to the database %s was asked for, and it is none of this step's: %s."
                % (arguments.get("dbname", arguments.get("database")), ", ".join(sorted(self.addresses))),
            )
        return self.addresses[bind]

    def reroute(self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        """SQLAlchemy's do_connect event: https://docs.sqlalchemy.org/en/20/core/events.html"""
        if dialect.name != "postgresql":
            return None
        if self.loading:
            raise Failed(
                "render-failed",
                "The app connects to the database while it is imported, and Atomic Upgrade opens a connection "
                "only for the migrations themselves. Move that into a command, a request or a migration.",
            )
        if not self.addresses:
            raise asked.refuse(connects)
        address = self.address_for(dialect, cparams)
        for name in (
            "service",
            "dsn",
            "hostaddr",
            "passfile",
            "require_auth",
            "channel_binding",
            "krbsrvname",
            "target_session_attrs",
            "load_balance_hosts",
            "unix_sock",
            "direct_tls",
            "source_address",
            "requirepeer",
            "dbname",
            "database",
        ):
            cparams.pop(name, None)
        for name in [name for name in cparams if name.startswith(("ssl", "gss"))]:
            del cparams[name]
        number = next(self.numbers)
        tell(number, speaker())
        cparams.update(
            host=address["host"],
            port=address["port"],
            user=address["user"],
            password="%s.%d" % (address["password"], number),
        )
        cparams["database" if dialect.driver in ("asyncpg", "pg8000") else "dbname"] = address["database"]
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
        self.approved[id(connection)] = number
        return connection

    def check(self, connection: Any, record: Any) -> None:
        """SQLAlchemy's pool connect event: a connection that `reroute` did not make fails closed."""
        if id(connection) in self.approved:
            record.info[numbered] = self.approved.pop(id(connection))
            return
        if type(connection).__module__.split(".")[0] in ("sqlite3", "pysqlite2", "aiosqlite"):
            return
        module = type(connection).__module__
        if any(name in module for name in ("psycopg", "asyncpg", "pg8000", "pygresql", "pgdb", "postgresql")):
            connection.close()
            if not self.addresses:
                asked.refuse(connects)
            raise RuntimeError(
                "This database connection was not made by SQLAlchemy itself (an engine with creator=, or a custom "
                "pool), so it cannot be part of the transaction of Atomic Upgrade and was closed. "
                "Let SQLAlchemy connect by a URL when it runs migrations."
            )

    def taken(self, connection: Any, record: Any, proxy: Any) -> None:
        """SQLAlchemy's pool checkout event: a pooled connection may be another thread's now."""
        number, now = record.info.get(numbered), speaker()
        if number is not None and record.info.get(told) != now and self.addresses:
            record.info[told] = now
            tell(number, now)

    def spoken(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        """SQLAlchemy's before_cursor_execute event: who has taken a connection may hand it to another thread or task."""
        if not self.addresses:
            return
        info = connection.info
        number, was, now = info.get(numbered), info.get(told), talker()
        if number is not None and (was is None or was[:2] != now):
            info[told] = (*now, was and was[2])
            tell(number, info[told])

    def guard(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a driver's own connect(), which a script may call past SQLAlchemy."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if not self.opening:
                if not self.addresses:
                    asked.refuse(connects)
                raise RuntimeError(
                    "This script connects to PostgreSQL past SQLAlchemy, so its statements could not be part of the "
                    "transaction of Atomic Upgrade. Use op.get_bind() or an SQLAlchemy engine instead."
                )
            return connect(*args, **kwargs)

        return guarded


gates = Gates()


def tell(number: int, now: Who) -> None:
    """The gate needs to know who speaks before it hears it."""
    thread, task, place = now
    channel.ask(speaker={"connection": number, "thread": thread, "task": task, "place": place})


def current_task() -> Task[Any] | None:
    # Not imported where nobody else did: it takes a twentieth of a second.
    with contextlib.suppress(KeyError, RuntimeError):
        task: Task[Any] | None = sys.modules["asyncio"].current_task()
        return task
    return None


def talker() -> tuple[str, str | None]:
    """The thread, and the task of an event loop."""
    task = current_task()
    return str(threading.get_ident()), str(id(task)) if task else None


def speaker() -> Who:
    """The same, and the place in the user's code."""
    task = current_task()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None and task is not None:
        # SQLAlchemy's greenlet does not know who awaits it.
        frame = next((each for each in reversed(task.get_stack()) if is_users(each.f_code.co_filename)), None)
    place: Place | None = {"file": frame.f_code.co_filename, "line": frame.f_lineno} if frame else None
    return (*talker(), place)


def refused_in_dry_run(connect: Callable[..., Any]) -> Callable[..., Any]:
    """These two are caught when the pool gets their connection, which in a dry run must not be tried at all."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if asked.path is not None and not gates.opening:
            raise asked.refuse(connects)
        return connect(*args, **kwargs)

    return guarded


def watch_connections() -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

    event.listen(Engine, "do_connect", gates.reroute)
    event.listen(Pool, "connect", gates.check)
    event.listen(Pool, "checkout", gates.taken)
    event.listen(Engine, "before_cursor_execute", gates.spoken)


def guard_drivers() -> None:
    module: Any
    for name in ("psycopg2", "psycopg"):
        if importlib.util.find_spec(name) is None:
            continue
        with contextlib.suppress(ImportError):
            module = __import__(name)
            module.connect = gates.guard(module.connect)
            if name == "psycopg":
                module.Connection.connect = staticmethod(gates.guard(module.Connection.connect))
                module.AsyncConnection.connect = staticmethod(gates.guard(module.AsyncConnection.connect))
    for name in ("asyncpg", "pg8000"):
        if importlib.util.find_spec(name) is None:
            continue
        with contextlib.suppress(ImportError):
            module = __import__(name)
            module.connect = refused_in_dry_run(module.connect)
