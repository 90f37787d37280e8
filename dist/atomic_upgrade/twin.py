"""A second process that renders the same batch: what is not alike in both is not fixed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal

from atomic_upgrade.channel import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    # What it is asked, and what it tells, is JSON: main.py knows of what.
    Render = Callable[[Any], object]
    LoadThere = Callable[[Any], Render]

# How long it is waited for when we are done ourselves, in seconds.
patience = 60


class Twin:
    """
    Forked before anything of the project is imported, and as fresh as we are. It loads the project when we have: an app
    that makes a folder where there is none would else fail in one of us. Its word is had once.
    """

    def __init__(self, load: LoadThere) -> None:
        """`load` gets the first message there; what it returns gets the second, and returns what JSON can hold."""
        request, answer = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(request[1])
            os.close(answer[0])
            run(load, request[0], answer[1])
        os.close(request[0])
        os.close(answer[1])
        self.request, self.answer = os.fdopen(request[1], "wb", 0), answer[0]

    def send(self, message: object) -> None:
        """The first one is the scripts as the action has read them, the second one the request."""
        with contextlib.suppress(OSError):
            self.request.write(json.dumps(message).encode() + b"\n")

    def told(self) -> Any:
        """None where it could not render."""
        received = b""
        while not received.endswith(b"\n") and select.select([self.answer], [], [], patience)[0]:
            part = os.read(self.answer, 1 << 20)
            if not part:
                break
            received += part
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.answer)
        os.waitpid(self.pid, 0)
        return json.loads(received) if received.endswith(b"\n") else None


def run(load: LoadThere, request: int, answer: int) -> NoReturn:
    """In the other process, which prints nothing and never returns."""
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(silence, number)
        channel.close()
        with os.fdopen(request, "rb") as file, os.fdopen(answer, "wb") as told:
            scripts = file.readline()
            if scripts:
                render = load(json.loads(scripts))
                asked = file.readline()
                if asked:
                    told.write(json.dumps(render(json.loads(asked))).encode() + b"\n")
    except BaseException:
        # It could not; that is told by telling nothing.
        pass
    finally:
        os._exit(0)
