from homeostat.workers.gate import late
from homeostat.workers.gate.late import Late


class Client:
    """One whose queue has so much room."""

    def __init__(self, name: bytes, box: Late, room: int = 0) -> None:
        self.name, self.box, self.room = name, box, room
        self.got: list[int] = []
        self.lost: list[int] = []

    def answer(self, number: int, size_bytes: int = 1) -> bool:
        """Let an answer wait."""

        def send() -> bool:
            if self.room:
                self.room -= 1
                self.got.append(number)
                return True
            return False

        return self.box.keep(self.name, size_bytes, send, lambda: self.lost.append(number))


def test_answers_leave_in_order_when_there_is_room() -> None:
    """None overtakes another of its client, and one client's fullness is no other's."""
    box = Late(lambda: 0.0)
    slow, quick = Client(b"slow", box, room=1), Client(b"quick", box, room=9)
    for number in range(3):
        assert slow.answer(number)
        assert quick.answer(number)
    box.retry()
    assert (slow.got, quick.got) == ([0], [0, 1, 2])
    assert box.waits_for(b"slow")
    assert not box.waits_for(b"quick")
    slow.room = 2
    box.retry()
    assert slow.got == [0, 1, 2]
    assert len(box) == 0
    assert box.due(5.0) is None


def test_answers_are_given_up_when_their_client_does_not_read() -> None:
    """Each is told as lost, once, after its time."""
    now_s = [0.0]
    box = Late(lambda: now_s[0])
    deaf = Client(b"deaf", box)
    deaf.answer(1)
    assert box.due(0.0) == late.AGAIN_S
    now_s[0] = late.PATIENCE_S - 0.1
    deaf.answer(2)
    box.retry()
    assert deaf.lost == []
    now_s[0] = late.PATIENCE_S
    box.retry()
    assert deaf.lost == [1]
    assert len(box) == 1


def test_answers_are_bounded_when_nobody_reads() -> None:
    """In number and in bytes."""
    box = Late(lambda: 0.0)
    deaf = Client(b"deaf", box)
    assert all(deaf.answer(number) for number in range(late.LIMIT))
    assert not deaf.answer(late.LIMIT)
    other = Client(b"other", Late(lambda: 0.0))
    assert other.answer(0, late.LIMIT_BYTES)
    assert not other.answer(1)
