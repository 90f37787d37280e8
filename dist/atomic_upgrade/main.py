"""Answers the action's requests, one at a time."""

from __future__ import annotations

import contextlib
import gc
import sys

from atomic_upgrade.alembic_patches import watch_operations
from atomic_upgrade.channel import channel
from atomic_upgrade.clock import clock
from atomic_upgrade.dry_run import plan, rendered_digests
from atomic_upgrade.failures import Failed, frames_of, one_line
from atomic_upgrade.forks import preload, serve
from atomic_upgrade.graph import resolve
from atomic_upgrade.lifeline import end_with
from atomic_upgrade.online_run import run
from atomic_upgrade.project import load
from atomic_upgrade.scripts import scripts
from atomic_upgrade.trusted import watch
from atomic_upgrade.twin import Twin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from atomic_upgrade.messages import (
        Answer,
        Digests,
        Load,
        Loaded,
        Plan,
        PlannedBatch,
        RenderedBatch,
        Request,
        ToldScript,
        Twice,
    )
    from atomic_upgrade.project import Project


def answer(action: Callable[[], Answer]) -> None:
    try:
        channel.send(**action())
    except Failed as error:
        channel.send(failed=error.told())
    except BaseException as error:
        told = one_line(error)
        channel.send(failed={"kind": "render-failed", "message": told, "quoted": told, "frames": frames_of(error)})


def tell(rendered: dict[str, RenderedBatch]) -> Answer:
    """Each statement on a line of its own, so that megabytes of data are never one string; then the rest, with their places."""
    sent = 0
    planned: dict[str, PlannedBatch] = {}
    for bind, batch in rendered.items():
        planned[bind] = {"revisions": []}
        for revision in batch["revisions"]:
            for statement in revision["statements"]:
                channel.add(statement=statement)
            first, sent = sent, sent + len(revision["statements"])
            planned[bind]["revisions"].append({**revision, "statements": [first, sent]})
            # Alembic may hold on to what has rendered them.
            revision["statements"].clear()
    return {"planned": planned}


def loaded_from(request: Load) -> tuple[Project, Loaded]:
    # Imports make much and leave next to nothing behind: to collect that takes a tenth of their time.
    gc.disable()
    try:
        project, loaded = load(request)
        watch_operations()
        return project, loaded
    finally:
        gc.enable()


def twin_of(request: Load) -> Twin | None:
    """Another process for a plan that others shall be able to rely on; elsewhere than on Linux a fork is not safe."""
    if not request["twice"] or sys.platform != "linux":
        return None
    preload(with_flask=not request.get("alembic_config"))

    def load_again(told: list[ToldScript]) -> Callable[[Twice], Digests]:
        # Where it cannot be moved, on another Python than CPython, only today and the last minutes are known.
        with contextlib.suppress(Exception):
            clock.move()
        scripts.take(told)
        project, _ = loaded_from(request)

        def render(asked: Twice) -> Digests:
            scripts.imported = asked["import"]
            return rendered_digests(project, asked["plan"])

        return render

    with contextlib.suppress(OSError):
        return Twin(load_again)
    return None


def plan_twice(project: Project, twin: Twin | None, request: Plan) -> Answer:
    """Compared with what the other process renders, else with what fresh scripts render in this one."""
    if twin:
        wanted: Twice = {"plan": request, "import": scripts.imported}
        twin.send(wanted)

    def again() -> Digests | None:
        told: Digests | None = twin.told() if twin else None
        if told is None:
            # A script that cannot run twice in one process (a global Table, for one) says nothing about its SQL.
            with contextlib.suppress(Exception):
                told = rendered_digests(project, request)
        return told

    return tell(plan(project, request, again))


def main(here: list[str]) -> None:
    """`here` is what Python puts in front of its path for the working directory."""
    first = channel.receive()
    channel.nonce = first["nonce"]
    if "trusted" in first:
        here = here + watch(**first["trusted"])
    sys.path[:0] = here
    if "forks" in first:
        serve(first["forks"]["with_flask"], run_project)
    else:
        end_with(channel.input)
        run_project()


def run_project() -> None:
    """One run of the project, which ends when the action says so, or with the action."""
    request = channel.receive()["load"]
    project: Project | None = None
    twin: Twin | None = None

    def loading() -> Answer:
        nonlocal project, twin
        twin = twin_of(request)
        project, loaded = loaded_from(request)
        if twin:
            twin.send(scripts.told)
        return {"loaded": loaded}

    answer(loading)
    while project is not None:
        asked = channel.receive()
        if "end" in asked:
            return
        twin = answer_next(asked, project, twin)


def answer_next(asked: Request, project: Project, twin: Twin | None) -> Twin | None:
    """Returns the other process until that has been asked."""
    if "resolve" in asked:
        answer(lambda: {"resolved": resolve(project.graph, asked["resolve"])})
        return twin
    # The action has decided.
    scripts.imported = asked["import"]
    if "plan" in asked:
        answer(lambda: plan_twice(project, twin, asked["plan"]))
        return None
    if "run" in asked:
        answer(lambda: run(project, asked["run"]))
    return twin
