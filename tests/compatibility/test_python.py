"""Python as people use it: environments, wheels, tests, and servers of every kind on the loopback."""

from __future__ import annotations

import base64
import hashlib
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.compatibility.workbench import Workbench, needs

pytestmark = needs("python3")

METADATA = "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py.py")
"""What pytest consists of: pure Python, so that any interpreter can run a copy."""

TESTS = """
import os, pytest
@pytest.mark.parametrize("n", range(20))
def test_square(n, tmp_path):
    (tmp_path / "f").write_text(str(n * n))
    assert int((tmp_path / "f").read_text()) == n ** 2
def test_fails(): assert os.sep == ":"
"""
CLIENT = """
import socket, sys
def ask(word):
    with socket.create_connection(("127.0.0.1", int(open("port").read()))) as c:
        c.sendall(word + b"\\n"); c.shutdown(socket.SHUT_WR)
        return c.makefile("rb").read()
"""
SERVER = """
import socketserver, threading, os
from client import ask
class Echo(socketserver.StreamRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline().upper())
with socketserver.{kind}(("127.0.0.1", 0), Echo) as server:
    open("port", "w").write(str(server.server_address[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert [ask(b"word%d" % n) for n in range(30)] == [b"WORD%d\\n" % n for n in range(30)]
    server.shutdown()
print("served by", "{kind}")
"""
ASYNCIO = """
import asyncio
async def serve(reader, writer):
    writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
async def ask(port, n):
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(b"word%d\\n" % n)
    answer = await reader.read(); writer.close()
    return answer
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers = await asyncio.gather(*(ask(port, n) for n in range(100)))
    assert answers == [b"WORD%d\\n" % n for n in range(100)]
    ran = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
    print((await ran.communicate())[0].decode(), await asyncio.to_thread(lambda: "thread"), sep="")
asyncio.run(main())
"""
POOLS = """
import concurrent.futures as f, multiprocessing as m, functools, math
from multiprocessing import shared_memory
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with m.get_context(method).Pool(2) as pool:
            assert pool.map(math.factorial, range(5)) == [1, 1, 2, 6, 24]
    with f.ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(abs, range(-100, 0))) == 5050
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    memory.buf[:3] = b"abc"; memory.close(); memory.unlink()
    print("pools")
"""
SURROUNDINGS = """
import ctypes.util, getpass, locale, os, platform, pwd, socket, sqlite3, ssl
import tempfile, zoneinfo
assert pwd.getpwuid(os.getuid()).pw_dir == os.path.expanduser("~") == "/tmp"
assert getpass.getuser() == pwd.getpwuid(os.getuid()).pw_name
assert tempfile.gettempdir() == "/tmp"
assert locale.getpreferredencoding() == "UTF-8"
assert socket.gethostbyname("localhost") == "127.0.0.1" == socket.gethostbyname(socket.gethostname())
assert sqlite3.connect(":memory:").execute("select 6*7").fetchone() == (42,)
assert str(zoneinfo.ZoneInfo("Europe/Berlin")) == "Europe/Berlin"
ssl.create_default_context()
print(platform.system(), os.cpu_count() >= 1, os.sched_getaffinity(0) != set())
"""


def make_wheel(folder: Path) -> Path:
    """A wheel of one module with a console script."""
    files = {
        "greeter.py": "def main():\n    print('greetings')\n",
        "greeter-1.0.dist-info/METADATA": METADATA,
        "greeter-1.0.dist-info/WHEEL": WHEEL,
        "greeter-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
    }
    record = "greeter-1.0.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    path = folder / "greeter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, record: "\n".join([*lines, f"{record},,", ""])}.items():
            archive.writestr(name, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def test_pip_installs_a_wheel_into_an_environment_offline(work: Workbench, tmp_path: Path) -> None:
    """An environment with its pip, made on a stage; the next command uses what it installed."""
    work.bench.file("greeter-1.0-py3-none-any.whl", make_wheel(tmp_path).read_bytes())
    work.output(
        "python3 -m venv env && env/bin/pip install -q --no-index ./greeter-1.0-py3-none-any.whl", "staged"
    )
    assert work.output(
        "env/bin/greet && . env/bin/activate && python -c 'import greeter, sys; print(sys.prefix)'"
    ) == ("greetings\n/workspace/env\n")
    assert "greeter" in work.output("env/bin/pip list --format=freeze; env/bin/pip uninstall -qy greeter")


def test_pip_says_that_there_is_no_network_when_it_needs_one(work: Workbench) -> None:
    """Soon, in its words, and not after minutes."""
    result = work.run("python3 -m pip download --retries 0 --timeout 5 six 2>&1")
    assert result.status == "error"
    assert "No matching distribution found for six" in result.text


def test_pytest_runs_a_suite(work: Workbench) -> None:
    """Tests pass and fail as they should, with their cache and temporary folders."""
    packages = Path(sysconfig.get_path("purelib"))
    for name in PYTEST:
        if (packages / name).exists():
            work.copy(packages / name, f"site/{name}")
    work.file("test_it.py", TESTS)
    result = work.run("PYTHONPATH=site python3 -m pytest -q test_it.py", "staged")
    assert result.exit_code == 1
    assert "1 failed, 20 passed" in result.text
    assert "1 failed" in work.run("PYTHONPATH=site python3 -m pytest -q --lf test_it.py").text


@pytest.mark.parametrize("kind", ["ThreadingTCPServer", "ForkingTCPServer"])
def test_server_serves_on_the_loopback(work: Workbench, kind: str) -> None:
    """Thirty connections, each in a thread or a process of its own."""
    work.file("client.py", CLIENT)
    work.file("serve.py", SERVER.replace("{kind}", kind))
    assert work.output("python3 serve.py") == f"served by {kind}\n"


def test_asyncio_serves_on_the_loopback(work: Workbench) -> None:
    """A hundred connections at once, a child process and a thread beside them."""
    work.file("a.py", ASYNCIO)
    assert work.output("python3 a.py") == "child\nthread\n"


def test_server_of_two_commands_is_reached_by_curl(work: Workbench) -> None:
    """`python -m http.server` in the background of one command line."""
    assert (
        work.output(
            "echo page > index.html; python3 -m http.server -b 127.0.0.1 8000 >/dev/null 2>&1 & "
            "for i in $(seq 200); do curl -sf http://localhost:8000/ && break; sleep 0.05; done; kill %1"
        )
        == "page\n"
    )


def test_pools_of_processes_and_threads_work(work: Workbench) -> None:
    """Semaphores and shared memory in /dev/shm, and all three ways to start a process."""
    work.file("pools.py", POOLS)
    assert work.output("python3 pools.py 2>&1") == "pools\n"


def test_python_finds_its_surroundings(work: Workbench) -> None:
    """User, home, zones, certificates, names, encodings."""
    work.file("s.py", SURROUNDINGS)
    assert work.output("python3 -W error s.py") == "Linux True True\n"
