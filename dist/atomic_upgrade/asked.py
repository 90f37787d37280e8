"""What a script asks of the database in a dry run: the answer is a refusal, which is kept, for a script may swallow it."""

from __future__ import annotations

import sys

from atomic_upgrade.failures import NotRenderable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

    # The reason, and the line of the script.
    Refusal = tuple[str, "int | None"]


class Asked:
    """Knows whose turn it is, and what was refused to whom."""

    def __init__(self) -> None:
        # The path of the script that is rendered; None outside of any.
        self.path: str | None = None
        self.refused: Refusal | None = None
        # What modules were refused while they were imported, by their files.
        self.imports: dict[str, Refusal] = {}

    def begins(self, path: str) -> None:
        self.path, self.refused = path, self.imports.get(path)

    def ends(self) -> Refusal | None:
        """Returns the first refusal."""
        refused, self.path, self.refused = self.refused, None, None
        return refused

    def refuse(self, reason: str, line: int | None = None) -> NotRenderable:
        """Keeps the reason, and returns the exception for the script."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if self.path is not None and code.co_filename == self.path and line is None:
                line = frame.f_lineno
            if code.co_name == "<module>":
                self.imports.setdefault(code.co_filename, (reason, frame.f_lineno))
            frame = frame.f_back
        if self.path is not None and self.refused is None:
            self.refused = (reason, line)
        return NotRenderable(reason)


asked = Asked()

reads = "it reads the database, and a dry run has none"
offline = "it asks whether it runs offline, so its SQL is not what the online run does"
connects = "it connects to the database, which is not possible in a dry run"


def is_asking(frame: FrameType) -> bool:
    """Whether a script, or what it calls, looks: Alembic and SQLAlchemy look themselves."""
    if asked.path is None:
        return False
    return frame.f_globals.get("__name__", "").split(".")[0] not in ("alembic", "sqlalchemy", "atomic_upgrade")


def watch(thing: Any, reason: str, *names: str) -> None:
    """Refuses to tell a script these attributes of a thing; one that somebody has set is what it was set to."""

    def watched(name: str) -> property:
        given = thing.__dict__[name] = getattr(thing, name, None)

        def read(self: Any) -> Any:
            if self.__dict__[name] is given and is_asking(sys._getframe(1)):
                raise asked.refuse(reason)
            return self.__dict__[name]

        return property(read, lambda self, value: self.__dict__.update({name: value}))

    kind = type(thing)
    thing.__class__ = type(kind.__name__, (kind,), {name: watched(name) for name in names})


class Unreadable:
    """The result of a statement that was only rendered: to look at it means to need the database."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise asked.refuse("it reads the result of a statement, and without a database there is none")

    __getattr__ = __iter__ = __next__ = __bool__ = __len__ = __getitem__ = __contains__ = __call__ = _refuse
    __enter__ = __exit__ = __await__ = __aiter__ = __aenter__ = __eq__ = __ne__ = __lt__ = __gt__ = _refuse
    __hash__ = object.__hash__

    def close(self) -> None:
        pass
