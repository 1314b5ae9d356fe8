"""What workers count, in files that outlive them.

Owns: the names, labels and buckets of the workers' metrics, and where their values are kept.
Must not know: who reads them (supervisor/prometheus.py sums the files of all workers).
Invariant: no ids in labels; a restarted ``role.index`` goes on counting where its former incarnation stopped.
Source: prometheus.io/docs/practices/naming; prometheus_client's multiprocess mode.

The process identifier is ``role.index`` and not the pid: files neither pile up with restarts nor start from
zero, and two incarnations of one ``role.index`` never run at the same time.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from functools import cached_property
from pathlib import Path

if "prometheus_client" not in sys.modules:
    # The package's own start imports http.server, ssl and urllib: 6.7 MB that a worker has no use for.
    _spec = importlib.util.find_spec("prometheus_client")
    if _spec is not None:
        sys.modules["prometheus_client"] = importlib.util.module_from_spec(_spec)

from prometheus_client import values
from prometheus_client.metrics import Counter, Gauge, Histogram

from ..proto.errors import DiskFullError

COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
CALL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)


KINDS = ("counter", "histogram", "gauge_sum")
"""Each has a file; a gauge's is named after its way of being added up as well."""
FILE_BYTES = 1 << 16
"""prometheus_client's own first size."""


def _reserve(path: Path) -> None:
    """Take the file's room now: a write into a mapped hole of a full disk would be a SIGBUS."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, FILE_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise DiskFullError(
            f"{path}: no space left for metrics", remedy="Make room on the disk of the home."
        ) from error


class Metrics:
    """The metrics of this process; each comes into being when it is first used.

    One per process, made after the fork: the library keeps its files in module state.
    """

    def __init__(self, home: Path, role: str, index: int) -> None:
        """Keep the values in ``run/metrics/role.index``, made by the supervisor. Raises DiskFullError."""
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(home / "run" / "metrics" / f"{role}.{index}")
        name = f"{role}.{index}"
        folder = home / "run" / "metrics" / name
        for kind in KINDS:
            _reserve(folder / f"{kind}_{name}.db")
        values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]

    @cached_property
    def tasks(self) -> Counter:
        """Changes of status, by the new ``status``."""
        return _counter("tasks", "Tasks that reached a status.", "status")

    @cached_property
    def steps(self) -> Counter:
        """Complete steps."""
        return _counter("steps", "Steps whose calls have all ended.")

    @cached_property
    def verdicts(self) -> Counter:
        """Verdicts by ``stage`` of the pipeline and ``verdict``."""
        return _counter("verdicts", "Verdicts of the gate.", "stage", "verdict")

    @cached_property
    def effects(self) -> Counter:
        """Outcomes by effect ``class`` and ``status``."""
        return _counter("effects", "Effects that ended.", "class", "status")

    @cached_property
    def records(self) -> Counter:
        """Journal records."""
        return _counter("records", "Records written to the journal.")

    @cached_property
    def commit_seconds(self) -> Histogram:
        """Time of one synced group commit."""
        return Histogram(
            "homeostat_commit_seconds", "Time of a synced commit.", buckets=COMMIT_BUCKETS_S, registry=None
        )

    @cached_property
    def requests(self) -> Counter:
        """Requests of clients by ``type`` and ``code`` (``ok`` or the refusal's)."""
        return _counter("requests", "Requests of clients.", "type", "code")

    @cached_property
    def tokens(self) -> Counter:
        """Tokens by ``direction`` (``input``, ``output``)."""
        return _counter("tokens", "Tokens that models were paid for.", "direction")

    @cached_property
    def provider_failures(self) -> Counter:
        """Calls of model providers without a usable answer, by ``error``."""
        return _counter("provider_failures", "Calls of model providers that gave no usable answer.", "error")

    @cached_property
    def system_events(self) -> Counter:
        """Times that the reflection gate spoke."""
        return _counter(
            "system_events", "System events that the reflection gate put in place of observations."
        )

    @cached_property
    def dead_letters(self) -> Counter:
        """What was dropped, by ``reason``."""
        return _counter("dead_letters", "Messages that were dropped.", "reason")

    @cached_property
    def connections(self) -> Counter:
        """Connections through the courier that are over, by ``verdict``."""
        return _counter("connections", "Connections through the courier.", "verdict")

    @cached_property
    def frozen(self) -> Gauge:
        """Freezes in force by ``scope``: ``all``, ``agent``, ``tool``."""
        # "sum": of the one gate; its file outlives it, so what is frozen is shown while a gate restarts.
        return Gauge(
            "homeostat_frozen", "Freezes in force.", ("scope",), registry=None, multiprocess_mode="sum"
        )

    @cached_property
    def call_seconds(self) -> Histogram:
        """Time of one tool call by effect ``class``."""
        return Histogram(
            "homeostat_call_seconds",
            "Time of a tool call.",
            ("class",),
            buckets=CALL_BUCKETS_S,
            registry=None,
        )


def _counter(name: str, documentation: str, *labels: str) -> Counter:
    # No registry: this process serves no page, its file is read by the supervisor.
    return Counter(f"homeostat_{name}_total", documentation, labels, registry=None)
