"""Where SQLAlchemy is patched, or its private methods overridden: all of it, and nothing of Alembic's.

Unless another is named, each is for every SQLAlchemy from 1.4 to 2.1, which docs/compatibility.md has been seen to work
with; and each docstring says what SQLAlchemy has no public way for. Connections are rerouted by its public events
(connections.py).
"""

from __future__ import annotations

import copy
import inspect
import sys

from atomic_upgrade.asked import asked, is_asking, offline, reads, watch
from atomic_upgrade.literals import literal_of, no_literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from sqlalchemy.engine import Dialect


def keep_backslashes(dialect: Any) -> None:
    """For SQLAlchemy 1.4 and 2.0: where it cannot ask the server, it takes standard_conforming_strings to be off."""
    dialect._backslash_escapes = False


def with_literals(dialect: Dialect) -> Dialect:
    """A copy of the dialect that compiles values as literal_of writes them.

    SQLAlchemy's own way is right for some types only, and a type's literal processor is not asked for the others.
    """
    from alembic.util.sqla_compat import _literal_bindparam

    base: Any = dialect.statement_compiler

    class Compiler(base):
        # Whether it renders what online is a parameter with its type, and not just the value of a column.
        is_typed = False

        def render_literal_bindparam(self, bindparam: Any, *args: Any, **options: Any) -> Any:
            before = self.is_typed
            self.is_typed = not (isinstance(bindparam, _literal_bindparam) or getattr(bindparam, "_is_crud", False))
            try:
                return super().render_literal_bindparam(bindparam, *args, **options)
            finally:
                self.is_typed = before

        def render_literal_value(self, value: Any, type_: Any) -> str:
            literal = literal_of(value, type_, dialect)
            if literal is None:
                try:
                    literal = super().render_literal_value(value, type_)
                except Exception:
                    # SQLAlchemy's words name the value, and a cause that nobody sees.
                    raise no_literal(value, type_)
            return self.typed(literal, type_) if self.is_typed else literal

        def typed(self, literal: str, type_: Any) -> str:
            """A quoted value alone is what PostgreSQL takes it for: a citext beside one, for example."""
            impl = type_._unwrapped_dialect_impl(dialect)
            # SQLAlchemy 1.4 casts no parameter.
            is_cast = getattr(dialect, "_bind_typing_render_casts", False) and impl.render_bind_cast
            return self.render_bind_cast(type_, impl, literal) if is_cast and literal[-1:] == "'" else literal

    copied = copy.copy(dialect)
    copied.statement_compiler = Compiler
    return copied


def watch_dialect(dialect: Dialect) -> None:
    """What it knows of a server, and what it asks when it is handed a connection; offline it knows and asks nothing."""

    def takes_connection(name: str) -> bool:
        method = getattr(type(dialect), name, None)
        return inspect.isfunction(method) and "connection" in list(inspect.signature(method).parameters)[1:2]

    asking = filter(takes_connection, dir(type(dialect)))
    watch(dialect, "it asks for the version of the server, and a dry run has none", "server_version_info")
    watch(dialect, offline, "dbapi", "paramstyle", "positional")
    watch(dialect, reads, "default_schema_name", "default_isolation_level", *asking)


# What a connection that only renders can be asked for.
told = {"dialect", "engine", "name", "execute", "execution_options", "schema_for_object", "compiler", "create", "drop"}


def only_render(connection: Any, execute: Callable[..., object]) -> None:
    """Of SQLAlchemy's mock connection, which Alembic's offline mode has, `execute` is exchanged.

    Beyond that it refuses what it cannot know: an inspection above all, and to look whether a table is there already.
    SQLAlchemy itself creates or drops it all the same, and knows nothing of the mock one where it inspects.
    """
    connection.execute = execute
    create = connection._run_ddl_visitor

    def create_without_looking(visitor: Any, element: Any, **options: Any) -> Any:
        if options.get("checkfirst") and asked.path:
            raise asked.refuse(
                "it creates or drops what may be there already (checkfirst), which only the database knows"
            )
        return create(visitor, element, **options)

    connection._run_ddl_visitor = create_without_looking
    unconnected(connection)


def unconnected(connection: Any) -> None:
    """It refuses what it cannot know."""
    from sqlalchemy import inspection

    kind: Any = type(connection)

    class Unconnected(kind):
        def __getattribute__(self, name: str) -> Any:
            # isinstance() asks for it, and online it is another one.
            if name == "__class__" and is_asking(sys._getframe(1)):
                raise asked.refuse(offline)
            if name in told or name.startswith("__") or name in ("_dialect", "_execute_impl", "_run_ddl_visitor"):
                return super().__getattribute__(name)
            # Alembic looks whether there is a transaction.
            if asked.path is None or sys._getframe(1).f_globals.get("__name__", "").startswith("alembic."):
                return super().__getattribute__(name)
            raise asked.refuse(reads)

        def __enter__(self) -> NoReturn:
            raise asked.refuse(reads)

        def __exit__(self, *_: object) -> None:
            return None

    @inspection._inspects(Unconnected)
    def refuse(_: object) -> NoReturn:
        raise asked.refuse(reads)

    Unconnected.__name__ = "Connection"
    connection.__class__ = Unconnected
