"""Another day for the scripts of the second dry run: what they write otherwise then depends on the clock."""

from __future__ import annotations

import contextlib
import datetime
import gc
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# To another year, quarter, month, day of the month and of the week, hour, minute and second, whatever today is.
away = datetime.timedelta(days=491, hours=5, minutes=17, seconds=13)


class Clock:
    """
    Moved for a script while it is imported or runs, and for nobody else: an app, which may do something about what has
    expired, has the time of everybody. Only for a process that keeps nothing of what it is told.
    """

    moves = False
    # In which thread a script is at work.
    thread: int | None = None

    @contextlib.contextmanager
    def of_scripts(self) -> Iterator[None]:
        before, self.thread = self.thread, threading.get_ident() if self.moves else None
        try:
            yield
        finally:
            self.thread = before

    def is_moved(self) -> bool:
        return self.thread is not None and self.thread == threading.get_ident()

    def move(self) -> None:
        """Before anything of the project is imported, which has what it takes from `time`."""
        import ctypes

        self.moves = True
        seconds, now, now_ns = int(away.total_seconds()), time.time, time.time_ns
        time.time = lambda: now() + seconds * self.is_moved()
        time.time_ns = lambda: now_ns() + seconds * 10**9 * self.is_moved()
        for name in ("localtime", "gmtime", "ctime"):
            setattr(time, name, of_seconds(getattr(time, name)))
        for name, given in (("strftime", 1), ("asctime", 0)):
            setattr(time, name, of_local_time(getattr(time, name), given))
        # Python's own classes stay what they are, to isinstance() and pickle: methods are exchanged where they are kept.
        now_and_utcnow = {name: self.of_now(name) for name in ("now", "utcnow")}
        methods = ((datetime.date, {"today": today}), (datetime.datetime, now_and_utcnow))
        for kind, exchanged in methods:
            [kept] = gc.get_referents(kind.__dict__)
            kept.update({name: classmethod(method) for name, method in exchanged.items()})
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))

    def of_now(self, name: str) -> Callable[..., Any]:
        given = datetime.datetime.__dict__[name]

        def now(kind: Any, *args: Any, **options: Any) -> Any:
            told = given.__get__(None, kind)(*args, **options)
            return told + away if self.is_moved() else told

        return now


def of_seconds(given: Callable[[float], Any]) -> Callable[..., Any]:
    return lambda secs=None: given(time.time() if secs is None else secs)


def of_local_time(given: Callable[..., Any], least: int) -> Callable[..., Any]:
    return lambda *args: given(*args, time.localtime()) if len(args) == least else given(*args)


def today(kind: type[datetime.date]) -> datetime.date:
    return kind.fromtimestamp(time.time())


clock = Clock()
