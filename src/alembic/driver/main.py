"""Answers the action's requests, one at a time."""

from atomic_upgrade.channel import channel
from atomic_upgrade.dry_run import plan
from atomic_upgrade.failures import Failed, frames_of, one_line
from atomic_upgrade.graph import read_scripts
from atomic_upgrade.online_run import run
from atomic_upgrade.project import load


def answer(action):
    try:
        channel.send(**action())
    except Failed as error:
        channel.send(failed={"kind": error.kind, "message": str(error), **error.details})
    except BaseException as error:
        channel.send(failed={"kind": "render-failed", "message": one_line(error), "frames": frames_of(error)})


def main():
    first = channel.receive()
    channel.nonce = first["nonce"]
    project = None

    def loading():
        nonlocal project
        project, loaded = load(first["load"])
        return {"loaded": loaded}

    answer(loading)
    while project is not None:
        request = channel.receive()
        if "plan" in request:
            answer(lambda: {"planned": plan(project, request["plan"])})
        elif "read" in request:
            answer(lambda: {"read": read_scripts(request["read"])})
        elif "run" in request:
            answer(lambda: run(project, request["run"]))
