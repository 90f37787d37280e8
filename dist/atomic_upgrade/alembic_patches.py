"""Where Alembic is patched, or its private methods overridden: all of it, and nothing of SQLAlchemy's.

Unless another is named, each is for every Alembic from 1.8 to 1.20, which docs/compatibility.md has been seen to work
with; and each docstring says what Alembic has no public way for.
"""

from __future__ import annotations

import os
import sys
import types

from atomic_upgrade.asked import asked, is_asking, offline, reads, watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

    from alembic.ddl.impl import DefaultImpl
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import HeadMaintainer, MigrationContext
    from alembic.script import Script, ScriptDirectory

    # Alembic makes a module of a file by a function of this kind, which gets the folder and the file's name.
    LoadFile = Callable[[str, str], types.ModuleType]
    MakeScript = Callable[[ScriptDirectory, str], "Script | None"]


def load_files_by(load_known: Callable[[LoadFile, str, str], types.ModuleType]) -> MakeScript:
    """Whatever asks Alembic for the module of a script, an app or env.py too, gets it from `load_known`.

    That gets Alembic's own function as well. Returns what makes Alembic's object of a script's path; both are taken now,
    before any code of the project has run, for a script can change the Python that it runs in.

    Alembic itself reads the file at its path, which may by then be another one than was planned.
    """
    from alembic import util
    from alembic.script import Script

    load, make = util.load_python_file, Script._from_path

    def load_file(folder: str, name: str) -> types.ModuleType:
        return load_known(load, folder, name)

    def from_path(script: ScriptDirectory, path: str) -> Script | None:
        util.load_python_file = load_file
        return make(script, path)

    util.load_python_file = load_file
    return from_path


def generate_by(script: ScriptDirectory, generate: Callable[[], Iterable[Script]]) -> None:
    """The graph is made of these scripts: Alembic itself lists the folders again each time."""
    script.revision_map._generator = generate


def files_of(script: ScriptDirectory) -> list[str]:
    """The files that Alembic would load, in its order, by the names under which it finds them.

    Alembic lists and loads in one. It hands paths as strings up to 1.15, and from 1.16 on as Path.
    """
    from alembic import util
    from alembic.script import Script

    names: dict[str, str] = {}
    files: list[str] = []
    list_folder, load = Script.__dict__["_list_py_dir"], util.load_python_file

    def note_names(cls: type[Script], directory: ScriptDirectory, folder: str) -> Any:
        found = list_folder.__get__(None, cls)(directory, folder)
        for name in found:
            path = os.path.join(folder, name)
            names.setdefault(os.path.realpath(path), path)
        return found

    def note_file(folder: str, name: str) -> types.ModuleType:
        path = os.path.join(folder, name)
        files.append(names.get(os.path.realpath(path), path))
        module = types.ModuleType(name)
        module.__dict__.update(revision=str(len(files)), down_revision=None)
        return module

    Script._list_py_dir, util.load_python_file = classmethod(note_names), note_file
    try:
        for _ in script._load_revisions():
            pass
    finally:
        Script._list_py_dir, util.load_python_file = list_folder, load
    return [os.fspath(path) for path in files]


def version_rows(heads: Iterable[str]) -> HeadMaintainer:
    """What Alembic makes of the rows of the version table, without a table: it does both in one."""
    from alembic.runtime.migration import HeadMaintainer

    class Rows(HeadMaintainer):
        def _insert_version(self, version: str) -> None:
            self.heads.add(version)

        def _delete_version(self, version: str) -> None:
            self.heads.remove(version)

        def _update_version(self, from_: str, to_: str) -> None:
            self.heads.remove(from_)
            self.heads.add(to_)

    no_context: Any = None
    return Rows(no_context, heads)


def put_in_env(env: EnvironmentContext, *, configure: Callable[..., None], run_migrations: Callable[..., None]) -> None:
    """What env.py calls as `context.configure()` and `context.run_migrations()`.

    No subclass can have them: Alembic hands env.py its `context` by the exact class. That calls what the instance has.
    """
    env.configure, env.run_migrations = configure, run_migrations


def print_by(context: MigrationContext, *, execute: Callable[..., None], note: Callable[[str], None]) -> None:
    """What offline mode prints, where it is still a construct, and what is text from the beginning.

    Alembic itself writes values as SQLAlchemy does, and says of nothing which script it is of.
    """
    context.impl._exec = execute
    context.impl.static_output = note


def watch_bulk_insert(impl: DefaultImpl) -> None:
    """op.bulk_insert() with rows of different columns: offline each is written as it is, online they are not."""
    bulk_insert = impl.bulk_insert

    def alike(table: Any, rows: Any, multiinsert: bool = True) -> None:
        if (
            multiinsert
            and isinstance(rows, list)
            and len({frozenset(row) for row in rows if isinstance(row, dict)}) > 1
        ):
            raise asked.refuse(
                "it inserts rows of different columns at once, of which the online run takes those of the first"
            )
        return bulk_insert(table, rows, multiinsert=multiinsert)

    impl.bulk_insert = alike


class Options(dict):  # type: ignore[type-arg]
    """What a context was configured with; to a script it is not said that offline mode was."""

    def __getitem__(self, name: str) -> Any:
        self.refuse(name, sys._getframe(1))
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.refuse(name, sys._getframe(1))
        return super().get(name, default)

    def refuse(self, name: str, frame: FrameType) -> None:
        if name == "as_sql" and is_asking(frame):
            raise asked.refuse(offline)


def hide_offline_mode(context: MigrationContext) -> None:
    """A script that asks whether it runs offline would show what the online run does not do."""
    environment: Any = context.environment_context
    watch(context, offline, "as_sql")
    watch(context.impl, offline, "as_sql")
    context.opts = environment.context_opts = Options(context.opts)
    heads = context.get_current_heads

    def is_offline_mode() -> bool:
        if asked.path:
            raise asked.refuse(offline)
        return True

    def current_heads() -> tuple[str, ...]:
        if asked.path:
            raise asked.refuse("it asks for the heads, which it would read from the database")
        return heads()

    environment.is_offline_mode = is_offline_mode
    context.get_current_heads = current_heads


def start_from(context: MigrationContext, heads: Iterable[str]) -> None:
    """The heads that offline mode starts from. As an option (`starting_rev`) they can be one."""
    start: Any = tuple(heads) or None
    context._start_from_rev = start


def watch_operations() -> None:
    """Alembic's own operations that need a connection: of these it says so itself, by an exception that may be swallowed."""
    from alembic.operations import base, batch
    from alembic.util import CommandError

    # The class is Operations alone before Alembic 1.11, which brought run_async.
    operations: Any = getattr(base, "AbstractOperations", base.Operations)
    flush = batch.BatchOperationsImpl.flush
    run_async: Any = getattr(operations, "run_async", None)

    def watched_flush(self: batch.BatchOperationsImpl) -> None:
        try:
            return flush(self)
        except CommandError:
            if asked.path is None:
                raise
            raise asked.refuse(reads)

    def watched_run_async(self: Any, *args: Any, **options: Any) -> Any:
        if asked.path:
            raise asked.refuse(reads)
        return run_async(self, *args, **options)

    batch.BatchOperationsImpl.flush = watched_flush
    if run_async:
        operations.run_async = watched_run_async
