"""What /proc says of a process, beside what psutil says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest

from homeostat.supervisor.usage import Usage, usage


def test_usage_agrees_with_psutil_of_a_process_that_rests() -> None:
    """Memory, descriptors and threads of a child with a known number of each."""
    script = "import os, sys, threading; e = threading.Event(); [threading.Thread(target=e.wait, daemon=True).start() for _ in range(3)]; [os.open('/dev/null', 0) for _ in range(10)]; print(flush=True); sys.stdin.read()"  # fmt: skip  # noqa: E501
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        child.stdout.readline()
        found, other = usage(child.pid), psutil.Process(child.pid)
        assert isinstance(found, Usage)
        assert (found.threads, found.open_files) == (other.num_threads(), other.num_fds())
        assert (found.threads, found.open_files) == (4, 13)
        # The kernel gathers this count from each processor, now and then.
        assert found.memory_bytes == pytest.approx(other.memory_info().rss, rel=0.2)
    child.wait(60)


def test_usage_counts_processor_time_of_work() -> None:
    """Two looks at ourselves with work between."""
    before = usage(os.getpid())
    for _ in range(40):
        sum(range(400_000))
    after = usage(os.getpid())
    assert before is not None
    assert after is not None
    assert after.cpu_s > before.cpu_s


def test_usage_is_none_when_the_process_is_gone() -> None:
    """Reaped: the kernel has nothing to say."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(60)
    assert usage(child.pid) is None


def test_usage_reads_a_name_that_imitates_the_line() -> None:
    """A process may be called ``) R 1 2``."""
    done, ready = threading.Event(), threading.Event()

    def named() -> None:
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as file:
            file.write(") R 1 (2")
        ready.set()
        done.wait(60)

    thread = threading.Thread(target=named)
    thread.start()
    ready.wait(60)
    found = usage(thread.native_id or 0)
    done.set()
    thread.join()
    assert found is not None
    assert found.threads >= 2
