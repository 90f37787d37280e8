"""How the action is talked to: JSON lines, on what were stdin and stdout, or a socket in their place."""

from __future__ import annotations

import json
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Unpack

    from atomic_upgrade.messages import Answer, Request


class Channel:
    def __init__(self) -> None:
        self.output = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
        self.input = os.dup(0)
        # What has been read of it and not been taken yet.
        self.pending = b""
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.nonce = ""
        # A script's threads tell of their connections while the main one tells of revisions.
        self.lock = threading.Lock()

    def move(self, descriptor: int) -> None:
        """From now on it is that socket, in a fork: nothing that came before is for it."""
        os.dup2(descriptor, self.output.fileno(), inheritable=False)
        os.dup2(descriptor, self.input, inheritable=False)
        os.close(descriptor)
        self.pending = b""
        self.lock = threading.Lock()

    def ask(self, **question: Unpack[Answer]) -> Request:
        """Says something and waits until the action has taken it in."""
        with self.lock:
            self.send(**question)
            return self.receive()

    def receive(self) -> Request:
        while b"\n" not in self.pending:
            self.read()
        line, self.pending = self.pending.split(b"\n", 1)
        request: Request = json.loads(line.decode())
        return request

    def read(self) -> None:
        """Waits for more of a request."""
        part = os.read(self.input, 1 << 20)
        if not part:
            # The action has gone. Nothing may run on without it.
            os._exit(3)
        self.pending += part

    def send(self, **answer: Unpack[Answer]) -> None:
        self.add(**answer)
        self.output.flush()

    def at(self, path: str | None) -> None:
        """Which script is at work; None: none any more. It is told beforehand, since Python may end in it."""
        if not self.output.closed:
            with self.lock:
                self.send(at=path)

    def close(self) -> None:
        self.output.close()
        os.close(self.input)

    def add(self, **part: Unpack[Answer]) -> None:
        """A part of the answer that `send` completes."""
        self.output.write("\n" + self.nonce + json.dumps(part) + "\n")


channel = Channel()
