"""How the action is talked to: JSON lines, on what were stdin and stdout."""

import json
import os
import threading


class Channel:
    def __init__(self):
        self.output = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
        self.input = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.nonce = ""
        # A script's threads tell of their connections while the main one tells of revisions.
        self.lock = threading.Lock()

    def ask(self, **question):
        """Says something and waits until the action has taken it in."""
        with self.lock:
            self.send(**question)
            return self.receive()

    def receive(self):
        line = self.input.readline()
        if not line:
            # The action has gone. Nothing may run on without it.
            os._exit(3)
        return json.loads(line)

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
        self.input.close()

    def add(self, **part):
        """A part of the answer that `send` completes."""
        self.output.write("\n" + self.nonce + json.dumps(part) + "\n")


channel = Channel()
