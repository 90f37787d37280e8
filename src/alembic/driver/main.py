"""Answers the action's requests, one at a time."""

import gc

from atomic_upgrade.channel import channel
from atomic_upgrade.dry_run import plan
from atomic_upgrade.failures import Failed, frames_of, one_line
from atomic_upgrade.graph import resolve
from atomic_upgrade.online_run import run
from atomic_upgrade.project import load
from atomic_upgrade.scripts import scripts


def answer(action):
    try:
        channel.send(**action())
    except Failed as error:
        channel.send(failed={"kind": error.kind, "message": str(error), **error.details})
    except BaseException as error:
        channel.send(failed={"kind": "render-failed", "message": one_line(error), "frames": frames_of(error)})


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


def main():
    first = channel.receive()
    channel.nonce = first["nonce"]
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
