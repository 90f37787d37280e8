"""What a script writes that another run would write otherwise."""

from __future__ import annotations

import ast
import datetime
import hashlib
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomic_upgrade.dry_run import Renderer
    from atomic_upgrade.messages import Digests, Rendered, Statement


def digests_of(renderers: Mapping[str, Renderer]) -> Digests:
    """What was rendered, short enough to be compared with what another process has."""
    return {
        bind: [
            (each["id"], each["reason"], [digest_of(statement) for statement in each["statements"]])
            for each in renderer.revisions
        ]
        for bind, renderer in renderers.items()
    }


def digest_of(statement: Statement) -> str:
    return hashlib.sha256(statement["sql"].encode("utf-8", "surrogatepass")).hexdigest()


def mark(renderers: Mapping[str, Renderer], again: Digests | None, path_of: Callable[[str], str]) -> None:
    """Gives a reason to each revision that is not rendered alike `again` (as `digests_of`), or that holds the present time."""
    recent = Recent(time.time())
    for bind, first in digests_of(renderers).items():
        others = {each[0]: each for each in (again or {}).get(bind, ())}
        for revision, (name, reason, digests) in zip(renderers[bind].revisions, first):
            if reason is not None:
                continue
            other = others.get(name)
            if other and other[1] is not None:
                say_why(revision, "it was rendered the first time only, and then not: " + other[1])
            elif other and other[2] != digests:
                at = [n for n, digest in enumerate(digests) if other[2][n : n + 1] != [digest]]
                line = revision["statements"][at[0]]["line"] if at else None
                told = "it writes something else every time, such as a time or a random value"
                say_why(revision, told, line)
            else:
                recent.mark(revision, path_of(name))


def say_why(revision: Rendered, reason: str, line: int | None = None) -> None:
    """It is no SQL to show."""
    revision["reason"], revision["line"] = reason, line


class Recent:
    """Today's date, anywhere on earth, and a time of the last minutes, as scripts write them."""

    def __init__(self, now: float) -> None:
        hours = [datetime.datetime.fromtimestamp(now + 3600 * n, datetime.timezone.utc) for n in range(-12, 15)]
        formats = (
            "%Y-%m-%d",
            "%Y/%m/%d",
            "%d.%m.%Y",
            "%d/%m/%Y",
            "%m/%d/%Y",
            "%Y%m%d",
            "%d %B %Y",
            "%B %d, %Y",
            "%d %b %Y",
            "%b %d, %Y",
            "%d-%b-%Y",
        )
        days = {re.escape(each.strftime(form)) for each in hours for form in formats}
        self.date = re.compile(r"(?<!\d)(?:%s)" % "|".join(sorted(days)))
        minutes = [now - 60 * n for n in range(-1, 11)]
        clocks = {
            time.strftime("%H:%M", clock(minute)) for minute in minutes for clock in (time.localtime, time.gmtime)
        }
        # A full minute may be any timetable's; the two runs are not in the same second then.
        after = r":(?!00(?:\.0+)?(?!\d|\.))\d\d"
        seconds = {"%d" % (minute // 1000) for minute in minutes}
        self.time = re.compile(
            r"(?<![\d:])(?<!\d[ T])(?:%s)%s|(?<![\w.])(?:%s)\d{3}(?:\d{3}){0,3}(?:\.\d+)?(?![\w.])"
            % ("|".join(sorted(clocks)), after, "|".join(sorted(seconds)))
        )

    def mark(self, revision: Rendered, path: str) -> None:
        fixed: str | None = None
        for statement in revision["statements"]:
            for pattern, told in ((self.date, "the date of today"), (self.time, "a time of the last minutes")):
                for found in pattern.finditer(statement["sql"]):
                    fixed = constants_in(path) if fixed is None else fixed
                    if found.group() not in fixed:
                        reason = "it writes %s, which is another one every time" % told
                        say_why(revision, reason, statement["line"])
                        return


def constants_in(path: str) -> str:
    """What the script's source itself holds is the same every time; its docstring tells when it was made."""
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    nodes = [node for part in tree.body if not is_docstring(part) for node in ast.walk(part)]
    return "\n".join(str(node.value) for node in nodes if isinstance(node, ast.Constant))


def is_docstring(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
