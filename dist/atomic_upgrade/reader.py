"""Reads what scripts say of themselves, without running them.

As a program it is run by python -I -S, so that nothing of the project is imported: each line of stdin has sources, and is
answered by a line behind the nonce that is the only argument. The driver reads in the same way what env.py asks of a
script that may not run yet.
"""

from __future__ import annotations

import ast
import base64
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atomic_upgrade.messages import Reading

    # Whether a name counts, and with it a value.
    Wanted = Callable[..., bool]

# What Alembic takes from a script's module.
names = ("revision", "down_revision", "branch_labels", "depends_on")


def read(source: bytes) -> Reading:
    """The literal values of these names, the script's docstring, and which of them only running it would tell."""
    doc = ""
    try:
        module = ast.parse(source)
        doc = ast.get_docstring(module, clean=False) or ""
        values, computed, _ = bindings_of(module, is_allowed)
    except Exception:
        return {"values": {}, "computed": list(names), "doc": doc}
    absent = {name for name in ("revision", "down_revision") if name not in values}
    return {"values": values, "computed": sorted(computed & set(names) | absent), "doc": doc}


def bindings_of(module: ast.Module, is_wanted: Wanted = lambda *_: True) -> tuple[dict[str, Any], set[str], set[str]]:
    """What a module binds: literal values by their names, the names that are bound to anything else, and those of functions.

    `is_wanted` tells of a name, and then of its value, whether it counts.
    """
    values: dict[str, Any] = {}
    others: set[str] = set()
    functions: set[str] = set()
    for statement in module.body:
        literals = literals_of(statement, is_wanted)
        bound = bound_in(statement)
        others, functions = (others | bound) - set(literals), functions - bound
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions.add(statement.name)
        values.update(literals)
    return values, others, functions


def literals_of(statement: ast.stmt, is_wanted: Wanted) -> dict[str, Any]:
    """What a statement assigns for certain."""
    pairs: list[tuple[ast.expr, ast.expr | None]] = []
    if isinstance(statement, ast.AnnAssign):
        pairs = [(statement.target, statement.value)]
    elif isinstance(statement, ast.Assign):
        pairs = [pair for target in statement.targets for pair in unpacked(target, statement.value)]
    found = {}
    for target, value in pairs:
        if isinstance(target, ast.Name) and value is not None and is_wanted(target.id):
            try:
                literal = ast.literal_eval(value)
            except Exception:
                continue
            if is_wanted(target.id, literal):
                found[target.id] = literal
    return found


def unpacked(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    if not (isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))):
        return [(target, value)]
    if len(target.elts) != len(value.elts) or any(isinstance(each, ast.Starred) for each in target.elts):
        return [(target, value)]
    return list(zip(target.elts, value.elts))


def is_allowed(name: str, value: object = "") -> bool:
    if name not in names:
        return False
    if isinstance(value, str):
        return True
    several = isinstance(value, (tuple, list)) and all(isinstance(each, str) for each in value)
    return name != "revision" and (value is None or several)


def bound_in(node: ast.AST) -> set[str]:
    """The names that a statement binds in the module, in whatever way; what is local to a function is not."""
    bound: set[str] = set()
    name = getattr(node, "name", None)
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return bound
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        bound.add(node.id)
    elif isinstance(node, ast.alias):
        bound.add(node.asname or node.name.split(".")[0])
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        inner = {name for each in ast.walk(node) if isinstance(each, ast.Global) for name in each.names}
        return inner | {name or ""}
    elif isinstance(node, ast.comprehension):
        return bound_in(node.iter)
    elif isinstance(name, str):
        # An exception's name, or what a pattern captures.
        bound.add(name)
    for child in ast.iter_child_nodes(node):
        bound |= bound_in(child)
    return bound


if __name__ == "__main__":
    for line in sys.stdin:
        found = [read(base64.b64decode(source)) for source in json.loads(line)]
        sys.stdout.write("\n" + sys.argv[1] + json.dumps(found) + "\n")
        sys.stdout.flush()
