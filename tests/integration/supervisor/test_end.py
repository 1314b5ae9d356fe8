import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.proto.errors import UnreachableError
from homeostat.supervisor import control
from tests.fakes.supervised import PROGRAM, ROOT, SETTINGS, Supervised, alive, eventually

Supervise = Callable[..., Supervised]


def test_everything_dies_when_the_supervisor_is_killed(supervise: Supervise) -> None:
    """No worker and no nursery outlives the supervisor, whatever ends it."""
    supervised = supervise()
    supervised.ready()
    pids = [worker.pid for worker in supervised.status().workers if worker.pid] + [supervised.nursery()]
    assert len(pids) == 6
    assert all(map(alive, pids))
    supervised.process.send_signal(signal.SIGKILL)
    eventually(lambda: not any(map(alive, pids)), "the death of all")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_supervisor_stops_in_reverse_order_and_exits_0_when_told(supervise: Supervise, number: int) -> None:
    """Who asks for work stops first, the journal's owner last."""
    supervised = supervise()
    supervised.ready()
    supervised.process.send_signal(number)
    assert supervised.end()[0] == 0
    order = re.findall(r"event=exited worker=(\S+) .* how=\"exited with 0\"", supervised.log("supervisor"))
    assert order == ["brain.0", "executor.0", "zygote.0", "memory.0", "gate.0"]
    assert not list((supervised.home / "run").glob("*.sock"))


def test_supervisor_stops_when_asked_over_its_port(supervise: Supervise) -> None:
    """The command line's way to stop."""
    supervised = supervise()
    supervised.ready()
    reply = control.ask(supervised.home, control.Stop())
    assert reply == control.Stopping(pid=supervised.process.pid)
    assert supervised.end()[0] == 0
    with pytest.raises(UnreachableError):
        control.ask(supervised.home, control.Status())


def test_deaf_worker_is_killed_when_its_deadline_has_passed(supervise: Supervise) -> None:
    """A worker that does not drain does not hold the stop back for ever."""
    supervised = supervise(SETTINGS.replace("stop_s = 5.0", "stop_s = 0.3"), fake="executor.0=deaf")
    supervised.ready()
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.end()[0] == 0
    assert re.search(r"worker=executor.0 .*how=\"killed by SIGKILL\"", supervised.log("supervisor"))


def test_second_signal_hurries_when_the_stop_takes_long(supervise: Supervise) -> None:
    """Who asks twice does not want to wait."""
    supervised = supervise(
        SETTINGS.replace("stop_s = 5.0", "stop_s = 600.0"), fake="brain.0=deaf gate.0=deaf"
    )
    supervised.ready()
    supervised.process.send_signal(signal.SIGTERM)
    eventually(lambda: "stop at_ns" in supervised.log("brain.0"), "the first stop")
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.end()[0] == 0


def test_supervisor_escalates_when_a_worker_keeps_crashing(supervise: Supervise) -> None:
    """Beyond the intensity the tree comes down and names the last crash."""
    settings = SETTINGS + "intensity = 3\nperiod_s = 60.0\nbackoff_base_s = 0.01\n"
    supervised = supervise(settings, fake="memory.0=crash")
    code, _, err = supervised.end()
    assert code == 9
    assert "memory.0 keeps crashing: 4 crashes of its group in 60 s" in err
    assert "exited with 3" in err
    assert "Traceback" not in err
    assert supervised.log("memory.0").count("start ") == 4


def test_supervisor_escalates_when_backoff_spreads_crashes_beyond_the_period(
    supervise: Supervise,
) -> None:
    """However slowly it is restarted: so many crashes in a row without a healthy time are enough."""
    settings = SETTINGS.replace("healthy_s = 0.001", "healthy_s = 600.0")
    settings += "intensity = 4\nperiod_s = 0.0001\nbackoff_base_s = 0.01\nbackoff_max_s = 0.02\n"
    supervised = supervise(settings, fake="brain.0=crash")
    code, _, err = supervised.end()
    assert code == 9
    assert "brain.0 keeps crashing: 5 crashes of its group, none after 600 s of service" in err
    assert supervised.log("brain.0").count("start ") == 5


def test_supervisor_escalates_when_a_worker_never_comes_to_serve(supervise: Supervise) -> None:
    """An error that nobody foresaw at each start of the gate: the third ends all, with its last line."""
    supervised = supervise(fake="gate.0=raise")
    code, out, err = supervised.end()
    assert code == 9
    assert "ready" not in out
    assert "gate.0 keeps crashing: 3 starts in a row failed and none has succeeded" in err
    assert f"{supervised.home}/log/gate.0.log" in err
    assert "KeyError: 'what nobody foresaw'" in err
    assert "Traceback" not in err
    assert supervised.log("gate.0").count("start ") == 3


def test_supervisor_escalates_when_the_nursery_can_not_start(supervise: Supervise, home: Path) -> None:
    """Broken code to fork from is told as such, with the nursery's last words, by the default settings."""
    supervised = supervise(fake="not-a-behaviour")
    code, _, err = supervised.end()
    assert code == 9
    assert "the nursery keeps dying" in err
    assert "ValueError" in err
    assert "Traceback" not in err
    assert "Traceback" in (home / "log" / "nursery.log").read_text()
    assert len(re.findall("event=nursery ", supervised.log("supervisor"))) <= 4


def test_supervisor_refuses_a_home_when_a_worker_s_log_is_a_folder(supervise: Supervise, home: Path) -> None:
    """No restart mends it: exit 7 with the path and the reason, and nobody stays behind."""
    (home / "log" / "memory.0.log").mkdir(parents=True)
    home.chmod(0o700)
    supervised = supervise()
    code, out, err = supervised.end()
    assert code == 7
    assert "ready" not in out
    assert f"homeostat: {home}/log/memory.0.log: is a directory" in err
    assert "Traceback" not in err
    assert "event=forked worker=executor.0" not in supervised.log("supervisor")


def test_supervisor_stops_its_workers_in_order_when_no_other_nursery_can_be_made(
    supervise: Supervise, home: Path
) -> None:
    """A system that refuses it is told in one message, exit 7, after everyone has drained."""
    supervised = supervise()
    supervised.ready()
    log = home / "log" / "nursery.log"
    log.rename(log.with_suffix(".moved"))
    log.mkdir()
    os.kill(supervised.nursery(), signal.SIGKILL)
    code, _, err = supervised.end()
    assert code == 7
    assert f"homeostat: {log}: is a directory" in err
    assert "Traceback" not in err
    assert len(re.findall('how="exited with 0"', supervised.log("supervisor"))) == 5


def test_supervisor_exits_with_the_worker_s_error_when_it_is_fatal(supervise: Supervise) -> None:
    """An error that no restart can mend stops everything, with its own words and exit code."""
    supervised = supervise(fake="gate.0=fatal")
    code, _, err = supervised.end()
    assert code == 7
    assert "homeostat: the journal is newer\n  Upgrade homeostat." in err
    assert "Traceback" not in err
    assert supervised.log("gate.0").count("start ") == 1


def test_second_supervisor_is_refused_when_one_runs(supervise: Supervise) -> None:
    """One home, one supervisor; the refusal names the pid and the first one is not disturbed."""
    first = supervise()
    first.ready()
    second = supervise()
    code, _, err = second.end()
    assert code == 7
    assert f"(pid {first.process.pid})" in err
    assert "Traceback" not in err
    assert first.status().ready


def test_supervisor_refuses_a_home_when_its_path_is_too_long(home: Path) -> None:
    """A unix socket's path has 107 bytes; the refusal names the length and the remedy, and makes nothing."""
    long = home / ("x" * 100)
    supervised = Supervised(long)
    try:
        code, _, err = supervised.end()
    finally:
        supervised.close()
    assert code == 7
    assert f"{len(str(long / 'run' / 'terminal.63.sock'))} bytes are too long" in err
    assert "--home" in err
    assert not long.exists()


def test_supervisor_refuses_a_home_when_it_is_a_file(home: Path) -> None:
    """A home that can't be a folder is one clear message."""
    home.write_text("not a folder")
    supervised = Supervised(home)
    try:
        code, _, err = supervised.end()
    finally:
        supervised.close()
    assert code == 7
    assert str(home) in err
    assert "Traceback" not in err


@pytest.mark.unprivileged
def test_supervisor_refuses_a_home_when_it_is_not_writable(home: Path) -> None:
    """The file system's refusal becomes one clear message."""
    home.parent.chmod(0o511)
    supervised = Supervised(home)
    try:
        code, _, err = supervised.end()
    finally:
        supervised.close()
        home.parent.chmod(0o711)
    assert code == 7
    assert "permission denied" in err
    assert "Traceback" not in err


def test_supervisor_is_reported_ready_to_systemd_when_all_serve(
    supervise: Supervise, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY=1 after the last worker, STOPPING=1 at the stop. STATUS lines come between."""
    import socket

    path = home.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        supervised = supervise()
        supervised.ready()
        said = iter(lambda: manager.recv(256), None)
        words = (one for one in said if not one.startswith(b"STATUS="))
        assert next(words) == f"READY=1\nMAINPID={supervised.process.pid}".encode()
        supervised.process.send_signal(signal.SIGTERM)
        assert next(words) == b"STOPPING=1"
        assert supervised.end()[0] == 0


def test_control_port_refuses_in_words_when_it_does_not_understand(supervise: Supervise) -> None:
    """Garbage, a future version and an unknown type get a typed refusal, and the port goes on."""
    import socket

    import msgspec

    supervised = supervise()
    supervised.ready()
    cases = [
        (b"\xc1", "malformed"),
        (msgspec.msgpack.encode({"v": 2, "type": "status"}), "version"),
        (msgspec.msgpack.encode({"v": 1, "type": "dance"}), "malformed"),
        (msgspec.msgpack.encode({"v": 1, "type": "status", "more": 1}), "malformed"),
        (bytes(10_000), "too_large"),
    ]
    for packet, code in cases:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.connect(str(supervised.home / "run" / "control.sock"))
            caller.send(packet)
            reply = msgspec.msgpack.decode(caller.recv(65536))
        assert (reply["type"], reply["code"]) == ("refused", code)
    assert supervised.status().ready


def test_supervisor_refuses_its_metrics_address_when_it_is_taken(supervise: Supervise) -> None:
    """An address in use is an error of the configuration that names its key."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = supervise(SETTINGS.replace("127.0.0.1:0", f"127.0.0.1:{port}")).end()
    assert code == 2
    assert "metrics.listen" in err
    assert "Traceback" not in err


FULL_DISK = """
mount -t tmpfs -o size=32k none "$1"
cat /dev/zero >"$1/filler" 2>/dev/null
exec "$2" -c "$3" "$1" "$4"
"""


@pytest.mark.root
def test_supervisor_refuses_a_home_when_its_disk_is_full(home: Path) -> None:
    """A full file system is told at the start, in one message."""
    home.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL_DISK, "sh", str(home), sys.executable, PROGRAM, SETTINGS],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "no space left on device" in done.stderr
    assert "Traceback" not in done.stderr
