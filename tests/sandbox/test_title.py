"""What a sandbox can read of the process that made it: no argument, variable or name of it."""

from homeostat.sandbox.profile import Limits, Profile
from tests.sandbox.stand import Stand

LOOK = """
import os
def reading(path):
    try:
        with open(path, "rb") as file: return file.read()
    except (FileNotFoundError, PermissionError) as error: return type(error).__name__.encode()
print(reading("/proc/1/cmdline"), reading("/proc/1/comm"))
for number in filter(str.isdigit, os.listdir("/proc")):
    for name in ("cmdline", "environ"):
        print(number, name, reading(f"/proc/{number}/{name}").replace(OWN, b""))
"""
HOSTS = ("zygote_host", "python -", "cgroup", "landlock", "API_KEY", "ARMED", "homeostat")
"""Of the words and variables that a test's zygote was started with."""


def test_first_process_is_called_init_and_shows_nothing_of_the_host(stand: Stand) -> None:
    """Under both its names, cold and armed; nor does who waited to become the command, while it is there."""
    source = "OWN = open('/proc/self/cmdline', 'rb').read()\n" + LOOK
    for _ in range(3):
        result = stand.python(source)
        assert result.out.splitlines()[0] == r"b'init\x00' b'init\n'"
        assert not [word for word in HOSTS if word in result.out], result.out


def test_command_that_takes_its_place_shows_its_own_arguments(stand: Stand) -> None:
    """Where an exec replaces the process that waited, its title goes with it."""
    result = stand.shell("tr '\\0' ' ' < /proc/$$/cmdline; cat /proc/$$/comm; :",
                         profile=Profile(limits=Limits(processes=2)))  # fmt: skip
    assert result.out.startswith("bash -c tr")
    assert result.out.endswith("bash\n")


def test_builtin_shows_nothing_of_the_zygotes_arguments_and_variables(stand: Stand) -> None:
    """It is a fork of the zygote that execs nothing: what that was started with is wiped."""
    result = stand.run([f"OWN = b'nothing'\n{LOOK}".encode()], builtin="attack")
    assert result.code == 0
    assert result.out.count("init") >= 2
    assert not [word for word in HOSTS if word in result.out], result.out
