"""Commands that wait for what never comes: recognised, ended and told, and nobody else is."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.sandbox import protocol
from tests.integration.executor.bench import Bench

DEADLINE_S = 600.0
"""So far away that only recognising can end a command within the test's own limit."""


@pytest.mark.parametrize(
    ("command", "prompt"),
    [
        ("echo begun; read -p 'Really? [y/N] ' x", "begun\nReally? [y/N] "),
        ("python3 -c 'input(\"name: \")'", "name: "),
        ("sleep 0.5; stty -echo; printf 'Password: '; read x", "Password: "),
        ("cat", ""),
    ],
)
def test_command_that_waits_for_input_is_ended_with_its_prompt(
    bench: Bench, command: str, prompt: str
) -> None:
    """The status, the prompt, what can be done about it; and what it wrote is thrown away."""
    ended = bench.shell(f"echo x > lost; {command}", pty=True, deadline_s=DEADLINE_S)
    assert ended.status == "waiting_for_input"
    text, _, words = ended.text.rpartition("[")
    assert text.rstrip("\n") == prompt.rstrip("\n")
    assert "give the answer in `stdin`" in words
    assert "terminal.open" in words
    assert "thrown away" in words
    assert not (bench.workspace / "lost").exists()


def test_command_that_gets_its_answer_is_not_ended(bench: Bench) -> None:
    """Input was given, and used."""
    ended = bench.shell("read x; sleep 0.5; echo got $x", pty=True, stdin="fine\n")
    assert (ended.status, ended.text) == ("ok", "fine\ngot fine\n")


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1.5; echo end",
        "for i in 1 2 3 4 5 6; do sleep 0.25; echo -n; done; echo end",
        "set -m; cat & sleep 1.5; echo end",
    ],
    ids=["sleeping", "computing", "stopped reader in the background"],
)
def test_silent_command_is_not_taken_for_a_waiting_one(bench: Bench, command: str) -> None:
    """Longer than it takes to recognise one that waits, it goes on to its end."""
    ended = bench.shell(command, pty=True, deadline_s=DEADLINE_S)
    assert (ended.status, ended.text.splitlines()[-1]) == ("ok", "end")


def test_command_without_a_terminal_is_never_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look, no cost."""
    looked: list[int] = []
    monkeypatch.setattr(bench.worker._sandboxes._client, "look", looked.append)
    assert bench.shell("sleep 1; echo end").text == "end\n"
    assert not looked


def test_frozen_command_does_not_wait_for_input(own: Bench) -> None:
    """Nobody looks at what stands still."""
    own.own_workspace()
    key = own.send("shell.run", "once", command="sleep 0.1; read x", pty=True, deadline_s=DEADLINE_S)
    args = msgspec.json.encode({"command": "sleep 0.1; read x", "pty": True})
    words = (key, "t1", "shell.run", args, "once", str(own.workspace), DEADLINE_S, 1 << 20, True)
    own.worker.on_message(m.Execute(*words, True))  # type: ignore[arg-type]
    own.wait(lambda: m.Halted(key) in own.answers(key))
    until = time.monotonic() + 1.5
    own.wait(lambda: time.monotonic() > until)
    assert own.answers(key) == [m.Halted(key)]
    own.worker.on_message(m.Execute(*words, False))  # type: ignore[arg-type]
    own.wait(lambda: isinstance(own.answers(key)[-1], m.Ended))
    assert own.answers(key)[-1].status == "waiting_for_input"  # type: ignore[union-attr]


def test_kernel_that_permits_no_look_is_told_and_the_deadline_ends_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Degraded, visibly: a note says that nobody could see whether it waited."""
    sandboxes = bench.worker._sandboxes
    real = sandboxes._looked

    def blind(running: object, message: protocol.Looked) -> None:
        real(running, protocol.Looked(message.id, "unseen"))  # type: ignore[arg-type]

    monkeypatch.setattr(sandboxes, "_looked", blind)
    ended = bench.shell("read x", pty=True, timeout_s=1.0)
    assert ended.status == "timeout"
    assert "could not be seen" in ended.note


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
def test_command_that_prints_nothing_for_too_long_is_ended(bench: Bench, pty: bool) -> None:
    """The idle deadline: each line begins it anew, and the words say which deadline it was."""
    command = "for i in 1 2 3; do sleep 0.3; echo $i; done; sleep 1000"
    ended = bench.shell(command, pty=pty, idle_s=0.8, deadline_s=DEADLINE_S)
    assert ended.status == "timeout"
    assert ended.text == (
        "1\n2\n3\n[killed: it had printed nothing for 0.8 s; its changes to files were thrown away]"
    )


def test_binary_output_is_named_and_kept(bench: Bench) -> None:
    """The model gets a line, the artifact has the bytes."""
    ended = bench.shell("echo data | gzip -n")
    assert ended.text.startswith(f"[binary output of {ended.output_bytes} bytes, it looks like gzip data;")
    assert ended.artifact in ended.text
    artifact = bench.home / "artifacts" / ended.artifact[:2] / ended.artifact
    assert artifact.read_bytes().startswith(b"\x1f\x8b")
    assert "binary output" in ended.note


def test_flood_of_output_costs_no_memory(bench: Bench) -> None:
    """200 MB: the peak of resident memory grows by less than 8 MB, and every byte is in the artifact."""
    bench.shell("head -c 1000000 /dev/zero | tr '\\0' x")
    before = resident_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    key = bench.send(
        "shell.run", "read", command="yes 0123456789abcde | head -c 200000000", output_limit_bytes=1 << 30
    )
    ended = bench.ended(key)
    assert ended.output_bytes == 200_000_000
    assert (bench.home / "artifacts" / ended.artifact[:2] / ended.artifact).stat().st_size == 200_000_000
    assert resident_kb("VmHWM") - before < 8_000


def resident_kb(name: str) -> int:
    """The resident memory of this process as proc_pid_status(5) names it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
