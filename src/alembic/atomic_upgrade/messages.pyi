"""The JSON lines that go to and fro between the action and the driver; for the type checker alone, nobody imports it.

The action has the same shapes in answer.ts, and in what interpreter.ts, process.ts, python-run.ts, dry-run.ts and
online-run.ts send.
"""

from typing import Literal, TypedDict

from typing_extensions import NotRequired

Direction = Literal["upgrade", "downgrade"]

Kind = Literal[
    "drift",
    "invalid-input",
    "migration-failed",
    "multiple-heads",
    "plan-changed",
    "render-failed",
    "script",
    "unknown-revision",
    "untrusted",
]

# What a script says of itself under one of the names that Alembic takes.
Value = str | list[str] | tuple[str, ...] | None
Values = dict[str, Value]

class Trusted(TypedDict):
    roots: list[str]
    files: dict[str, str]
    links: dict[str, str]
    python_path: str

class Serving(TypedDict):
    with_flask: bool

class Fork(TypedDict):
    run: int
    port: int
    token: str
    nonce: str

class Load(TypedDict):
    flask_app: str
    directory: str
    alembic_config: str
    version_table: str
    version_table_schema: str
    # By bind.
    urls: dict[str, str]
    twice: bool

class ReadScript(TypedDict):
    # Of its bytes, in base64.
    source: str
    values: Values | None
    doc: str

class ToldScript(ReadScript):
    path: str

class PriorHeads(TypedDict):
    heads: list[str]

class Resolve(TypedDict):
    direction: Direction
    target: str
    databases: dict[str, PriorHeads]

class Unrendered(TypedDict):
    heads: list[str]
    version_table_exists: bool
    revisions: list[str]

class Plan(TypedDict):
    direction: Direction
    target: str
    databases: dict[str, Unrendered]

class Address(TypedDict):
    host: str
    port: int
    user: str
    password: str
    database: str

class Batch(TypedDict):
    revisions: list[str]
    gate: Address

class Run(TypedDict):
    direction: Direction
    target: str
    databases: dict[str, Batch]

# One line of the action's. `import` are the numbers of the scripts that may run, which comes with `plan` and `run`.
Request = TypedDict(
    "Request",
    {
        "nonce": str,
        "trusted": Trusted,
        "forks": Serving,
        "fork": Fork,
        "kill": int,
        "load": Load,
        "scripts": list[ReadScript],
        "resolve": Resolve,
        "import": list[int],
        "plan": Plan,
        "run": Run,
        "go": Literal[True],
        "end": Literal[True],
    },
    total=False,
)

class Ended(TypedDict):
    run: int
    code: int | None
    signal: str | None

class LoadedRevision(TypedDict):
    id: str
    file: int
    down: list[str]
    depends_on: list[str]
    labels: list[str]
    message: str
    path: str
    created: str

class LoadedDatabase(TypedDict):
    bind: str
    version_table: str
    version_table_schema: str | None

class Loaded(TypedDict):
    revisions: list[LoadedRevision]
    heads: list[str]
    databases: list[LoadedDatabase]

class ResolvedRevision(TypedDict):
    id: str
    heads: list[str]

class Resolved(TypedDict):
    prior: list[str]
    new: list[str]
    revisions: list[ResolvedRevision]

class Statement(TypedDict):
    sql: str
    line: int | None
    # Whether it is Alembic's own.
    own: bool

class PlaceInScript(TypedDict):
    line: int
    text: str

class LookedInto(TypedDict):
    concurrently: list[PlaceInScript]
    mentions: list[PlaceInScript]
    strings: list[PlaceInScript]

class Shown(TypedDict):
    id: str
    # Why it cannot be rendered; what was looked for in its source is there with it.
    reason: str | None
    line: int | None
    concurrently: NotRequired[list[PlaceInScript]]
    mentions: NotRequired[list[PlaceInScript]]
    strings: NotRequired[list[PlaceInScript]]

# As the driver keeps it until it tells it.
class Rendered(Shown):
    statements: list[Statement]

class RenderedBatch(TypedDict):
    revisions: list[Rendered]

# By bind, of each revision its id, why it was not rendered, and its statements. It has been JSON, or not.
Digests = dict[str, list[tuple[str, str | None, list[str]]]]

# What the second process is asked: `import` is what the action has said.
Twice = TypedDict("Twice", {"plan": Plan, "import": list[int] | None})

class Planned(Shown):
    # From, and up to without that one, of those that were told before.
    statements: list[int]

class PlannedBatch(TypedDict):
    revisions: list[Planned]

class Started(TypedDict):
    bind: str
    id: str

class Frame(TypedDict):
    file: str
    line: int | None
    function: str

class Place(TypedDict):
    file: str
    line: int

class Speaker(TypedDict):
    connection: int
    thread: str
    task: str | None
    place: Place | None

class Where(TypedDict, total=False):
    bind: str | None
    revision: str | None
    line: int | None
    frames: list[Frame]

class FailureDetails(Where, total=False):
    # What of the message is a Python error's.
    quoted: str
    # Whether the database has refused something.
    database: bool
    path: str
    heads: list[str]

class Failure(FailureDetails):
    kind: Kind
    message: str

class Answer(TypedDict, total=False):
    """One line of the driver's."""

    ended: Ended
    # The number of a run that cannot be forked.
    alone: int
    at: str | None
    files: list[str]
    loaded: Loaded
    statement: Statement
    resolved: dict[str, Resolved]
    planned: dict[str, PlannedBatch]
    revision: Started
    own: int
    speaker: Speaker
    ran: Literal[True]
    failed: Failure

class Reading(TypedDict):
    """What reader.py answers of one script: see Reading in reader.ts."""

    values: dict[str, Value]
    computed: list[str]
    doc: str
