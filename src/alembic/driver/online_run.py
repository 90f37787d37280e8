"""The online run, through the gate."""

from atomic_upgrade.channel import channel
from atomic_upgrade.connections import gates
from atomic_upgrade.environment import environment
from atomic_upgrade.failures import Failed, frames_of, is_database_error, line_in, one_line
from atomic_upgrade.graph import steps_to


def run(project, request):
    # Fresh modules: a script may have changed its own globals in the dry run.
    script = project.scripts()
    running = {"path": None, "id": None}

    def fn(current, context):
        steps = steps_to(script, request["direction"], request["target"], current)
        if [step.revision.revision for step in steps] != request["revisions"]:
            raise Failed("drift", "Alembic finds the heads %s in the database." % (", ".join(current) or "(base)"))
        for step in steps:
            running.update(path=step.revision.path, id=step.revision.revision)
            channel.send(revision=step.revision.revision)
            channel.receive()
            yield step

    gates.address = request["gate"]
    try:
        with project.context(), environment(project, script, request["target"], fn):
            script.run_env()
        return {"ran": True}
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, Failed)):
            raise
        if isinstance(error, SystemExit):
            raise Failed("script", "The script ended Python with SystemExit(%s)." % error.code, **where(error, running))
        raise Failed("script", one_line(error), database=is_database_error(error), **where(error, running))
    finally:
        gates.address = None


def where(error, running):
    return {"revision": running["id"], "line": line_in(error, running["path"]), "frames": frames_of(error)}
