"""One interpreter that has imported what the commands themselves import, and is forked for each run of the project.

So imports are waited for once, and each run is as fresh as the command would have it. For Linux: elsewhere a fork is not
safe, and each run has an interpreter of its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
from _socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

from atomic_upgrade.channel import channel
from atomic_upgrade.lifeline import end_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def preload(with_flask: bool) -> None:
    """What the commands themselves import before any code of the project."""
    names = ["alembic.config", "alembic.script", "alembic.runtime.environment", "sqlalchemy.dialects.postgresql"]
    for name in [*names, *(["flask.cli", "flask_migrate"] if with_flask else [])]:
        # Whatever is wrong will be said when the project is loaded.
        with contextlib.suppress(Exception):
            __import__(name)


class Forks:
    def __init__(self) -> None:
        # The number of each run that goes on, by its process.
        self.runs: dict[int, int] = {}

    def serve(self) -> None:
        """Forks and ends runs as the action asks, and tells how each has ended; does not return but in a fork."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        for each in (woken, channel.input):
            poll.register(each, select.POLLIN)
        while True:
            while b"\n" in channel.pending:
                request = channel.receive()
                if "kill" in request:
                    self.kill(request["kill"])
                elif self.fork(**request["fork"]):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    return
            for descriptor, _ in poll.poll():
                if descriptor == woken:
                    os.read(woken, 4096)
                    self.reap()
                else:
                    channel.read()

    def fork(self, run: int, port: int, token: str, nonce: str) -> bool:
        """True in the fork, which then talks to the action on its own."""
        try:
            pid = os.fork()
        except OSError:
            # No more processes are allowed.
            channel.send(alone=run)
            return False
        with contextlib.suppress(OSError):
            # A process group of its own, so that whatever the app forks ends with it.
            os.setpgid(pid, pid)
        if pid > 0:
            self.runs[pid] = run
            return False
        end_with(channel.input)
        try:
            prints, answers = (dial(port, "%s %s\n" % (token, purpose)) for purpose in ("prints", "answers"))
        except OSError:
            # A container's loopback, or a sandbox's, is not the action's.
            channel.send(alone=run)
            os._exit(0)
        os.dup2(prints, 1)
        os.dup2(prints, 2)
        os.close(prints)
        channel.move(answers)
        channel.nonce = nonce
        return True

    def kill(self, run: int) -> None:
        for pid in [pid for pid, each in self.runs.items() if each == run]:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    def reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                run = self.runs.pop(pid, None)
                if run is None:
                    continue
                # Whatever it has started and left behind.
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
                by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
                code = None if by else os.WEXITSTATUS(status)
                channel.send(ended={"run": run, "code": code, "signal": signal.Signals(by).name if by else None})


def dial(port: int, greeting: str) -> int:
    # The class below the one that a sitecustomize may have patched, or given a timeout.
    connection = socket(AF_INET, SOCK_STREAM)
    connection.settimeout(None)
    connection.connect(("127.0.0.1", port))
    connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    connection.sendall(greeting.encode())
    return connection.detach()


def serve(with_flask: bool, run: Callable[[], None]) -> None:
    """`run` is called in each fork, which then ends as Python does: it gives back what the app has taken."""
    # Imports make much and leave next to nothing behind; what stays is shared with the forks.
    gc.disable()
    preload(with_flask)
    gc.freeze()
    gc.enable()
    Forks().serve()
    run()
