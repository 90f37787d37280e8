"""Reads what scripts say of themselves, without running them: python -I -S, so that nothing of the project is imported.

Each line of stdin has sources, and is answered by a line behind the nonce that is the only argument.
"""

import ast
import base64
import json
import sys

# What Alembic takes from a script's module.
names = ("revision", "down_revision", "branch_labels", "depends_on")


def read(source):
    """The literal values of these names, the script's docstring, and which of them only running it would tell."""
    values, computed, doc = {}, set(), ""
    try:
        module = ast.parse(source)
        doc = ast.get_docstring(module, clean=False) or ""
        for statement in module.body:
            literals = literals_of(statement)
            computed = (computed | bound_in(statement)) - set(literals)
            values.update(literals)
    except Exception:
        return {"values": {}, "computed": list(names), "doc": doc}
    absent = {name for name in ("revision", "down_revision") if name not in values}
    return {"values": values, "computed": sorted(computed | absent), "doc": doc}


def literals_of(statement):
    """What a statement assigns for certain."""
    if isinstance(statement, ast.AnnAssign):
        pairs = [(statement.target, statement.value)]
    elif isinstance(statement, ast.Assign):
        pairs = [pair for target in statement.targets for pair in unpacked(target, statement.value)]
    else:
        pairs = []
    found = {}
    for target, value in pairs:
        if isinstance(target, ast.Name) and target.id in names and value is not None:
            try:
                literal = ast.literal_eval(value)
            except ValueError:
                continue
            if is_allowed(target.id, literal):
                found[target.id] = literal
    return found


def unpacked(target, value):
    if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
        if len(target.elts) == len(value.elts) and not any(isinstance(each, ast.Starred) for each in target.elts):
            return list(zip(target.elts, value.elts))
    return [(target, value)]


def is_allowed(name, value):
    if isinstance(value, str):
        return True
    several = isinstance(value, (tuple, list)) and all(isinstance(each, str) for each in value)
    return name != "revision" and (value is None or several)


def bound_in(node):
    """Which of the names a statement binds in the module, in whatever way; what is local to a function is not."""
    bound = set()
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return bound
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        bound.add(node.id)
    elif isinstance(node, ast.alias):
        bound.add(node.asname or node.name.split(".")[0])
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        inner = {name for each in ast.walk(node) if isinstance(each, ast.Global) for name in each.names}
        return (inner | {getattr(node, "name", "")}) & set(names)
    elif isinstance(node, ast.comprehension):
        return bound_in(node.iter)
    elif isinstance(getattr(node, "name", None), str):
        # An exception's name, or what a pattern captures.
        bound.add(node.name)
    for child in ast.iter_child_nodes(node):
        bound |= bound_in(child)
    return bound & set(names)


for line in sys.stdin:
    found = [read(base64.b64decode(source)) for source in json.loads(line)]
    sys.stdout.write("\n" + sys.argv[1] + json.dumps(found) + "\n")
    sys.stdout.flush()
