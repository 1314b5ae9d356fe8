"""How it feels inside: who and where one is, what the machine looks like, what persists."""

from __future__ import annotations

import pytest

from tests.compatibility.workbench import Workbench, needs


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("whoami; id -un; id -gn; id -u", "sandbox\nsandbox\nsandbox\n1000\n"),
        ("hostname; uname -n; cat /etc/hostname", "sandbox\nsandbox\nsandbox\n"),
        ("echo $HOME ~ $USER $LOGNAME $SHELL", "/tmp /tmp sandbox sandbox /bin/bash\n"),
        ("echo $PWD; pwd -P; cd; pwd", "/workspace\n/workspace\n/tmp\n"),
        ("umask; touch f; stat -c %a f; mkdir d; stat -c %a d", "0022\n644\n755\n"),
        ("echo ${TMPDIR:-/tmp}; touch /tmp/x /var/tmp/x && echo both", "/tmp\nboth\n"),
        ("echo x > /dev/shm/x && cat /dev/shm/x && stat -fc %T /dev/shm", "x\ntmpfs\n"),
        ("touch a; mkdir d; TERM=xterm ls --color=always | cat -v", "a\n^[[0m^[[01;34md^[[0m\n"),
        ("ls --color=auto -d .", ".\n"),
        ("sleep 100 & ps -eo user:9,comm= | grep -c '^sandbox .* sleep$'; kill %1", "1\n"),
        ("echo $TERM; tput cols 2>/dev/null || echo none", "dumb\n80\n"),
        ("locale | grep -E '^(LANG|LC_ALL)='; python3 -c 'print(chr(233))'", "LANG=C.UTF-8\nLC_ALL=\né\n"),
        ("test -r /proc/self/status && test -d /sys || echo no sys", "no sys\n"),
        ("getent hosts localhost | cut -c-14 | tr -s ' '; getent passwd 1000 | cut -d: -f6", "::1 \n/tmp\n"),
        ("ulimit -c; ulimit -n; ulimit -u", "0\n1024\n512\n"),
        ("(exit 3); echo $?; kill -TERM $BASHPID; echo never", "3\n[killed by SIGTERM]"),
        ("date +%Z; test -n \"$(date)\" && echo clock", "UTC\nclock\n"),
        ("echo a | tee /dev/stderr | cat > /dev/stdout; cat <(echo b) /dev/fd/0 < /dev/null", "a\na\nb\n"),
    ],
)  # fmt: skip
def test_sandbox_looks_like_a_small_machine(work: Workbench, command: str, expected: str) -> None:
    """No name, user or path of the machine outside, and no surprise for a program."""
    assert work.run(command).text == expected


@needs("ps")
def test_sizes_are_sensible_when_asked(work: Workbench) -> None:
    """free, nproc and df answer, with something to spend."""
    text = work.output(
        "nproc; free -m | awk '/Mem/ {print $2}'; df -Pm . /tmp /dev/shm | awk 'NR>1 {print $4}'"
    )
    assert len(text.split()) == 5
    assert all(int(word) > 0 for word in text.split()), text


def test_home_is_of_one_call_only_and_the_workspace_stays(work: Workbench) -> None:
    """A file in HOME is gone with its command; one in the workspace is there for the next."""
    work.output("echo kept > here; echo lost > ~/there", "staged")
    assert work.output("cat here; ls -A ~") == "kept\n"


@needs("top")
def test_top_and_ps_count_the_sandbox_alone(work: Workbench) -> None:
    """Nothing of the machine's processes."""
    assert "sandbox" in work.output("top -bn1 | sed -n '8,$p'")
    assert int(work.output("ps -e | wc -l")) < 8
