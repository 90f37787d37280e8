"""The graph of scripts: what is wrong with it, and which steps lead to a target."""

import contextlib
import os
import sys
import warnings

from atomic_upgrade.failures import Failed
from atomic_upgrade.scripts import as_tuple, scripts


@contextlib.contextmanager
def whole_graph():
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
    if any("present more than once" in text for text in told):
        raise broken_graph()
    for text in told:
        sys.stderr.write("warning: %s\n" % text)


def broken_graph():
    paths = {}
    for known in scripts.listed or ():
        if known.values is not None and known.values.get("revision"):
            node = {"down": as_tuple(known.values["down_revision"])}
            paths.setdefault(known.values["revision"], []).append((known.path, node))
    for name, found in sorted(paths.items()):
        if len(found) > 1:
            files = " and ".join(sorted(os.path.relpath(path) for path, _ in found))
            return Failed("render-failed", "Two scripts have the revision id %s: %s." % (name, files), path=found[-1][0])
    for name, [(path, node)] in sorted(paths.items()):
        for down in node["down"]:
            if down not in paths:
                told = "Revision %s (%s) revises %s, and there is no script of that id."
                return Failed("render-failed", told % (name, os.path.relpath(path), down), path=path)
    remaining = {name: set(found[0][1]["down"]) for name, found in paths.items()}
    while True:
        done = {name for name, downs in remaining.items() if not downs & set(remaining)}
        if not done:
            break
        for name in done:
            del remaining[name]
    if remaining:
        return Failed("render-failed", "These revisions revise each other in a circle: %s." % ", ".join(sorted(remaining)))
    return None


def steps_to(script, direction, target, heads):
    from alembic.script import revision
    from alembic.util import CommandError

    find = script._upgrade_revs if direction == "upgrade" else script._downgrade_revs
    try:
        return list(find(target, heads))
    except CommandError as error:
        several = isinstance(error.__cause__, revision.MultipleHeads)
        raise Failed("multiple-heads" if several else "unknown-revision", str(error))


def resolve(script, request):
    """The batch of each database: which heads it leaves, and which revisions lead there, with the heads behind each."""
    return {bind: batch_of(script, request["direction"], request["target"], each["heads"]) for bind, each in request["databases"].items()}


def batch_of(script, direction, target, names):
    from alembic.util import CommandError

    try:
        prior = [each.revision for name in names for each in script.get_revisions(name) if each is not None]
    except CommandError as error:
        raise Failed("unknown-revision", str(error), heads=names)
    heads = version_rows(prior)
    revisions = []
    for step in steps_to(script, direction, target, tuple(prior)):
        heads.update_to_step(step)
        revisions.append({"id": step.revision.revision, "heads": sorted(heads.heads)})
    return {"prior": sorted(prior), "new": sorted(heads.heads), "revisions": revisions}


def version_rows(prior):
    """What Alembic makes of the rows of the version table, without a table."""
    from alembic.runtime.migration import HeadMaintainer

    class Rows(HeadMaintainer):
        def _insert_version(self, version):
            self.heads.add(version)

        def _delete_version(self, version):
            self.heads.remove(version)

        def _update_version(self, from_, to_):
            self.heads.remove(from_)
            self.heads.add(to_)

    return Rows(None, prior)
