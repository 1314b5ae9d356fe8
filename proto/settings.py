"""The settings of a home, as types with defaults.

Owns: every setting, its type and its default.
Must not know: files, TOML, errors' places (config.py); who uses a setting.
Invariant: frozen, and no unknown fields; a number's bounds are in bounds.py, by the end of its name.
Source: DESIGN §13; docs/OPERATIONS.md lists every key.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .records import Limits


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Common form."""


class Metrics(_Section, frozen=True):
    """The Prometheus endpoint. Port 0 takes a free one."""

    listen: str = "127.0.0.1:9464"


class Client(_Section, frozen=True):
    """The client port beside the local one: ``listen`` (TCP, CURVE) is off when empty.

    ``authorized_keys`` are the clients' public keys (Z85, 40 characters).
    """

    listen: str = ""
    authorized_keys: tuple[str, ...] = ()


class Users(_Section, frozen=True):
    """As root: the first of the unprivileged uids and gids that workers and commands get."""

    base: int = 64_100


class Quotas(_Section, frozen=True):
    """Bounds of the whole home; beyond them new work is refused with a reason.

    ``stage_*`` bound what one call may leave in its stage, ``workspace_*`` what a workspace may hold.
    """

    open_tasks: int = 1_000
    plan_steps: int = 200_000
    min_free_bytes: int = 256 << 20
    min_free_files: int = 10_000
    stage_bytes: int = 4 << 30
    stage_files: int = 200_000
    workspace_bytes: int = 64 << 30
    workspace_files: int = 2_000_000


class Journal(_Section, frozen=True):
    """``map_bytes`` is address space reserved for the journal, not disk."""

    map_bytes: int = 64 << 30


class Policy(_Section, frozen=True):
    """Cedar policies: a shipped set by name, and files of one's own (they are added to it)."""

    set: Literal["default", "locked"] = "default"
    files: tuple[str, ...] = ()


class Sandbox(_Section, frozen=True):
    """Confinement of commands. ``read_only`` paths are visible in it at the same place.

    ``may_be_missing`` names layers that an operator allows to be missing. ``armed``: so many sandboxes of a
    kind are made ahead. ``total_memory_bytes`` and ``max_processes`` bound the whole of a command, by cgroup.
    """

    read_only: tuple[str, ...] = ()
    path: str = "/usr/local/bin:/usr/bin:/bin"
    may_be_missing: tuple[Literal["landlock", "cgroup", "overlay"], ...] = ("cgroup", "overlay")
    max_processes: int = 512
    max_open_files: int = 1_024
    max_file_bytes: int = 1 << 30
    max_memory_bytes: int = 4 << 30
    tmp_bytes: int = 256 << 20
    armed: int = 2
    total_memory_bytes: int = 8 << 30


class Terminals(_Section, frozen=True):
    """Live terminals: how many a task and an executor may have, how long one lives and may be left alone."""

    per_task: int = 4
    most: int = 16
    life_s: float = 14_400.0
    idle_s: float = 1_800.0


class Courier(_Section, frozen=True):
    """The way out: bounds of connections and of ``http.request``'s answers."""

    connections: int = 256
    connections_per_call: int = 32
    dial_s: float = 10.0
    idle_s: float = 300.0
    redirects: int = 5
    max_response_bytes: int = 16 << 20


class Credential(_Section, frozen=True):
    """A secret that the courier alone reads, and puts into a header of ``http.request``."""

    name: str
    header: str = "Authorization"
    prefix: str = "Bearer "
    value_file: str = ""
    value_env: str = ""


class Connection(_Section, frozen=True):
    """A database that agents may be allowed by name: ``sqlite:///…`` or ``postgresql://…``.

    The password comes from the file or the environment variable named here; only its own process reads it.
    """

    name: str
    url: str
    write: bool = False
    password_file: str = ""
    password_env: str = ""
    statement_s: float = 30.0
    rows: int = 1_000


class Supervision(_Section, frozen=True):
    """Restart intensity within a period, backoff, how long a stop may take; limits of a worker's resources.

    Beyond a soft limit a worker is drained and recycled, beyond ``hard_factor`` times that it is killed; 0 is
    off.
    """

    intensity: int = 20
    period_s: float = 10.0
    backoff_base_s: float = 0.05
    backoff_max_s: float = 5.0
    healthy_s: float = 10.0
    stop_s: float = 10.0
    run_s: float = 0.15
    sync_s: float = 10.0
    hung_s: float = 30.0
    drain_s: float = 60.0
    watch_s: float = 30.0
    cool_down_s: float = 600.0
    hard_factor: float = 2.0
    soft_memory_bytes: int = 1 << 30
    soft_open_files: int = 1_024
    soft_threads: int = 256
    soft_cpu_share: float = 0.0


class Log(_Section, frozen=True):
    """The supervisor's log: which lines, in what form, where to; and the size of every log file.

    Of one event at most ``lines_at_once`` lines are written together and ``lines_a_minute`` after that.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["logfmt", "json"] = "logfmt"
    to: Literal["file", "stderr", "journald"] = "file"
    max_bytes: int = 8 << 20
    keep: int = 3
    lines_at_once: int = 200
    lines_a_minute: int = 600


class Guardian(_Section, frozen=True):
    """Of `homeostat start`: when a supervisor that died is started again, and when no more."""

    intensity: int = 5
    period_s: float = 60.0
    backoff_base_s: float = 1.0
    backoff_max_s: float = 30.0
    healthy_s: float = 60.0


class Workers(_Section, frozen=True):
    """How many of the workers that may be many."""

    brains: int = 1
    executors: int = 1


class Model(_Section, frozen=True):
    """A model behind OpenAI's Chat Completions protocol at any base URL.

    The key comes from the file or the environment variable named here; only the brain reads it.
    """

    base_url: str
    model: str
    key_file: str = ""
    key_env: str = ""
    timeout_s: float = 120.0
    attempts: int = 4
    max_output_tokens: int = 4_096
    context_tokens: int = 128_000
    temperature: float | None = None


class Egress(_Section, frozen=True):
    """A destination that an agent may reach: an exact host name, or ``*.`` and a domain for all below it.

    Private addresses are refused unless ``addresses`` lists their network. ``idempotent``: it honours the
    header Idempotency-Key, so that a request may be sent again after a crash.
    """

    host: str
    ports: tuple[int, ...] = (443,)
    addresses: tuple[str, ...] = ()
    idempotent: bool = False
    credential: str = ""


class Agent(_Section, frozen=True):
    """An agent: provider ``script`` runs the plan that a task carries, ``chat`` asks a model."""

    name: str
    provider: Literal["script", "chat"] = "script"
    prompt: str = ""
    tools: tuple[str, ...] = ()
    model: Model | None = None
    limits: Limits = Limits()
    stage: Literal["required", "off"] = "required"
    protected: Literal["refuse", "allow"] = "refuse"
    egress: tuple[Egress, ...] = ()
    connections: tuple[str, ...] = ()
    in_doubt: Literal["ask", "tell"] = "ask"
    in_doubt_s: float = 86_400.0


class Config(_Section, frozen=True):
    """All settings of one home."""

    metrics: Metrics = Metrics()
    client: Client = Client()
    users: Users = Users()
    quotas: Quotas = Quotas()
    journal: Journal = Journal()
    policy: Policy = Policy()
    sandbox: Sandbox = Sandbox()
    terminals: Terminals = Terminals()
    courier: Courier = Courier()
    supervision: Supervision = Supervision()
    guardian: Guardian = Guardian()
    log: Log = Log()
    workers: Workers = Workers()
    credential: tuple[Credential, ...] = ()
    connection: tuple[Connection, ...] = ()
    agent: tuple[Agent, ...] = (Agent(name="default"),)

    @property
    def has_courier(self) -> bool:
        """Whether some agent has a way out."""
        return any(agent.egress for agent in self.agent)

    @property
    def has_database(self) -> bool:
        """Whether some agent has a database."""
        return any(agent.connections for agent in self.agent)

    def agent_named(self, name: str) -> Agent | None:
        """The agent of this name."""
        return next((agent for agent in self.agent if agent.name == name), None)
