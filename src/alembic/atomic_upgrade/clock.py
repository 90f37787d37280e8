"""Another day for the scripts of the second dry run: what they write otherwise then depends on the clock."""

import contextlib
import datetime
import gc
import threading
import time

# To another year, quarter, month, day of the month and of the week, hour, minute and second, whatever today is.
away = datetime.timedelta(days=491, hours=5, minutes=17, seconds=13)


class Clock:
    """
    Moved for a script while it is imported or runs, and for nobody else: an app, which may do something about what has
    expired, has the time of everybody. Only for a process that keeps nothing of what it is told.
    """

    moves = False
    # In which thread a script is at work.
    thread = None

    @contextlib.contextmanager
    def of_scripts(self):
        before, self.thread = self.thread, threading.get_ident() if self.moves else None
        try:
            yield
        finally:
            self.thread = before

    def is_moved(self):
        return self.thread is not None and self.thread == threading.get_ident()

    def move(self):
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
        methods = {datetime.date: {"today": today}, datetime.datetime: {name: self.of_now(name) for name in ("now", "utcnow")}}
        for kind, exchanged in methods.items():
            [kept] = gc.get_referents(kind.__dict__)
            kept.update({name: classmethod(method) for name, method in exchanged.items()})
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))

    def of_now(self, name):
        given = datetime.datetime.__dict__[name]

        def now(kind, *args, **options):
            told = given.__get__(None, kind)(*args, **options)
            return told + away if self.is_moved() else told

        return now


def of_seconds(given):
    return lambda secs=None: given(time.time() if secs is None else secs)


def of_local_time(given, least):
    return lambda *args: given(*args, time.localtime()) if len(args) == least else given(*args)


def today(kind):
    return kind.fromtimestamp(time.time())


clock = Clock()
