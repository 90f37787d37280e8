"""The scripts: where they lie, and modules that are made of the bytes that the action has read, and of nothing else.

A script can change the Python that it runs in. What makes modules of the others is taken before any code of the project
has run, and all are compiled before the first is imported.
"""

from __future__ import annotations

import ast
import base64
import os
import re
import types
from builtins import compile, exec
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from atomic_upgrade.alembic_patches import files_of, load_files_by
from atomic_upgrade.channel import channel
from atomic_upgrade.clock import clock
from atomic_upgrade.failures import Failed
from atomic_upgrade.reader import bindings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from alembic.script import Script, ScriptDirectory

    from atomic_upgrade.alembic_patches import LoadFile, MakeScript
    from atomic_upgrade.messages import ToldScript, Value, Values

names = ("revision", "down_revision", "branch_labels", "depends_on")


class Known:
    """A script as the action has read it."""

    def __init__(self, number: int, path: str, source: bytes, values: Values | None, doc: str | None) -> None:
        self.number = number
        self.path = path
        self.source = source
        # None: only its import tells.
        self.values = values and {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        self.doc = doc
        self.id: str | None = None
        self.code: types.CodeType | None = None

    def module(self) -> types.ModuleType:
        """Of a script that may not run (yet), one that says what was read of it."""
        name = re.sub(r"\W", "_", os.path.basename(self.path))
        if self.values is not None and self.number not in (scripts.imported or ()):
            return self.stub(name)
        kind = SourceFileLoader if self.path.endswith(".py") else SourcelessFileLoader
        spec = spec_from_file_location(name, self.path, loader=kind(name, self.path))
        assert spec is not None
        module = module_from_spec(spec)
        channel.at(self.path)
        with clock.of_scripts():
            exec(self.compiled(), module.__dict__)
        channel.at(None)
        if not hasattr(module, "down_revision"):
            return module
        found = {name: getattr(module, name) for name in names if hasattr(module, name)}
        if self.values is None:
            self.values, self.doc = found, module.__doc__
        for name in names:
            now, before = found.get(name), self.values.get(name)
            if as_tuple(now) != as_tuple(before):
                told = "The script says something else of itself when it is imported than it did before: its %s is %r and not %r."
                raise Failed("plan-changed", told % (name, now, before), path=self.path)
        return module

    def stub(self, name: str) -> types.ModuleType:
        """A module for those who look at it, env.py above all: what can be read is there, and nothing of it runs."""
        module = types.ModuleType(name)

        def missing(asked: str) -> object:
            # Alembic asks each of a thousand scripts for what none has.
            given = readable(self.source, self.path) if asked.encode() in self.source else {}
            if asked not in given:
                told = "%s: this script has not run at this point, and of what it has only that is known which is written out at its top: %s"
                raise AttributeError(told % (os.path.relpath(self.path), asked))
            # Whoever changes it finds it changed.
            module.__dict__.setdefault(asked, given[asked])
            return given[asked]

        functions = {each: unrun(each, self.path) for each in ("upgrade", "downgrade")}
        module.__dict__.update(
            self.values or {}, __doc__=self.doc, __file__=self.path, __getattr__=missing, **functions
        )
        return module

    def compiled(self) -> types.CodeType:
        """Its code; scripts are imported anew for the dry run and for the run."""
        if self.code is None and self.path.endswith(".py"):
            self.code = compile(self.source, self.path, "exec", dont_inherit=True)
        elif self.code is None:
            self.code = Bytecode(self).get_code("")
        assert self.code is not None
        return self.code


def readable(source: bytes, path: str) -> dict[str, object]:
    """What a script has at its top that can be told without running it: literal values, and stand-ins of functions."""
    try:
        values, others, functions = bindings_of(ast.parse(source))
    except Exception:
        return {}
    told = {name: value for name, value in values.items() if name not in others}
    return {**told, **{name: unrun(name, path) for name in functions}}


def unrun(name: str, path: str) -> Callable[..., NoReturn]:
    def function(*_: object, **__: object) -> NoReturn:
        raise Failed(
            "render-failed", "%s() of this script was called, which has not run at this point." % name, path=path
        )

    function.__name__ = function.__qualname__ = name
    return function


def as_tuple(value: Value) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


class Bytecode(SourcelessFileLoader):
    """Of Alembic's `sourceless`."""

    def __init__(self, known: Known) -> None:
        super().__init__("", known.path)
        self.known = known

    def get_data(self, path: str) -> bytes:
        return self.known.source


class Scripts:
    from_path: MakeScript

    def __init__(self) -> None:
        # By the paths that they really have.
        self.known: dict[str, Known] = {}
        # What the action has said of them, for another process that loads the project as well.
        self.told: list[ToldScript] = []
        # The project's, in Alembic's order; None until it is first asked for them.
        self.listed: list[Known] | None = None
        # The numbers of those that may run; None until the action has decided.
        self.imported: list[int] | None = None

    def watch(self) -> None:
        """From now on whatever asks Alembic for scripts gets what the action has read."""

        def load_known(load: LoadFile, folder: str, name: str) -> types.ModuleType:
            path = os.path.join(folder, name)
            if name == "env.py" or self.is_foreign(path):
                return load(folder, name)
            return self.know([path])[0].module()

        self.from_path = load_files_by(load_known)

    def is_foreign(self, path: str) -> bool:
        """Whether it is of another project, which one of its own runs; before the decision nobody can tell."""
        if self.imported is None:
            return False
        return os.path.dirname(os.path.realpath(path)) not in {
            os.path.dirname(known.path) for known in self.listed or ()
        }

    def know(self, paths: list[str]) -> list[Known]:
        """Has the action read what it has not read yet."""
        real = [os.path.realpath(path) for path in paths]
        new = {at: os.path.join(os.getcwd(), path) for path, at in zip(paths, real) if at not in self.known}
        if new and self.imported is not None:
            [path, *_] = new.values()
            raise Failed("plan-changed", "The script %s has come since the batch was planned." % path, path=path)
        if new:
            channel.send(files=list(new.values()))
            self.take([{"path": path, **told} for path, told in zip(new, channel.receive()["scripts"])])
        return [self.known[path] for path in real]

    def take(self, told: list[ToldScript]) -> None:
        """The action has read these."""
        self.told += told
        for each in told:
            source = base64.b64decode(each["source"])
            self.known[each["path"]] = Known(len(self.known), each["path"], source, each["values"], each["doc"])

    def list(self, script: ScriptDirectory) -> list[Known]:
        """The scripts of the project, in Alembic's order, as they are when it is first asked for them."""
        if self.listed is None:
            self.listed = self.know(files_of(script))
        return self.listed

    def source_of(self, revision: str) -> bytes:
        return next(known.source for known in self.listed or () if known.id == revision)

    def load(self, script: ScriptDirectory) -> Iterator[Script]:
        """Alembic's own objects of them."""
        for known in self.list(script):
            if known.number in (self.imported or ()):
                known.compiled()
        for known in self.list(script):
            made = self.from_path(script, known.path)
            if made is not None:
                known.id = known.id or made.revision
                yield made


scripts = Scripts()
