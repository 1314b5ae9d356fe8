from homeostat.proto.config import parse
from homeostat.supervisor.specs import STOP_ORDER, Strategy, groups


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


def test_stop_order_names_every_role_when_all_are_started() -> None:
    """Nobody is forgotten at the stop."""
    roles = {spec.id.role for group in groups(parse("")) for spec in group.members}
    assert roles == set(STOP_ORDER)
