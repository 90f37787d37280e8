"""The online run, through the gates."""

from atomic_upgrade.channel import channel
from atomic_upgrade.connections import gates, numbered
from atomic_upgrade.environment import run_env
from atomic_upgrade.failures import Failed, frames_of, is_database_error, line_in, one_line
from atomic_upgrade.graph import steps_to


class OnlineRun:
    """Announces each revision and waits for the word to go on; see run_env."""

    as_sql = False

    def __init__(self, script, request):
        self.script = script
        self.request = request
        self.bind = self.path = self.id = None

    def configured(self, context):
        pass

    def begins(self, bind, context):
        self.bind = bind
        number = context.connection.info.get(numbered)
        if number is not None:
            channel.ask(own=number)

    def applied(self, bind, heads):
        pass

    def steps(self, bind, heads):
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

    def where(self, error):
        return {"bind": self.bind, "revision": self.id, "line": line_in(error, self.path), "frames": frames_of(error)}


def run(project, request):
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
