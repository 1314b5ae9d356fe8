"""What a reload changes: every setting has its means, and what can't be taken over stays as it was."""

import pytest

from homeostat.proto import config
from homeostat.supervisor.reload import MEANS, Plan, changed, means, plan
from tests.contract.test_operations_doc import settings

AGENTS = '[[agent]]\nname = "default"\n[[agent]]\nname = "other"\n'


def planned(new: str, old: str = "") -> Plan:
    """From one text to another."""
    return plan(config.parse(old), config.parse(new))


def test_every_setting_has_its_means() -> None:
    """By its section at least; and the table names nothing that isn't there."""
    keys = {key for key, _, _ in settings(config.Config)}
    covered = {key for key in keys if any(key == name or key.startswith(f"{name}.") for name in MEANS)}
    assert keys == covered
    assert all(any(key == name or key.startswith(f"{name}.") for key in keys) for name in MEANS)


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("[quotas]\nopen_tasks = 5", ("gate",)),
        ('[policy]\nset = "locked"', ("gate",)),
        ("[client]\nauthorized_keys = ['" + "a" * 40 + "']", ("gate",)),
        ("[sandbox]\ntmp_bytes = 8192", ("executor",)),
        ('[sandbox]\nmay_be_missing = ["landlock"]', ("gate", "memory", "zygote", "brain")),
        (AGENTS, ("gate", "brain")),
        ("[supervision]\nwatch_s = 5", ()),
        ("[supervision]\ndrain_s = 5\nsoft_threads = 9", ()),
        ('[log]\nlevel = "debug"', ()),
        ("[quotas]\nopen_tasks = 5\n[sandbox]\ntmp_bytes = 8192", ("gate", "executor")),
    ],
)
def test_reload_restarts_whom_a_setting_concerns(text: str, roles: tuple[str, ...]) -> None:
    """And brings the new value into force."""
    found = planned(text)
    assert (found.roles, found.kept) == (roles, ())
    assert found.config == config.parse(text)
    assert found.applied


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[metrics]\nlisten = "127.0.0.1:1"', "metrics.listen"),
        ('[client]\nlisten = "127.0.0.1:1"', "client.listen"),
        ("[users]\nbase = 70000", "users.base"),
        ("[workers]\nbrains = 2", "workers.brains"),
        ("[workers]\nexecutors = 2", "workers.executors"),
        ("[journal]\nmap_bytes = 1048576", "journal.map_bytes"),
        ("[supervision]\nintensity = 3", "supervision.intensity"),
        ('[log]\nto = "stderr"', "log.to"),
        ("[guardian]\nintensity = 3", "guardian.intensity"),
    ],
)
def test_reload_names_and_keeps_what_needs_a_restart(text: str, key: str) -> None:
    """The old value stays in force; what else has changed comes into force all the same."""
    found = planned(text)
    assert (found.kept, found.applied, found.roles, found.config) == ((key,), (), (), config.Config())


def test_reload_mixes_old_and_new_values_when_a_section_has_both() -> None:
    """Key by key."""
    found = planned('[client]\nlisten = "127.0.0.1:1"\nauthorized_keys = ["' + "a" * 40 + '"]')
    assert (found.kept, found.applied) == (("client.listen",), ("client.authorized_keys",))
    assert found.config.client == config.Client("", ("a" * 40,))


def test_reload_holds_brains_when_agents_have_changed() -> None:
    """Gate and brain must never differ over one that has work."""
    assert planned(AGENTS).hold == ("brain",)
    assert planned("[quotas]\nopen_tasks = 5").hold == ()


def test_reload_restarts_the_gate_when_only_a_policy_file_is_another() -> None:
    """Its contents are settings too."""
    old = config.Config()
    found = plan(old, old, law_changed=True)
    assert (found.roles, found.applied) == (("gate",), ("policy.files (their contents)",))


def test_reload_finds_nothing_when_nothing_has_changed() -> None:
    """However the file is written."""
    assert planned("[quotas]\nopen_tasks = 1000") == Plan(config.Config())
    assert list(changed(config.Config(), config.Config())) == []


def test_setting_needs_a_restart_when_nobody_has_thought_of_it() -> None:
    """The safe answer."""
    assert means("something.new") is None
