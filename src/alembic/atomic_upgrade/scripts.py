"""The scripts: where they lie, and modules that are made of the bytes that the action has read, and of nothing else.

A script can change the Python that it runs in. What makes modules of the others is taken before any code of the project
has run, and all are compiled before the first is imported.
"""

import ast
import base64
import os
import re
import types
from builtins import compile, exec
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from atomic_upgrade.channel import channel
from atomic_upgrade.clock import clock
from atomic_upgrade.failures import Failed
from atomic_upgrade.reader import bindings_of

names = ("revision", "down_revision", "branch_labels", "depends_on")


class Known:
    """A script as the action has read it."""

    def __init__(self, number, path, source, values, doc):
        self.number = number
        self.path = path
        self.source = source
        # None: only its import tells.
        self.values = values and {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        self.doc = doc
        self.id = self.code = None

    def module(self):
        """Of a script that may not run (yet), one that says what was read of it."""
        name = re.sub(r"\W", "_", os.path.basename(self.path))
        if self.values is not None and self.number not in (scripts.imported or ()):
            return self.stub(name)
        kind = SourceFileLoader if self.path.endswith(".py") else SourcelessFileLoader
        module = module_from_spec(spec_from_file_location(name, self.path, loader=kind(name, self.path)))
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

    def stub(self, name):
        """A module for those who look at it, env.py above all: what can be read is there, and nothing of it runs."""
        module = types.ModuleType(name)

        def missing(asked):
            # Alembic asks each of a thousand scripts for what none has.
            given = readable(self.source, self.path) if asked.encode() in self.source else {}
            if asked not in given:
                told = "%s: this script has not run at this point, and of what it has only that is known which is written out at its top: %s"
                raise AttributeError(told % (os.path.relpath(self.path), asked))
            # Whoever changes it finds it changed.
            module.__dict__.setdefault(asked, given[asked])
            return given[asked]

        functions = {each: unrun(each, self.path) for each in ("upgrade", "downgrade")}
        module.__dict__.update(self.values, __doc__=self.doc, __file__=self.path, __getattr__=missing, **functions)
        return module

    def compiled(self):
        """Its code; scripts are imported anew for the dry run and for the run."""
        if self.code is None and self.path.endswith(".py"):
            self.code = compile(self.source, self.path, "exec", dont_inherit=True)
        elif self.code is None:
            self.code = Bytecode(self).get_code(None)
        return self.code


def readable(source, path):
    """What a script has at its top that can be told without running it: literal values, and stand-ins of functions."""
    try:
        values, others, functions = bindings_of(ast.parse(source))
    except Exception:
        return {}
    told = {name: value for name, value in values.items() if name not in others}
    return {**told, **{name: unrun(name, path) for name in functions}}


def unrun(name, path):
    def function(*_, **__):
        raise Failed("render-failed", "%s() of this script was called, which has not run at this point." % name, path=path)

    function.__name__ = function.__qualname__ = name
    return function


def as_tuple(value):
    return (value,) if isinstance(value, str) else tuple(value or ())


class Bytecode(SourcelessFileLoader):
    """Of Alembic's `sourceless`."""

    def __init__(self, known):
        super().__init__(None, known.path)
        self.known = known

    def get_data(self, path):
        return self.known.source


class Scripts:
    def __init__(self):
        # By the paths that they really have.
        self.known = {}
        # What the action has said of them, for another process that loads the project as well.
        self.told = []
        self.listed = None
        # The numbers of those that may run; None until the action has decided.
        self.imported = None

    def watch(self):
        """From now on whatever asks Alembic for scripts, an app or env.py too, gets what the action has read."""
        from alembic import util
        from alembic.script import Script

        load = util.load_python_file

        def load_known(folder, name):
            path = os.path.join(folder, name)
            if name == "env.py" or self.is_foreign(path):
                return load(folder, name)
            return self.know([path])[0].module()

        if hasattr(Script, "_from_path"):
            make = Script._from_path
        else:
            from_filename = Script._from_filename

            def make(script, path):
                return from_filename(script, *os.path.split(path))

        def from_path(script, path):
            util.load_python_file = load_known
            return make(script, path)

        util.load_python_file, self.from_path = load_known, from_path

    def is_foreign(self, path):
        """Whether it is of another project, which one of its own runs; before the decision nobody can tell."""
        if self.imported is None:
            return False
        return os.path.dirname(os.path.realpath(path)) not in {os.path.dirname(known.path) for known in self.listed}

    def know(self, paths):
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

    def take(self, told):
        """The action has read these."""
        self.told += told
        for each in told:
            source = base64.b64decode(each["source"])
            self.known[each["path"]] = Known(len(self.known), each["path"], source, each["values"], each["doc"])

    def list(self, script):
        """The scripts of the project, in Alembic's order, as they are when it is first asked for them."""
        if self.listed is None:
            self.listed = self.know(files_of(script))
        return self.listed

    def source_of(self, revision):
        return next(known.source for known in self.listed if known.id == revision)

    def load(self, script):
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


def files_of(script):
    """The files that Alembic would load, in its order, by the names under which it finds them."""
    from alembic import util
    from alembic.script import Script

    names, files = {}, []
    list_folder, load = Script.__dict__["_list_py_dir"], util.load_python_file

    def note_names(cls, directory, folder):
        found = list_folder.__get__(None, cls)(directory, folder)
        for name in found:
            path = os.path.join(folder, name)
            names.setdefault(os.path.realpath(path), path)
        return found

    def note_file(folder, name):
        path = os.path.join(folder, name)
        files.append(names.get(os.path.realpath(path), path))
        module = types.ModuleType(name)
        module.revision, module.down_revision = str(len(files)), None
        return module

    Script._list_py_dir, util.load_python_file = classmethod(note_names), note_file
    try:
        for _ in script._load_revisions():
            pass
    finally:
        Script._list_py_dir, util.load_python_file = list_folder, load
    return [os.fspath(path) for path in files]
