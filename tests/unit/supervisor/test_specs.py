from dataclasses import replace

import pytest

from homeostat.proto.config import parse
from homeostat.proto.errors import ConfigError
from homeostat.supervisor.specs import ChildId, ChildSpec, Group, Restart, Strategy, check, groups


def test_groups_start_the_gate_first_and_brains_last_when_there_are_many() -> None:
    """Start order, and the pairs of zygote and executor."""
    found = groups(parse("[workers]\nbrains = 2\nexecutors = 2\n"))
    names = [str(spec.id) for group in found for spec in group.members]
    assert names == [
        "gate.0",
        "memory.0",
        "zygote.0",
        "executor.0",
        "zygote.1",
        "executor.1",
        "brain.0",
        "brain.1",
    ]
    pairs = [group for group in found if len(group.members) == 2]
    assert [group.strategy for group in pairs] == [Strategy.REST_FOR_ONE] * 2


def test_specs_are_refused_when_they_mean_nothing() -> None:
    """Each wrong field is named."""
    good = ChildSpec(ChildId("gate", 0), 1.0)
    for field, spec in {
        "shutdown_s": replace(good, shutdown_s=-1.0),
        "start_s": replace(good, start_s=float("nan")),
        "significant": replace(good, significant=True),
        "id": replace(good, id=ChildId("gate", -1)),
    }.items():
        with pytest.raises(ConfigError) as caught:
            check([Group("g", Strategy.ONE_FOR_ONE, (spec,))])
        assert caught.value.field == field
    twice = [Group(name, Strategy.ONE_FOR_ONE, (good,)) for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"two children are named gate\.0"):
        check(twice)
    with pytest.raises(ConfigError, match="no members"):
        check([Group("empty", Strategy.ONE_FOR_ALL, ())])
    check([Group("g", Strategy.ONE_FOR_ALL, (replace(good, restart=Restart.TRANSIENT, significant=True),))])
