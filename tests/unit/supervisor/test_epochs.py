from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from homeostat.supervisor.epochs import BLOCK, Epochs


@given(
    st.lists(
        st.tuples(st.sampled_from(["gate.0", "brain.0"]), st.sampled_from(["next", "crash", "close"])),
        max_size=40,
    )
)
def test_epoch_is_never_handed_out_twice_when_supervisors_come_and_go(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, str]]
) -> None:
    """Epochs of one child grow through crashes and clean stops."""
    path = tmp_path_factory.mktemp("epochs") / "epochs"
    epochs, last = Epochs(path, used_before=False), {"gate.0": 0, "brain.0": 0}
    for name, move in moves:
        if move == "close":
            epochs.close()
        if move != "next":
            epochs = Epochs(path, used_before=True)
        epoch = epochs.next(name)
        assert epoch > last[name]
        last[name] = epoch


def test_epochs_go_on_without_a_gap_when_the_stop_was_clean(tmp_path: Path) -> None:
    """A clean stop skips nothing, a crash at most one block."""
    epochs = Epochs(tmp_path / "epochs", used_before=False)
    epochs.reserve(["gate.0"])
    assert [epochs.next("gate.0") for _ in range(3)] == [1, 2, 3]
    epochs.close()
    again = Epochs(tmp_path / "epochs", used_before=True)
    assert again.next("gate.0") == 4
    assert Epochs(tmp_path / "epochs", used_before=True).next("gate.0") <= 4 + BLOCK + 1


@pytest.mark.parametrize("damage", [None, b"", b"\x00" * 64, b"{}x"])
def test_epochs_pass_all_former_ones_when_the_file_is_lost_or_damaged(
    tmp_path: Path, damage: bytes | None
) -> None:
    """With a journal but without the file, numbers go on beyond any that restarts could have reached."""
    path = tmp_path / "epochs"
    if damage is not None:
        path.write_bytes(damage)
    assert Epochs(path, used_before=True).next("gate.0") > 1_000_000_000


def test_epochs_keep_their_floor_for_new_children_when_the_file_was_lost(tmp_path: Path) -> None:
    """A child that is first seen after the loss is beyond its unknown past too."""
    path = tmp_path / "epochs"
    first = Epochs(path, used_before=True).next("gate.0")
    assert Epochs(path, used_before=True).next("brain.0") >= first
