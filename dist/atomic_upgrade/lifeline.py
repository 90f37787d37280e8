"""Ends Python, and what it has started, when the action is gone without a word, as after a SIGKILL."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time


def end_with(request: int) -> None:
    """`request` is where the action's requests come from: its other end is open for as long as the action lives.

    A process of its own waits for that, for a thread would wait for a script that computes without a break. Nobody's
    child, so that a script which waits for all of its own does not wait for it; and of our group, with which it ends.
    """
    if not hasattr(os, "fork") or not hasattr(select, "poll"):
        return
    # Where no more processes are allowed, Python ends with its next word to the action or the database.
    with contextlib.suppress(OSError):
        child = os.fork()
        if child > 0:
            os.waitpid(child, 0)
            return
        try:
            if os.fork() == 0:
                wait_for_the_end(request)
        finally:
            os._exit(0)


def wait_for_the_end(request: int) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    lowest = os.dup2(request, 0)
    # So early there are few, and none of them shall be held open.
    os.closerange(lowest + 1, 1024)
    end = select.POLLHUP | select.POLLERR | select.POLLNVAL
    poll = select.poll()
    poll.register(lowest, select.POLLHUP)
    while not any(events & end for _, events in poll.poll()):
        time.sleep(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
