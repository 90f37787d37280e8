"""Plays programs over several connections, on a server itself or through a gate; runs in the place of the driver's main module."""

import asyncio
import threading

import sqlalchemy as sa
from atomic_upgrade.channel import channel
from atomic_upgrade.connections import gates, numbered, watch_connections
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

default = "default"
rows_of = "SELECT id, v FROM %s ORDER BY id"
statements = {
    "insert": "INSERT INTO {t} VALUES ({k}, 0)",
    "update": "UPDATE {t} SET v = v + {k} WHERE id % 3 = {c} % 3",
    "delete": "DELETE FROM {t} WHERE id % 3 = {c} % 3 AND id > 3",
    "call": "SELECT writes({k})",
    "error": "SELECT 1 / 0",
    "declare": "DECLARE c{c} CURSOR FOR SELECT id, v FROM {t} ORDER BY id",
    "fetch": "FETCH 2 FROM c{c}",
    "read": "SELECT id, v FROM {t} WHERE id % 3 = {c} % 3 ORDER BY id",
    "set": "SET work_mem = '{k}MB'",
    "show": "SHOW work_mem",
    "try": "SELECT pg_try_advisory_xact_lock({n})",
    "take": "SELECT id FROM {t} WHERE id % 3 = {c} % 3 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
    "readall": "SELECT id, v FROM {t} ORDER BY id",
}
returns = ("call", "fetch", "read", "readall", "show", "try", "take")


class Connections:
    """By their numbers, opened when they are first used."""

    def __init__(self, connect, through_gate):
        self.connect, self.through_gate = connect, through_gate
        self.open, self.nested = {}, {}

    async def get(self, c):
        if c not in self.open:
            connection = self.open[c] = await now(self.connect())
            if self.through_gate and c == 0:
                plain = connection.connection() if isinstance(connection, Session) else connection
                info = plain.sync_connection.info if hasattr(plain, "sync_connection") else plain.info
                channel.ask(own=info[numbered])
        return self.open[c]

    async def do(self, op):
        c, what = op["c"], op["do"]
        try:
            if what == "close":
                self.nested.pop(c, None)
                if c in self.open:
                    await now(self.open.pop(c).close())
                return "ok"
            connection = await self.get(c)
            if what in ("commit", "rollback"):
                self.nested.pop(c, None)
                await now(getattr(connection, what)())
            elif what == "nest":
                self.nested.setdefault(c, []).append(await now(connection.begin_nested()))
            elif what in ("release", "back"):
                inner = self.nested.get(c, [])
                if inner:
                    await now(inner.pop().commit() if what == "release" else inner.pop().rollback())
            else:
                result = await now(connection.execute(sa.text(statements[what].format(n=ord(op["t"]), **op))))
                return [list(row) for row in result.fetchall()] if what in returns else result.rowcount
            return "ok"
        except Exception as error:
            return "error " + code_of(error)

    async def close(self):
        for _, connection in sorted(self.open.items()):
            try:
                await now(connection.close())
            except Exception:
                pass


def code_of(error):
    original = getattr(error, "orig", None) or error
    while original is not None:
        code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
        if code:
            return code
        original = original.__cause__
    return type(error).__name__


async def now(value):
    return await value if hasattr(value, "__await__") else value


async def play(request):
    driver, through_gate = request["driver"], "gate" in request
    is_async = driver.startswith("async")
    name = {"session": "psycopg", "async-psycopg": "psycopg"}.get(driver, driver.replace("async-", ""))
    url = sa.engine.make_url(request["url"]).set(drivername="postgresql+" + name)
    create = create_async_engine if is_async else sa.create_engine
    pooled = {} if request["pooled"] else {"poolclass": sa.pool.NullPool}
    engine = create(url, **pooled, **({"isolation_level": "REPEATABLE READ"} if request["snapshots"] else {}))
    connect = (lambda: Session(engine)) if driver == "session" else engine.connect
    if is_async:
        async def opened():
            connection = engine.connect()
            await connection.start()
            return connection
        connect = opened
    if through_gate:
        gates.open({default: request["gate"]}, None)
    shared = Connections(connect, through_gate)
    told = []

    async def one_after_another(ops, connections):
        return [await connections.do(op) for op in ops]

    told.append(await one_after_another(request["before"], shared))
    lanes = request["lanes"]
    if len(lanes) == 1:
        told.append(await one_after_another(lanes[0], shared))
    else:
        own = [Connections(connect, through_gate) for _ in lanes]

        async def lane(ops, connections):
            try:
                return await one_after_another(ops, connections)
            finally:
                await connections.close()

        if is_async:
            told += await asyncio.gather(*(lane(ops, each) for ops, each in zip(lanes, own)))
        else:
            found = [None] * len(lanes)

            def run(i):
                found[i] = asyncio.run(lane(lanes[i], own[i]))

            threads = [threading.Thread(target=run, args=(i,)) for i in range(len(lanes))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            told += found
    told.append(await one_after_another(request["after"], shared))
    await shared.close()
    await now(engine.dispose())
    gates.close()
    return told


def main():
    first = channel.receive()
    channel.nonce = first["nonce"]
    if first["gate"]:
        watch_connections()
    while True:
        channel.send(played=asyncio.run(play(channel.receive())))
