"""How the action is talked to: JSON lines, on what were stdin and stdout, or a socket in their place."""

import json
import os
import threading


class Channel:
    def __init__(self):
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

    def move(self, descriptor):
        """From now on it is that socket, in a fork: nothing that came before is for it."""
        os.dup2(descriptor, self.output.fileno(), inheritable=False)
        os.dup2(descriptor, self.input, inheritable=False)
        os.close(descriptor)
        self.pending = b""
        self.lock = threading.Lock()

    def ask(self, **question):
        """Says something and waits until the action has taken it in."""
        with self.lock:
            self.send(**question)
            return self.receive()

    def receive(self):
        while b"\n" not in self.pending:
            self.read()
        line, self.pending = self.pending.split(b"\n", 1)
        return json.loads(line.decode())

    def read(self):
        """Waits for more of a request."""
        part = os.read(self.input, 1 << 20)
        if not part:
            # The action has gone. Nothing may run on without it.
            os._exit(3)
        self.pending += part

    def send(self, **answer):
        self.add(**answer)
        self.output.flush()

    def at(self, path):
        """Which script is at work; None: none any more. It is told beforehand, since Python may end in it."""
        if not self.output.closed:
            with self.lock:
                self.send(at=path)

    def close(self):
        self.output.close()
        os.close(self.input)

    def add(self, **part):
        """A part of the answer that `send` completes."""
        self.output.write("\n" + self.nonce + json.dumps(part) + "\n")


channel = Channel()
