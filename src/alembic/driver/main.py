"""Answers the action's requests, one at a time."""

import gc
import sys

from atomic_upgrade.channel import channel
from atomic_upgrade.dry_run import plan
from atomic_upgrade.failures import Failed, frames_of, one_line
from atomic_upgrade.graph import resolve
from atomic_upgrade.lifeline import end_with
from atomic_upgrade.online_run import run
from atomic_upgrade.project import load
from atomic_upgrade.scripts import scripts
from atomic_upgrade.trusted import watch


def answer(action):
    try:
        channel.send(**action())
    except Failed as error:
        channel.send(failed={"kind": error.kind, "message": str(error), **error.details})
    except BaseException as error:
        told = one_line(error)
        channel.send(failed={"kind": "render-failed", "message": told, "quoted": told, "frames": frames_of(error)})


def tell(planned):
    """Each statement on a line of its own, so that megabytes of data are never one string; then the rest, with their places."""
    sent = 0
    for batch in planned.values():
        for revision in batch["revisions"]:
            for statement in revision["statements"]:
                channel.add(statement=statement)
            first, sent = sent, sent + len(revision["statements"])
            revision["statements"] = [first, sent]
    return {"planned": planned}


def main(here):
    """`here` is what Python puts in front of its path for the working directory."""
    end_with(channel.input.fileno())
    first = channel.receive()
    channel.nonce = first["nonce"]
    if "trusted" in first:
        here = here + watch(**first["trusted"])
    sys.path[:0] = here
    project = None

    def loading():
        nonlocal project
        # Imports make much and leave next to nothing behind: to collect that takes a tenth of their time.
        gc.disable()
        try:
            project, loaded = load(first["load"])
        finally:
            gc.enable()
        return {"loaded": loaded}

    answer(loading)
    while project is not None:
        request = channel.receive()
        if "resolve" in request:
            answer(lambda: {"resolved": resolve(project.graph, request["resolve"])})
            continue
        # The action has decided.
        scripts.imported = request["import"]
        if "plan" in request:
            answer(lambda: tell(plan(project, request["plan"])))
        elif "run" in request:
            answer(lambda: run(project, request["run"]))
