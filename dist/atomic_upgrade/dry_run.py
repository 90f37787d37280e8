"""The dry run: each revision's SQL, faithful to what the online run does, or the reason why there is none."""

from __future__ import annotations

import functools
import json
import sys

from atomic_upgrade.alembic_patches import hide_offline_mode, print_by, start_from, watch_bulk_insert
from atomic_upgrade.asked import Unreadable, asked
from atomic_upgrade.channel import channel
from atomic_upgrade.clock import clock
from atomic_upgrade.environment import run_env
from atomic_upgrade.failures import Failed, NotRenderable, line_in, one_line
from atomic_upgrade.forbidden import look_into
from atomic_upgrade.graph import steps_to
from atomic_upgrade.scripts import scripts
from atomic_upgrade.sqlalchemy_patches import keep_backslashes, only_render, watch_dialect, with_literals
from atomic_upgrade.varying import digests_of, mark, say_why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any

    from alembic.runtime.migration import MigrationContext, RevisionStep
    from alembic.script import ScriptDirectory

    from atomic_upgrade.messages import Digests, Direction, LoadedDatabase, Plan, Rendered, RenderedBatch
    from atomic_upgrade.project import Project

# The most bytes of one statement, and of all statements of a dry run, as they are told; process.ts takes little more.
most_of_one, most_in_all = 64_000_000, 128_000_000


class Renderer:
    """Collects each revision's statements where Alembic's offline mode would print them, and keeps them faithful."""

    # How long the statements of all databases are.
    held = 0

    def __init__(self, context: MigrationContext) -> None:
        self.version_table_exists = True
        self.revisions: list[Rendered] = []
        self.context = context
        self.dialect = context.dialect
        keep_backslashes(self.dialect)
        print_by(context, execute=self.execute, note=self.note)
        watch_bulk_insert(context.impl)
        only_render(context.connection, self.execute_on_connection)
        watch_dialect(self.dialect)
        # In DDL the online run writes values by SQLAlchemy's own way, too.
        self.literals = with_literals(self.dialect)
        hide_offline_mode(context)

    def execute(
        self, construct: Any, execution_options: object = None, multiparams: object = None, params: object = None
    ) -> None:
        if multiparams or params:
            raise asked.refuse("it executes a statement with parameters, which offline mode would drop")
        from sqlalchemy import schema, text

        if isinstance(construct, str):
            construct = text(construct)
        creates_version_table = isinstance(construct, schema.CreateTable) and construct.element is self.context._version
        if not (creates_version_table and self.version_table_exists):
            self.add(self.compile(construct))

    def execute_on_connection(self, construct: Any, *multiparams: Any, **params: Any) -> Unreadable:
        params.pop("execution_options", None)
        if any(multiparams) or any(params.values()):
            raise asked.refuse("it executes a statement with parameters, which offline mode would drop")
        self.execute(construct)
        return Unreadable()

    def compile(self, construct: Any) -> str:
        from sqlalchemy import schema
        from sqlalchemy.sql import elements, visitors

        if isinstance(construct, schema.DDLElement):
            return str(construct.compile(dialect=self.dialect)).strip()
        for part in visitors.iterate(construct):
            if (
                isinstance(part, elements.BindParameter)
                and part.required
                and part.value is None
                and part.callable is None
            ):
                raise asked.refuse("the parameter :%s of a statement has no value" % part.key)
        compiled = construct.compile(dialect=self.literals, compile_kwargs={"literal_binds": True})
        for column in getattr(compiled, "insert_prefetch", ()) or getattr(compiled, "update_prefetch", ()):
            raise asked.refuse("the column %s has a default that Python computes as it runs" % column.name)
        return str(compiled).strip()

    def note(self, text: str) -> None:
        text = text.strip()
        # The transaction around the batch is ours; what a script begins or commits is its own.
        if not text.startswith("-- Running ") and (self.path or text not in ("BEGIN;", "COMMIT;")):
            self.add(text[:-1] if text.endswith(";") else text)

    def add(self, sql: str) -> None:
        if "\0" in sql:
            raise asked.refuse("it writes a null character, which PostgreSQL does not store")
        try:
            sql.encode()
        except UnicodeEncodeError:
            raise asked.refuse("it writes half of a surrogate pair, which PostgreSQL does not store")
        if self.revisions:
            length = len(json.dumps(sql)) + 100
            if length > most_of_one:
                raise asked.refuse("one of its statements is longer than %s MB" % (most_of_one // 1_000_000))
            if Renderer.held + length > most_in_all:
                raise asked.refuse("the statements up to it are longer than %s MB" % (most_in_all // 1_000_000))
            Renderer.held += length
            self.revisions[-1]["statements"].append({"sql": sql, "line": self.line(), "own": self.path is None})

    def line(self) -> int | None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back
        return frame.f_lineno if frame else None

    def steps(self, steps: Iterable[RevisionStep]) -> Iterator[RevisionStep]:
        for step in steps:
            self.revisions.append({"id": step.revision.revision, "statements": [], "reason": None, "line": None})
            step.migration_fn = self.guarded(step.migration_fn, step.revision.path, self.revisions[-1])
            yield step

    @property
    def path(self) -> str | None:
        """Of the script that is rendered; None outside of any."""
        return asked.path

    def guarded(self, migrate: Callable[..., None], path: str, revision: Rendered) -> Callable[..., None]:
        @functools.wraps(migrate)
        def run(**kwargs: Any) -> None:
            asked.begins(path)
            before, held, failed = len(revision["statements"]), Renderer.held, None
            try:
                channel.at(path)
                with clock.of_scripts():
                    migrate(**kwargs)
            except BaseException as error:
                if isinstance(error, Failed):
                    raise
                failed = (reason_of(error), line_in(error, path))
            finally:
                channel.at(None)
                # What was refused counts, whatever the script has made of it.
                told = asked.ends() or failed
                if told:
                    del revision["statements"][before:]
                    Renderer.held = held
                    say_why(revision, *told)

        return run


def reason_of(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotRenderable):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return one_line(error)


class DryRun:
    """Renders the batch of each database from its own heads; see run_env."""

    as_sql = True

    def __init__(self, script: ScriptDirectory, request: Plan) -> None:
        self.script = script
        self.request = request
        self.renderers: dict[str, Renderer] = {}
        self.prior = {bind: each["heads"] for bind, each in request["databases"].items()}

    def configured(self, context: MigrationContext) -> None:
        # Whose it is will be said when its migrations run; until then it prints nothing.
        self.renderer = Renderer(context)

    def begins(self, bind: str, context: MigrationContext) -> None:
        self.renderers[bind] = self.renderer
        asked_for = self.request["databases"].get(bind)
        self.renderer.version_table_exists = asked_for is not None and asked_for["version_table_exists"]
        start_from(context, self.prior.get(bind, ()))

    def steps(self, bind: str, heads: tuple[str, ...]) -> Iterable[RevisionStep]:
        if bind not in self.prior:
            return ()
        steps = steps_to(self.script, self.request["direction"], self.request["target"], heads)
        if [step.revision.revision for step in steps] != self.request["databases"][bind]["revisions"]:
            raise Failed("plan-changed", "The scripts lead elsewhere when they are imported than before.")
        return self.renderers[bind].steps(steps)

    def applied(self, bind: str, heads: set[str]) -> None:
        pass


def rendered(project: Project, request: Plan) -> DryRun:
    Renderer.held = 0
    dry_run = DryRun(project.scripts(), request)
    run_env(project, dry_run.script, request["target"], dry_run)
    return dry_run


def rendered_digests(project: Project, request: Plan) -> Digests:
    return digests_of(rendered(project, request).renderers)


def plan(project: Project, request: Plan, rendered_again: Callable[[], Digests | None]) -> dict[str, RenderedBatch]:
    """`rendered_again` returns the digests of another rendering, or None where there is none."""
    dry_run = rendered(project, request)
    if any(renderer.revisions for renderer in dry_run.renderers.values()):
        mark(dry_run.renderers, rendered_again(), lambda name: dry_run.script.get_revision(name).path)
    return {
        bind: {"revisions": [look_at(each, bind, request["direction"]) for each in renderer.revisions]}
        for bind, renderer in dry_run.renderers.items()
        if bind in dry_run.prior
    }


def look_at(revision: Rendered, bind: str, direction: Direction) -> Rendered:
    if revision["reason"] is None:
        return revision
    return {**revision, **look_into(scripts.source_of(revision["id"]), direction, bind)}


class Discovery:
    """Asks env.py, by a dry run in which nothing is to be done, for its databases; see run_env."""

    as_sql = True

    def __init__(self) -> None:
        self.databases: list[LoadedDatabase] = []

    def configured(self, context: MigrationContext) -> None:
        Renderer(context)

    def begins(self, bind: str, context: MigrationContext) -> None:
        table, schema = context.version_table, context.version_table_schema
        self.databases.append({"bind": bind, "version_table": table, "version_table_schema": schema})

    def steps(self, bind: str, heads: tuple[str, ...]) -> Iterable[RevisionStep]:
        return ()

    def applied(self, bind: str, heads: set[str]) -> None:
        pass


def databases_of(project: Project, script: ScriptDirectory) -> list[LoadedDatabase]:
    """The databases that env.py migrates, in its order, with their version tables."""
    discovery = Discovery()
    run_env(project, script, "heads", discovery)
    return discovery.databases
