"""The graph of scripts: what is wrong with it, which steps lead to a target, and how it reads without running."""

import ast
import contextlib
import os
import sys
import warnings

from atomic_upgrade.failures import Failed


@contextlib.contextmanager
def whole_graph(script):
    """Says in words what is wrong with the scripts' graph: Alembic only warns of some of it, or dies of a KeyError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (ImportError, SyntaxError):
            raise
        except Exception as error:
            raise broken_graph(script) or error
    told = [str(warning.message) for warning in caught]
    if any("present more than once" in text for text in told):
        raise broken_graph(script)
    for text in told:
        sys.stderr.write("warning: %s\n" % text)


def broken_graph(script):
    paths = {}
    for directory in script._version_locations if hasattr(script, "_version_locations") else [script.versions]:
        for folder, _, names in os.walk(directory):
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        for node in read_scripts([file.read()]):
                            paths.setdefault(node["id"], []).append((path, node))
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


def read_scripts(sources):
    """The graph of scripts that are read and not run: module-level names with literal values, annotated or not."""
    nodes = []
    for source in sources:
        values = {}
        with contextlib.suppress(SyntaxError, ValueError):
            for statement in ast.parse(source).body:
                targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
                for target in targets:
                    if isinstance(target, ast.Name) and getattr(statement, "value", None) is not None:
                        with contextlib.suppress(ValueError):
                            values[target.id] = ast.literal_eval(statement.value)
        if isinstance(values.get("revision"), str) and "down_revision" in values:
            nodes.append(
                {
                    "id": values["revision"],
                    "down": as_names(values["down_revision"]),
                    "dependsOn": as_names(values.get("depends_on")),
                    "labels": as_names(values.get("branch_labels")),
                }
            )
    return nodes


def as_names(value):
    return [value] if isinstance(value, str) else sorted(value or ())
