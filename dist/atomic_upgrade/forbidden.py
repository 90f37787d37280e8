"""What a script that cannot be rendered would do outside of a transaction, as far as its source tells."""

from __future__ import annotations

import ast
import re

from atomic_upgrade.environment import default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atomic_upgrade.messages import Direction, LookedInto, PlaceInScript

words = re.compile(r"\b(CONCURRENTLY|VACUUM|ALTER\s+SYSTEM|ADD\s+VALUE|(CREATE|DROP)\s+(DATABASE|TABLESPACE))\b", re.I)


def look_into(source: bytes, direction: Direction, bind: str) -> LookedInto:
    """Alembic's own argument is sure; mere words in strings may be anything. Lines count from 1."""
    names = {direction, direction + "_" + bind, *([direction + "_"] if bind == default else [])}
    concurrently: list[PlaceInScript] = []
    mentions: list[PlaceInScript] = []
    strings: list[PlaceInScript] = []
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef) or function.name in names:
            strings += strings_in(function)
        # With several databases, `upgrade` calls `upgrade_` for the default one and `upgrade_<bind>` for the others.
        if not isinstance(function, ast.FunctionDef) or function.name not in names:
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and any(is_set(each) for each in node.keywords):
                concurrently.append({"line": node.lineno, "text": ast.unparse(node)})
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = words.search(node.value)
                if found:
                    mentions.append({"line": node.lineno, "text": found.group()})
    return {"concurrently": concurrently, "mentions": mentions, "strings": strings}


def strings_in(part: ast.stmt) -> list[PlaceInScript]:
    """What may be SQL, or a value in it; a docstring is neither."""
    if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
        return []
    return [
        {"line": node.lineno, "text": node.value}
        for node in ast.walk(part)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 10000
    ]


def is_set(keyword: ast.keyword) -> bool:
    if keyword.arg != "postgresql_concurrently":
        return False
    return isinstance(keyword.value, ast.Constant) and keyword.value.value is True
