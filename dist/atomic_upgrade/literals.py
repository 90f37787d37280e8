"""Values as literals: each such that PostgreSQL stores what the online run stores by handing the value to the driver."""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
import math
import uuid

from atomic_upgrade.asked import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.engine import Dialect

    from atomic_upgrade.failures import NotRenderable

    # A value of whatever Python type a script has, and one of SQLAlchemy's types, of which most methods here are of one kind.
    Value = Any
    Type = Any


def no_literal(value: Value, type_: Type) -> NotRenderable:
    from sqlalchemy import types

    kind = type(value).__name__
    if isinstance(type_, types.NullType):
        return asked.refuse(
            "it writes a value of Python’s type %s to what has no type, which would tell how it is written: give it one"
            % kind
        )
    return asked.refuse(
        "it writes a value of Python’s type %s as %s, and there is no literal for that" % (kind, type(type_).__name__)
    )


def literal_of(value: Value, type_: Type, dialect: Dialect) -> str | None:
    """None where only the type itself may know how."""
    from sqlalchemy import types

    impl, value = as_bound(value, type_.dialect_impl(dialect), dialect)
    if isinstance(impl, types.NullType):
        return None
    if isinstance(impl, types.JSON):
        return json_literal(value, impl, dialect)
    if value is None:
        return "NULL"
    if isinstance(impl, types.ARRAY):
        return array_literal(value, impl, dialect)
    if is_range(value):
        return range_literal(value, impl, dialect)
    process = impl.bind_processor(dialect)
    return plain_literal(process(value) if process else value, impl, dialect)


def as_bound(value: Value, impl: Type, dialect: Dialect) -> tuple[Type, Value]:
    """What a type of the project's own makes of the value, and the type below it."""
    from sqlalchemy import types

    base: Any = types.TypeDecorator
    while isinstance(impl, base):
        if type(impl).bind_processor is not base.bind_processor:
            process = impl.bind_processor(dialect)
            return impl.impl.dialect_impl(dialect), process(value) if process else value
        if type(impl).process_bind_param is not base.process_bind_param:
            value = impl.process_bind_param(value, dialect)
        impl = impl.impl.dialect_impl(dialect)
    return impl, value


def json_literal(value: Value, impl: Type, dialect: Dialect) -> str:
    from sqlalchemy.sql import elements

    if value is impl.NULL:
        value = None
    elif isinstance(value, elements.Null) or (value is None and impl.none_as_null):
        return "NULL"
    return quoted((dialect._json_serializer or json.dumps)(value))


def array_literal(value: Value, impl: Type, dialect: Dialect) -> str | None:
    if not isinstance(value, (list, tuple)):
        return None
    items = array_items(value, impl, dialect)
    return items and "%s::%s" % (items, type_name(impl, dialect))


def array_items(value: Value, impl: Type, dialect: Dialect) -> str | None:
    from sqlalchemy import types

    literals = [
        array_items(item, impl, dialect)
        if isinstance(item, (list, tuple)) and not isinstance(impl.item_type, types.JSON)
        else literal_of(item, impl.item_type, dialect)
        for item in value
    ]
    known = [each for each in literals if each is not None]
    return "ARRAY[%s]" % ", ".join(known) if len(known) == len(literals) else None


def is_range(value: Value) -> bool:
    from sqlalchemy.dialects import postgresql

    return hasattr(postgresql, "Range") and isinstance(value, postgresql.Range)


def range_literal(value: Value, impl: Type, dialect: Dialect) -> str:
    if value.is_empty:
        return "'empty'::%s" % type_name(impl, dialect)
    bounds = ["" if bound is None else '"%s"' % bound for bound in (value.lower, value.upper)]
    text = "%s%s,%s%s" % (value.bounds[0], *bounds, value.bounds[1])
    return "%s::%s" % (quoted(text), type_name(impl, dialect))


def type_name(impl: Type, dialect: Dialect) -> str:
    compiler = getattr(dialect, "type_compiler_instance", None) or dialect.type_compiler
    return str(compiler.process(impl))


def quoted(text: str) -> str:
    """With standard_conforming_strings on, a backslash is one."""
    return "'%s'" % text.replace("'", "''")


def plain_literal(value: Value, impl: Type, dialect: Dialect) -> str | None:
    if isinstance(value, enum.Enum):
        if not isinstance(value, (int, str)):
            return None
        value = value.value
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return float_literal(value, impl, dialect)
    if isinstance(value, decimal.Decimal):
        # Without a point or an exponent it would be an integer, which divides otherwise.
        text = str(value)
        return (
            text
            if value.is_finite() and ("." in text or "E" in text)
            else "'%s'::numeric" % text.replace("sNaN", "NaN")
        )
    # pg8000 stores how a memoryview is called.
    if isinstance(value, (bytes, bytearray)) or (isinstance(value, memoryview) and dialect.driver != "pg8000"):
        return "'\\x%s'::bytea" % bytes(value).hex()
    if isinstance(value, datetime.datetime):
        return "'%s'::timestamp%s" % (value.isoformat(" "), "" if value.tzinfo is None else "tz")
    if isinstance(value, datetime.date):
        return "'%s'::date" % value.isoformat()
    if isinstance(value, datetime.time):
        return "'%s'::time%s" % (value.isoformat(), "" if value.tzinfo is None else "tz")
    if isinstance(value, datetime.timedelta):
        return "make_interval(days => %d, secs => %d.%06d)" % (value.days, value.seconds, value.microseconds)
    if isinstance(value, uuid.UUID):
        return "'%s'::uuid" % value
    if isinstance(value, (str, *addresses)):
        return quoted(str(value))
    return None


addresses = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)


def float_literal(value: float, impl: Type, dialect: Dialect) -> str:
    """psycopg2 writes a number, which is numeric to PostgreSQL; asyncpg and pg8000 send what the column is, psycopg a float8."""
    from sqlalchemy import types

    numeric = dialect.driver == "psycopg2" or (
        dialect.driver in ("asyncpg", "pg8000")
        and isinstance(impl, types.Numeric)
        and not isinstance(impl, types.Float)
    )
    return repr(value) if numeric and math.isfinite(value) else "'%r'::float8" % value
