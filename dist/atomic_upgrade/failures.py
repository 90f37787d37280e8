"""Failures in words, and where in the user's files they come from."""

from __future__ import annotations

import os
import traceback

# As typing.TYPE_CHECKING, which would take a hundredth of a second to import. So in every module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Unpack

    from atomic_upgrade.messages import Failure, FailureDetails, Frame, Kind


class Failed(Exception):
    """A failure that is already in words: `kind` tells the action which one."""

    def __init__(self, kind: Kind, message: str, **details: Unpack[FailureDetails]) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details

    def told(self) -> Failure:
        return {"kind": self.kind, "message": str(self), **self.details}


class NotRenderable(Exception):
    """The script cannot be shown as SQL without a database; says why."""


def is_database_error(error: BaseException | None) -> bool:
    from sqlalchemy.exc import DBAPIError

    while error is not None:
        if isinstance(error, DBAPIError) or hasattr(error, "sqlstate") or hasattr(error, "pgcode"):
            return True
        error = error.__cause__
    return False


def one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return "%s: %s" % (type(error).__name__, text[0][:2000]) if text else type(error).__name__


def line_in(error: BaseException, path: str | None) -> int | None:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path]
    return lines[-1] if lines else None


def is_users(path: str) -> bool:
    here = os.getcwd() + os.sep
    outside = os.sep + "site-packages" + os.sep in path
    return os.path.abspath(path).startswith(here) and os.path.isfile(path) and not outside


def frames_of(error: BaseException) -> list[Frame]:
    """The frames in the user's own files, outermost first."""
    frames: list[Frame] = [
        {"file": frame.f_code.co_filename, "line": line, "function": frame.f_code.co_name}
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_users(frame.f_code.co_filename)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append({"file": error.filename, "line": error.lineno, "function": "<module>"})
    return frames
