"""The Prometheus endpoint: the workers' counters, and what the supervisor sees of its children.

Owns: the supervisor's own metrics, the HTTP server for ``/metrics`` and ``/healthz``.
Must not know: how workers count.
Invariant: a slow, silent or broken scraper delays scrapes alone, never supervision.
Source: prometheus.io/docs/practices/naming; RFC 9112 for the little of HTTP that a scraper needs.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import prometheus

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

REQUEST_LIMIT_BYTES = 8 << 10
SCRAPER_S = 5.0


@dataclass(frozen=True)
class Row:
    """One child at the moment of a scrape."""

    role: str
    index: int
    pid: int | None
    ready: bool
    restarts: int


@dataclass(frozen=True)
class Snapshot:
    """The tree at the moment of a scrape."""

    ready: bool
    version: str
    rows: tuple[Row, ...]
    others: tuple[tuple[str, int], ...]
    """Processes that are no workers: name and pid of supervisor and nursery."""


def render(snapshot: Snapshot, folder: Path) -> str:
    """Give the whole page."""
    prometheus.slim()
    return prometheus.text([*_tree(snapshot), *_processes(snapshot), *prometheus.workers_metrics(folder)])


def _tree(snapshot: Snapshot) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - after slim()

    info = GaugeMetricFamily("homeostat_build_info", "Version of the supervisor.", labels=["version"])
    info.add_metric([snapshot.version], 1)
    yield info
    yield GaugeMetricFamily("homeostat_ready", "Whether every worker serves.", value=float(snapshot.ready))
    up = GaugeMetricFamily(
        "homeostat_worker_up", "Whether the worker has a process.", labels=["role", "index"]
    )
    ready = GaugeMetricFamily(
        "homeostat_worker_ready", "Whether the worker serves.", labels=["role", "index"]
    )
    restarts = CounterMetricFamily(
        "homeostat_worker_restarts",
        "Restarts of the worker since the supervisor started.",
        labels=["role", "index"],
    )
    for row in snapshot.rows:
        labels = [row.role, str(row.index)]
        up.add_metric(labels, float(row.pid is not None))
        ready.add_metric(labels, float(row.ready))
        restarts.add_metric(labels, row.restarts)
    yield from (up, ready, restarts)


def _processes(snapshot: Snapshot) -> Iterator[Metric]:
    """What psutil sees of each process; what the kernel does not show of another user's is left out."""
    import psutil  # noqa: PLC0415 - 4 MB that are only needed where somebody scrapes
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - after slim()

    labels = ["role", "index"]
    resident = GaugeMetricFamily("homeostat_process_resident_memory_bytes", "Resident memory.", labels=labels)
    cpu = CounterMetricFamily(
        "homeostat_process_cpu_seconds", "Processor time of this incarnation.", labels=labels
    )
    threads = GaugeMetricFamily("homeostat_process_threads", "Threads.", labels=labels)
    fds = GaugeMetricFamily("homeostat_process_open_fds", "Open descriptors.", labels=labels)
    named = [(row.role, row.index, row.pid) for row in snapshot.rows]
    named += [(name, 0, pid) for name, pid in snapshot.others]
    for role, index, pid in named:
        if pid is None:
            continue
        values = [role, str(index)]
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            times = process.cpu_times()
            resident.add_metric(values, process.memory_info().rss)
            cpu.add_metric(values, times.user + times.system)
            threads.add_metric(values, process.num_threads())
            fds.add_metric(values, process.num_fds())
    yield from (resident, cpu, threads, fds)


class Server(threading.Thread):
    """One thread, one scraper at a time, HTTP/1.0 in spirit: a request, an answer, the end."""

    def __init__(
        self,
        listener: socket.socket,
        folder: Path,
        look: Callable[[], Snapshot],
        report: Callable[[str], None],
    ) -> None:
        super().__init__(name="metrics", daemon=True)
        self._listener = listener
        self._listener.setblocking(True)
        self._folder = folder
        self._look = look
        self._report = report

    def run(self) -> None:
        """Serve until the listener is shut down."""
        while True:
            try:
                scraper, _ = self._listener.accept()
            except OSError as error:
                if self._listener.fileno() < 0 or error.errno == 22:  # EINVAL: shut down by close()
                    return
                time.sleep(1.0)  # No descriptors left: wait for some.
                continue
            with scraper, contextlib.suppress(OSError):  # A scraper that went away is no event of ours.
                scraper.settimeout(SCRAPER_S)
                self._serve(scraper)

    def close(self) -> None:
        """End the thread."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.join(1.0)
        self._listener.close()

    def _serve(self, scraper: socket.socket) -> None:
        head = _head(scraper)
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _respond(scraper, "400 Bad Request", "not HTTP\n")
        method, target = words[0], words[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _respond(scraper, "405 Method Not Allowed", "GET only\n", "Allow: GET, HEAD\r\n")
        status, body = self._page(target)
        return _respond(scraper, status, body, without_body=method == b"HEAD")

    def _page(self, target: bytes) -> tuple[str, str]:
        snapshot = self._look()
        if target == b"/healthz":
            return ("200 OK", "ready\n") if snapshot.ready else ("503 Service Unavailable", "not ready\n")
        if target != b"/metrics":
            return "404 Not Found", "/metrics and /healthz are here\n"
        try:
            return "200 OK", render(snapshot, self._folder)
        except Exception:  # noqa: BLE001 - a damaged counter file must not end the endpoint; it is reported
            self._report(traceback.format_exc())
            return "500 Internal Server Error", "the metrics can't be read; see log/supervisor.log\n"


def _head(scraper: socket.socket) -> bytes:
    """Read a request's head, bounded in bytes and time."""
    head, until_s = b"", time.monotonic() + SCRAPER_S
    while b"\r\n\r\n" not in head and len(head) < REQUEST_LIMIT_BYTES and time.monotonic() < until_s:
        more = scraper.recv(4096)
        if not more:
            break
        head += more
    return head


def _respond(
    scraper: socket.socket, status: str, body: str, more: str = "", *, without_body: bool = False
) -> None:
    data = body.encode()
    kind = prometheus.CONTENT_TYPE if status.startswith("200") else "text/plain; charset=utf-8"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        f"Connection: close\r\n{more}\r\n"
    )
    scraper.sendall(head.encode() + (b"" if without_body else data))
