"""The online run, through the gates."""

from __future__ import annotations

from atomic_upgrade.channel import channel
from atomic_upgrade.connections import gates, numbered
from atomic_upgrade.environment import run_env
from atomic_upgrade.failures import Failed, frames_of, is_database_error, line_in, one_line
from atomic_upgrade.graph import steps_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.migration import MigrationContext, RevisionStep
    from alembic.script import ScriptDirectory

    from atomic_upgrade.messages import Answer, Run, Where
    from atomic_upgrade.project import Project


class OnlineRun:
    """Announces each revision and waits for the word to go on; see run_env."""

    as_sql = False

    def __init__(self, script: ScriptDirectory, request: Run) -> None:
        self.script = script
        self.request = request
        self.bind: str | None = None
        self.path: str | None = None
        self.id: str | None = None

    def configured(self, context: MigrationContext) -> None:
        pass

    def begins(self, bind: str, context: MigrationContext) -> None:
        self.bind = bind
        assert context.connection is not None
        number = context.connection.info.get(numbered)
        if number is not None:
            channel.ask(own=number)

    def applied(self, bind: str, heads: set[str]) -> None:
        pass

    def steps(self, bind: str, heads: tuple[str, ...]) -> Iterator[RevisionStep]:
        if bind not in self.request["databases"]:
            raise Failed("invalid-input", "The project has the database %s, and database-url does not." % bind)
        steps = steps_to(self.script, self.request["direction"], self.request["target"], heads)
        planned = self.request["databases"][bind]["revisions"]
        if [step.revision.revision for step in steps] != planned:
            raise Failed("drift", "Alembic finds the heads %s in the database." % (", ".join(heads) or "(base)"))
        for step in steps:
            self.path, self.id = step.revision.path, step.revision.revision
            channel.ask(revision={"bind": bind, "id": self.id})
            yield step

    def where(self, error: BaseException) -> Where:
        return {"bind": self.bind, "revision": self.id, "line": line_in(error, self.path), "frames": frames_of(error)}


def run(project: Project, request: Run) -> Answer:
    # Fresh modules: a script may have changed its own globals in the dry run.
    online = OnlineRun(project.scripts(), request)
    gates.open({bind: each["gate"] for bind, each in request["databases"].items()}, project.bind_of)
    try:
        run_env(project, online.script, request["target"], online)
        return {"ran": True}
    except BaseException as error:
        if isinstance(error, Failed):
            raise
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            told = "%s(%s)" % (type(error).__name__, getattr(error, "code", ""))
            raise Failed("script", "The script ended Python with %s." % told, **online.where(error))
        raise Failed("script", one_line(error), database=is_database_error(error), **online.where(error))
    finally:
        gates.close()
