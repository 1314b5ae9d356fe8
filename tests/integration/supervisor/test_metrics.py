import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from homeostat.supervisor import metrics, prometheus
from tests.fakes.supervised import Supervised

Supervise = Callable[..., Supervised]
COUNTING = """
import sys
from pathlib import Path
from homeostat.workers.metrics import Metrics
role, index = sys.argv[2].split(".")
m = Metrics(Path(sys.argv[1]), role, int(index))
m.steps.inc(2); m.records.inc(); m.system_events.inc()
m.tasks.labels(status="done").inc(); m.verdicts.labels(stage="policy", verdict="permit").inc()
m.effects.labels("once", "ok").inc(); m.requests.labels("submit", "ok").inc()
m.tokens.labels("input").inc(10); m.provider_failures.labels("cut").inc()
m.commit_seconds.observe(0.002); m.call_seconds.labels("read").observe(0.3)
print(int("http.server" in sys.modules))
"""


def get(supervised: Supervised, path: str, method: str = "GET") -> tuple[int, str]:
    """One request: status and body."""
    address = urlsplit(supervised.status().metrics)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def count(home: Path, name: str) -> str:
    """Be a worker process that counts a little and ends."""
    (home / "run" / "metrics" / name).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, str(home), name], capture_output=True, text=True, check=True
    )
    return done.stdout


def values(page: str) -> dict[str, float]:
    """All samples of a page."""
    return {name: float(value) for name, value in re.findall(r"^([a-z][^ ]*) (\S+)$", page, re.MULTILINE)}


def test_endpoint_shows_the_tree_and_its_restarts_when_scraped(supervise: Supervise) -> None:
    """What the supervisor sees of its children, with the restart that a kill cost."""
    supervised = supervise()
    supervised.ready()
    epoch = supervised.worker("brain.0").epoch
    os.kill(supervised.pid("brain.0"), signal.SIGKILL)
    supervised.again("brain.0", epoch)
    status, page = get(supervised, "/metrics")
    assert status == 200
    seen = values(page)
    assert seen["homeostat_ready"] == 1
    assert seen['homeostat_worker_restarts_total{index="0",role="brain"}'] == 1
    assert seen['homeostat_worker_restarts_total{index="0",role="gate"}'] == 0
    assert seen['homeostat_process_resident_memory_bytes{index="0",role="memory"}'] > 1 << 20
    assert seen['homeostat_process_threads{index="0",role="supervisor"}'] == 2
    assert seen['homeostat_process_threads{index="0",role="nursery"}'] == 1


def test_endpoint_answers_health_and_refuses_the_rest_when_asked(supervise: Supervise) -> None:
    """Each path and method has its answer; garbage does not end the endpoint."""
    supervised = supervise()
    supervised.ready()
    assert get(supervised, "/healthz") == (200, "ready\n")
    assert get(supervised, "/elsewhere")[0] == 404
    assert get(supervised, "/metrics", "POST")[0] == 405
    assert get(supervised, "/metrics", "HEAD") == (200, "")
    address = urlsplit(supervised.status().metrics)
    with socket.create_connection((str(address.hostname), address.port), timeout=20) as scraper:
        scraper.sendall(b"\x16\x03\x01garbage\r\n\r\n")
        assert scraper.recv(64).startswith(b"HTTP/1.1 400")
    assert get(supervised, "/healthz")[0] == 200


def test_counters_go_on_when_their_worker_was_restarted(tmp_path: Path) -> None:
    """The next incarnation of a role and index counts on; another index is added; no file is left per pid."""
    assert count(tmp_path, "gate.0") == "0\n"
    count(tmp_path, "gate.0")
    count(tmp_path, "brain.1")
    folder = tmp_path / "run" / "metrics"
    seen = values(prometheus.text(prometheus.workers_metrics(folder)))
    assert seen["homeostat_steps_total"] == 6
    assert seen['homeostat_tokens_total{direction="input"}'] == 30
    assert seen["homeostat_commit_seconds_count"] == 3
    assert seen['homeostat_commit_seconds_bucket{le="0.0025"}'] == 3
    assert seen['homeostat_call_seconds_bucket{class="read",le="+Inf"}'] == 3
    assert sorted(path.name for path in folder.glob("*/*")) == [
        f"{kind}_{name}.db"
        for kind in ("counter", "gauge_sum", "histogram")
        for name in ("brain.1", "gate.0")
    ]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_page_passes_promtool_when_everything_has_been_counted(tmp_path: Path) -> None:
    """Names, units and types are as Prometheus wants them."""
    count(tmp_path, "gate.0")
    rows = (metrics.Row("gate", 0, os.getpid(), True, 3), metrics.Row("brain", 0, None, False, 0))
    snapshot = metrics.Snapshot(True, "0.1.0", rows, (("supervisor", os.getpid()),))
    page = metrics.render(snapshot, tmp_path / "run" / "metrics")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_page_equals_the_library_s_own_when_compared(tmp_path: Path) -> None:
    """Our text form is prometheus_client's own (asked in another process: we import it slim)."""
    count(tmp_path, "gate.0")
    program = """
import json, sys, glob
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
class All:
    def collect(self):
        return MultiProcessCollector.merge(sorted(glob.glob(sys.argv[1] + "/*/*.db")), accumulate=True)
registry = CollectorRegistry(auto_describe=False)
registry.register(All())
print(json.dumps(generate_latest(registry).decode()))
"""
    folder = tmp_path / "run" / "metrics"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    theirs, ours = (
        values(json.loads(done.stdout)),
        values(prometheus.text(prometheus.workers_metrics(folder))),
    )
    assert ours == theirs
    assert len(ours) > 20
