"""The guardian of a daemon: starts the supervisor again when it dies without having been told to.

Owns: one child, the supervisor; the lock on ``run/guardian.pid``; whether another start is worth trying.
Must not know: anything of homeostat: a program of its own (``python -I -S``), it stays small, and what breaks
    the supervisor breaks nothing here.
Invariants: idle, it sleeps in one poll without an end; a commanded stop is never undone; nothing that a dead
    supervisor had started is alive when the next one starts.
Source: Erlang's heart; prctl(2) PR_SET_CHILD_SUBREAPER (set before the exec, kept by it). `Restarts` repeats
    what supervisor/restart.py decides: importing that would double the memory.
"""

from __future__ import annotations

# The C half of `signal`: the other half makes enums of its numbers, and those cost 0.8 MB.
import _signal  # type: ignore[import-not-found]
import os
import select
import sys
import time

REPORT_FD, LOCK_FD = 3, 4
SIGHUP, SIGINT, SIGKILL, SIGTERM = 1, 2, 9, 15
LASTING = {
    2: "its settings can't be used",
    7: "its home can't be used",
    8: "the kernel lacks a protection",
}
"""Exit codes of a supervisor that no restart mends. Not 9 (a worker kept crashing): a fresh tree may do."""
FAILED, GAVE_UP = 1, 9
FAILED_STARTS = 3
SWEEP_S = 10.0
"""Longest wait for what a dead supervisor leaves: killed, but perhaps in the middle of a sync."""
TEXT_LIMIT_BYTES = 4096
LOG = "log/guardian.log"
LOG_LIMIT_BYTES = 1 << 20


class Rhythm:
    """How many restarts, and how far apart."""

    def __init__(
        self, intensity: int, period_s: float, base_s: float, max_s: float, healthy_s: float
    ) -> None:
        self.intensity, self.period_s = intensity, period_s
        self.base_s, self.max_s, self.healthy_s = base_s, max_s, healthy_s


class Restarts:
    """What has failed so far, and what follows from it. Pure: the time and the random value are arguments."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._failures_s: list[float] = []
        self._failed_starts = 0
        self._attempts = 0

    def failed(self, code: int, now_s: float, served_s: float | None, random: float) -> tuple[float, str]:
        """Count an end; give the delay before the next start, and why there is to be none (empty: there is).

        ``code`` is an exit code, or a signal's number below zero; ``served_s`` is None if it never served.
        """
        if code in LASTING:
            return 0.0, LASTING[code]
        rhythm = self._rhythm
        healthy = served_s is not None and served_s >= rhythm.healthy_s
        self._failures_s = [at for at in self._failures_s if now_s - at < rhythm.period_s] + [now_s]
        self._failed_starts = self._failed_starts + 1 if served_s is None else 0
        self._attempts = 1 if healthy else self._attempts + 1
        if self._failed_starts >= FAILED_STARTS:
            return 0.0, f"{self._failed_starts} starts in a row failed"
        if len(self._failures_s) > rhythm.intensity:
            return 0.0, f"it died {len(self._failures_s)} times in {rhythm.period_s:g} s"
        if self._attempts > rhythm.intensity:
            return 0.0, f"it died {self._attempts} times, never after {rhythm.healthy_s:g} s of service"
        if self._attempts <= 1:
            return 0.0, ""
        return random * min(rhythm.max_s, rhythm.base_s * 2.0 ** min(self._attempts - 2, 62)), ""


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"


class Incarnation:
    """One supervisor, and the pipes of its two outputs."""

    def __init__(self, command: list[str]) -> None:
        """Start it. Raises OSError."""
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        try:
            self.pid = os.posix_spawn(
                command[0],
                [*command, str(os.getpid())],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ],
                setsid=True,  # What is sent to the guardian's group is for the guardian to pass on.
                setsigmask=[SIGHUP],  # Until it has a handler: a reload must not end a start.
            )
        except OSError:
            self.close()
            raise
        finally:
            os.close(out)
            os.close(err)
        self.pidfd = os.pidfd_open(self.pid)
        for fd in (self.out, self.err):
            os.set_blocking(fd, False)
        self.served_at_s: float | None = None
        self.words = b""
        self.text = b""

    def hear(self) -> list[bytes]:
        """Give the new whole lines of its standard output."""
        *lines, self.words = (self.words + _drained(self.out))[-TEXT_LIMIT_BYTES:].split(b"\n")
        return lines

    def complain(self) -> None:
        """Keep the last of its standard error."""
        self.text = (self.text + _drained(self.err))[-TEXT_LIMIT_BYTES:]

    def served_s(self, now_s: float) -> float | None:
        """How long it has served."""
        return None if self.served_at_s is None else now_s - self.served_at_s

    def reap(self) -> int:
        """Give its exit code, or its signal below zero."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.complain()
        os.close(self.pidfd)
        self.close()
        return code

    def close(self) -> None:
        """Give the pipes back."""
        os.close(self.out)
        os.close(self.err)


def _drained(fd: int) -> bytes:
    """What is in a pipe now."""
    found = b""
    try:
        while data := os.read(fd, 65_536):
            found = (found + data)[-65_536:]
    except BlockingIOError:
        pass  # Its writer lives, and has said no more yet.
    return found


def sweep() -> bool:
    """Kill and reap all that a dead supervisor left to us, its subreaper; give whether that was all."""
    until_s = time.monotonic() + SWEEP_S
    while time.monotonic() < until_s:
        for pid in _children():
            try:
                os.kill(pid, SIGKILL)  # Ours and not reaped, so the number is still its own.
            except (ProcessLookupError, PermissionError):
                continue  # A sandbox's, under a user of its own: it dies with its init, or is told as left.
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        time.sleep(0.002)
    return False


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []  # No CONFIG_PROC_CHILDREN: PDEATHSIG alone must do, and we wait for it.


class Guardian:
    """One daemon's guardian."""

    def __init__(self, rhythm: Rhythm, stop_s: float, command: list[str]) -> None:
        self._restarts = Restarts(rhythm)
        self._stop_s = stop_s
        self._command = command
        self._report: int | None = REPORT_FD
        self._stopping = False
        self._kill_at_s: float | None = None
        self._now: Incarnation | None = None
        self._wake, wake = os.pipe()
        for fd in (self._wake, wake):
            os.set_blocking(fd, False)
        for number in (SIGTERM, SIGINT, SIGHUP):
            _signal.signal(number, lambda *_: None)  # The byte in the pipe is what counts.
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)

    def run(self) -> int:
        """Guard until there is nothing left to guard; give the exit code."""
        while not self._stopping:
            done = self._round()
            if done is not None:
                return done
        log("info", "stopped", reason="told to stop while no supervisor ran")
        return 0

    def _round(self) -> int | None:
        """One supervisor from its start to its end; give our exit code if it was the last."""
        try:
            now = Incarnation(self._command)
        except OSError as error:
            reason = f"{self._command[0]} can't be started: {error.strerror}"
            log("error", "not_started", reason=reason)
            return self._again(FAILED, None, reason.encode())
        log("info", "start", supervisor=now.pid)
        code = self._live(now)
        if not sweep():
            log("error", "left_behind", reason=f"processes that did not die within {SWEEP_S:g} s")
        served_s = now.served_s(time.monotonic())
        log(
            "info" if code == 0 else "error", "ended", supervisor=now.pid, how=ending(code), served_s=served_s
        )
        if self._report is None and (code == 0 or self._stopping):  # Nothing but a stop gives 0.
            log("info", "stopped", reason="it was told to stop", exit_code=max(code, 0))
            return code if code >= 0 else 128 - code
        return self._again(code, served_s, now.text)

    def _live(self, now: Incarnation) -> int:
        """Attend to one supervisor until it is dead; give how it ended."""
        self._now = now
        handlers = {self._wake: self._on_signals, now.out: self._on_words, now.err: now.complain}
        for fd in (now.out, now.err, now.pidfd):
            self._poll.register(fd, select.POLLIN)
        dead = False
        while not dead:
            for fd, event in self._poll.poll(self._patience_ms()):
                if fd == now.pidfd:
                    dead = True
                else:
                    handlers[fd]()
                    if not event & select.POLLIN:
                        self._poll.unregister(fd)  # Its end was closed: nothing more will come of it.
            self._kill_if_late(now)
        self._on_words()  # What it said last may have come together with its end.
        for fd in (now.out, now.err, now.pidfd):
            try:
                self._poll.unregister(fd)
            except KeyError:
                continue  # Closed before, see above.
        self._now = None
        return now.reap()

    def _patience_ms(self) -> float | None:
        return None if self._kill_at_s is None else max(0.0, self._kill_at_s - time.monotonic()) * 1_000

    def _kill_if_late(self, now: Incarnation) -> None:
        """A supervisor that is told to stop and does not, as one that SIGSTOP holds, is killed."""
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
            log("error", "killed", supervisor=now.pid, reason=f"still stopping after {self._stop_s:g} s")
            os.kill(now.pid, SIGKILL)
            self._kill_at_s = None

    def _on_words(self) -> None:
        """``ready …`` once it serves, ``stopping`` once it was told to stop, by whomever."""
        assert self._now is not None  # noqa: S101  only called while there is one
        for line in self._now.hear():
            if line.startswith(b"ready "):
                self._now.served_at_s = time.monotonic()
                log("info", "serving", supervisor=self._now.pid)
                self._tell(line + b"\n")
            elif line == b"stopping":
                self._stop()

    def _on_signals(self) -> None:
        for number in set(os.read(self._wake, 4096)):
            if self._now is not None:
                os.kill(self._now.pid, number)
            if number != SIGHUP:
                self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._kill_at_s = time.monotonic() + self._stop_s

    def _again(self, code: int, served_s: float | None, said: bytes) -> int | None:
        """Decide after an end: give our own exit code, or None to start again, the delay being over."""
        if self._report is not None:
            return self._never_served(code, said)
        random = int.from_bytes(os.urandom(4), "big") / 2**32
        delay_s, reason = self._restarts.failed(code, time.monotonic(), served_s, random)
        if reason:
            return self._give_up(code if code in LASTING else GAVE_UP, reason, said)
        log("warning", "restart", delay_s=delay_s, said=said.decode("utf-8", "replace").strip() or None)
        self._rest(delay_s)
        return None

    def _never_served(self, code: int, said: bytes) -> int:
        """The first start failed: who started us waits for the reason, and may mend it."""
        reason = f"the supervisor {ending(code)} before it served"
        if self._stopping:
            reason = "it was told to stop before it served"
        text = said.strip() or f"homeostat: {reason}\n  See {os.getcwd()}/log.".encode()
        code = code if code > 0 else FAILED
        self._tell(b"failed %d\n%s" % (code, text))
        return self._give_up(code, reason, said)

    def _give_up(self, code: int, reason: str, said: bytes) -> int:
        log(
            "error",
            "gave_up",
            reason=reason,
            exit_code=code,
            said=said.decode("utf-8", "replace").strip() or None,
        )
        return code

    def _rest(self, delay_s: float) -> None:
        """Wait; a stop ends it early."""
        until_s = time.monotonic() + delay_s
        while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
            if self._poll.poll(left_s * 1_000 + 1):
                self._on_signals()

    def _tell(self, text: bytes) -> None:
        """Tell who started us, once: it waits for this."""
        if self._report is None:
            return
        try:
            os.write(self._report, text)
        except OSError as error:
            log("warning", "caller_gone", reason=error.strerror)
        os.close(self._report)
        self._report = None


def log(level: str, event: str, **fields: object) -> None:
    """Write one line. The file is opened for each, so whoever rotates logs need not tell us."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1_000)  # noqa: UP031  short
    words = [f"at={at}", f"level={level}", f"event={event}"]
    for key, value in fields.items():
        if isinstance(value, float):
            words.append(f"{key}={value:.3f}")
        elif value is not None:
            words.append(f"{key}={_quoted(str(value))}")
    try:
        _write((" ".join(words) + "\n").encode("utf-8", "replace"))
    except OSError:
        return  # A full disk: guarding goes on, and nobody is left whom this could be told.


def _quoted(value: str) -> str:
    """A value as logfmt has it (supervisor/log.py): it can't break out of its line."""
    if value and all(char.isprintable() and char not in ' "=\\' for char in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(char if char.isprintable() else "?" for char in escaped) + '"'


def _write(line: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(LOG, flags, 0o600)
    try:
        if os.fstat(fd).st_size > LOG_LIMIT_BYTES:
            os.rename(LOG, LOG + ".1")
            os.close(fd)
            fd = os.open(LOG, flags, 0o600)
        os.write(fd, line)
    finally:
        os.close(fd)


def main(arguments: list[str]) -> int:
    """Guard: five numbers of the rhythm, the seconds that a stop may take, then the command."""
    for fd in (REPORT_FD, LOCK_FD):
        os.set_inheritable(fd, False)
    os.ftruncate(LOCK_FD, 0)
    os.pwrite(LOCK_FD, b"%d\n" % os.getpid(), 0)
    intensity, *times_s, stop_s = arguments[:6]
    rhythm = Rhythm(int(intensity), *(float(one) for one in times_s))
    return Guardian(rhythm, float(stop_s), arguments[6:]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
