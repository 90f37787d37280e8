"""The graph of scripts: what is wrong with it, and which steps lead to a target."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings

from atomic_upgrade.alembic_patches import version_rows
from atomic_upgrade.failures import Failed
from atomic_upgrade.scripts import as_tuple, scripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from alembic.runtime.migration import RevisionStep
    from alembic.script import ScriptDirectory

    from atomic_upgrade.messages import Direction, Resolve, Resolved, ResolvedRevision


@contextlib.contextmanager
def whole_graph() -> Iterator[None]:
    """Says in words what is wrong with the scripts' graph: Alembic only warns of some of it, or dies of a KeyError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (ImportError, SyntaxError, Failed):
            raise
        except Exception as error:
            raise broken_graph() or error
    told = [str(warning.message) for warning in caught]
    repeated = [text for text in told if "present more than once" in text]
    if repeated:
        raise broken_graph() or Failed("render-failed", repeated[0])
    for text in told:
        sys.stderr.write("warning: %s\n" % text)


def broken_graph() -> Failed | None:
    # By their ids, each script's path and what it revises.
    paths: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for known in scripts.listed or ():
        if known.values is not None and known.values.get("revision"):
            [name] = as_tuple(known.values["revision"])
            paths.setdefault(name, []).append((known.path, as_tuple(known.values["down_revision"])))
    for name, found in sorted(paths.items()):
        if len(found) > 1:
            files = " and ".join(sorted(os.path.relpath(path) for path, _ in found))
            return Failed(
                "render-failed", "Two scripts have the revision id %s: %s." % (name, files), path=found[-1][0]
            )
    for name, [(path, downs)] in sorted(paths.items()):
        for down in downs:
            if down not in paths:
                told = "Revision %s (%s) revises %s, and there is no script of that id."
                return Failed("render-failed", told % (name, os.path.relpath(path), down), path=path)
    remaining = {name: set(downs) for name, [(_, downs)] in paths.items()}
    while True:
        done = {name for name, revised in remaining.items() if not revised & set(remaining)}
        if not done:
            break
        for name in done:
            del remaining[name]
    if remaining:
        return Failed(
            "render-failed", "These revisions revise each other in a circle: %s." % ", ".join(sorted(remaining))
        )
    return None


def steps_to(script: ScriptDirectory, direction: Direction, target: str, heads: tuple[str, ...]) -> list[RevisionStep]:
    from alembic.script import revision
    from alembic.util import CommandError

    # Both take several heads, whatever their annotations say.
    find: Any = script._upgrade_revs if direction == "upgrade" else script._downgrade_revs
    try:
        return list(find(target, heads))
    except CommandError as error:
        several = isinstance(error.__cause__, revision.MultipleHeads)
        raise Failed("multiple-heads" if several else "unknown-revision", str(error))


def resolve(script: ScriptDirectory, request: Resolve) -> dict[str, Resolved]:
    """The batch of each database: which heads it leaves, and which revisions lead there, with the heads behind each."""
    return {
        bind: batch_of(script, request["direction"], request["target"], each["heads"])
        for bind, each in request["databases"].items()
    }


def batch_of(script: ScriptDirectory, direction: Direction, target: str, names: list[str]) -> Resolved:
    from alembic.util import CommandError

    try:
        prior = [each.revision for name in names for each in script.get_revisions(name) if each is not None]
    except CommandError as error:
        raise Failed("unknown-revision", str(error), heads=names)
    heads = version_rows(prior)
    revisions: list[ResolvedRevision] = []
    for step in steps_to(script, direction, target, tuple(prior)):
        heads.update_to_step(step)
        revisions.append({"id": step.revision.revision, "heads": sorted(heads.heads)})
    return {"prior": sorted(prior), "new": sorted(heads.heads), "revisions": revisions}
