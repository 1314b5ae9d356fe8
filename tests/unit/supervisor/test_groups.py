"""Who is started after whom and who comes again: Kin and Groups over a tree whose processes are words."""

from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from homeostat.proto.config import Supervision
from homeostat.supervisor import groups as module
from homeostat.supervisor.child import Child
from homeostat.supervisor.ending import Ending
from homeostat.supervisor.groups import Groups
from homeostat.supervisor.kin import Kin
from homeostat.supervisor.lifecycle import ALIVE, Action, Event, State, step
from homeostat.supervisor.process import Exit
from homeostat.supervisor.restart import Backoff, Intensity
from homeostat.supervisor.specs import ChildId, ChildSpec, Group, Restart, Strategy

SETTINGS = Supervision(intensity=1_000, backoff_base_s=0.0)
A, B, C = (ChildId("memory", index) for index in range(3))
P, T, X = Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY


@pytest.fixture(autouse=True, scope="module")
def no_waiting() -> Iterator[None]:
    """Nothing here happens by itself a moment later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPANION_S", 0.0)
        yield


def group(strategy: Strategy, *kinds: Restart, first: int = 0) -> Group:
    """A group of so many children."""
    specs = [
        ChildSpec(ChildId("memory", first + at), 1.0, restart=kind, liveness=False)
        for at, kind in enumerate(kinds)
    ]
    return Group(f"g{first}", strategy, tuple(specs))


class WordTree:
    """The tree's part: the table for each child; a test says what its processes do."""

    def __init__(self, *found: Group) -> None:
        self.children = {spec.id: Child(spec) for one in found for spec in one.members}
        self.groups = Groups(found, SETTINGS, self)  # type: ignore[arg-type]  # what Groups uses of a Tree
        self.found = found
        self.ending: Ending | None = None
        self.began: list[ChildId] = []
        self.killed: list[ChildId] = []
        self.now_s = 0.0

    def apply(self, child: Child, event: Event) -> None:
        """As Tree.apply, with words for deeds."""
        child.state, actions = step(child.state, event)
        for action in actions:
            if action is Action.FORK:
                self._begin(child)
            elif action is Action.KILL:
                self.killed.append(child.spec.id)
            elif action in (Action.CRASHED, Action.ENDED, Action.RECYCLED) and self.ending is None:
                {
                    Action.CRASHED: self.groups.fell,
                    Action.ENDED: self.groups.ended,
                    Action.RECYCLED: self.groups.recycled,
                }[action](child)

    def _begin(self, child: Child) -> None:
        for one in self.found:
            members = [spec.id for spec in one.members]
            if child.spec.id in members:
                before = [self.children[id_] for id_ in members[: members.index(child.spec.id)]]
                assert all(other.state is State.READY or other.over for other in before), "started too early"
        assert self.ending is None, "started after the stop"
        child.forks += 1
        self.began.append(child.spec.id)
        self.apply(child, Event.FORKED)

    def end(self, id_: ChildId, code: int | None) -> None:
        """Its process ends, if there is one."""
        child = self.children[id_]
        if child.state in ALIVE:
            self.now_s += 1.0
            child.last_exit, child.last_exit_at_s = Exit(code=code, signal=9 if code is None else None), 1e12
            self.apply(child, Event.EXITED)

    def serve(self, id_: ChildId) -> None:
        """It says Ready, if it can."""
        child = self.children[id_]
        if child.state in (State.STARTING, State.READY, State.STOPPING, State.RECYCLING):
            self.apply(child, Event.READY)
            self.groups.serves(child)

    def settle(self) -> None:
        """All that are dying die, all that are starting serve, all that wait have waited long enough."""
        for _ in range(40):
            for id_, child in self.children.items():
                if child.state in (State.STOPPING, State.RECYCLING):
                    self.end(id_, 0)
                self.serve(id_)
            self.groups.tick(1e12)

    def stop(self, ending: Ending) -> None:
        """As Tree.stop, for all at once."""
        if self.ending is None:
            self.ending = ending
            self.groups.clear()
            for child in self.children.values():
                self.apply(child, Event.STOP)

    def escalate(self, what: str, _log: str) -> None:
        """Give up."""
        self.stop(Ending(9, what))

    def known(self) -> set[int]:
        """Nobody."""
        return set()

    def log(self, *_words: object, **_fields: object) -> None:
        """Nowhere."""


def serving(*found: Group) -> WordTree:
    """A tree of which all serve."""
    tree = WordTree(*found)
    tree.groups.begin()
    tree.settle()
    assert all(child.state is State.READY for child in tree.children.values())
    tree.began.clear()
    return tree


# -- Kin -----------------------------------------------------------------------------------------------------
def kin(strategy: Strategy, *kinds: Restart) -> Kin:
    """A group that has not failed yet."""
    return Kin(group(strategy, *kinds), Intensity(3, 10.0), Backoff(1.0, 8.0, 10.0))


def test_second_failure_joins_the_first_when_members_wait() -> None:
    """In start order, each once."""
    one = kin(Strategy.ONE_FOR_ONE, P, P, P)
    one.failed(C, 1.0, 0.0, 0.5)
    one.failed(A, 1.0, 0.1, 0.5)
    assert one.pending == [A, C]


def test_members_that_were_to_be_started_wait_again_when_another_fails_meanwhile() -> None:
    """Nobody is forgotten in the queue."""
    one = kin(Strategy.ONE_FOR_ONE, P, P, P)
    one.queue = [B, C]
    one.failed(A, None, 0.0, 0.5)
    assert (one.pending, one.queue) == ([A, B, C], [])


def test_temporary_member_leaves_when_its_group_is_restarted_but_not_before_its_first_start() -> None:
    """One that has begun goes down for good; one that is still to begin does so after the others."""
    begun = kin(Strategy.ONE_FOR_ALL, P, X)
    begun.failed(A, 1.0, 0.0, 0.5)
    assert (begun.pending, begun.leaving) == ([A], [B])
    unbegun = kin(Strategy.ONE_FOR_ALL, P, X)
    unbegun.queue = [B]
    unbegun.failed(A, 1.0, 0.0, 0.5)
    assert (unbegun.pending, unbegun.leaving) == ([A, B], [])


def test_recycled_member_comes_again_when_it_is_temporary() -> None:
    """It was told to end in order to come again."""
    one = kin(Strategy.REST_FOR_ONE, P, X)
    one.again(B, 0.0)
    assert (one.pending, one.intensity.failures_s) == ([B], ())


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0, 100)), max_size=20), st.sampled_from(Strategy)
)
def test_failed_member_always_waits_whatever_failed_before(
    failures: list[tuple[ChildId, float]], strategy: Strategy
) -> None:
    """And the order of those that wait is the start order."""
    one = kin(strategy, P, P, P)
    for member, now_s in failures:
        one.failed(member, None, now_s, 0.5)
        assert member in one.pending
        assert one.pending == sorted(one.pending)


# -- Groups --------------------------------------------------------------------------------------------------
def test_later_group_begins_when_all_members_of_the_earlier_serve() -> None:
    """One after the other, none before its time."""
    tree = WordTree(group(Strategy.ONE_FOR_ONE, P, P), group(Strategy.ONE_FOR_ONE, P, first=2))
    tree.groups.begin()
    assert tree.began == [A]
    tree.serve(A)
    assert tree.began == [A, B]
    tree.serve(B)
    assert tree.began == [A, B, C]


@pytest.mark.parametrize(
    ("strategy", "began", "killed"),
    [
        (Strategy.ONE_FOR_ONE, [B], []),
        (Strategy.ONE_FOR_ALL, [A, B, C], [A, C]),
        (Strategy.REST_FOR_ONE, [B, C], [C]),
    ],
)
def test_group_restarts_whom_its_strategy_names_when_one_fails(
    strategy: Strategy, began: list[ChildId], killed: list[ChildId]
) -> None:
    """Each once, in start order."""
    tree = serving(group(strategy, P, P, P))
    tree.end(B, None)
    tree.settle()
    assert (tree.began, tree.killed) == (began, killed)


def test_transient_child_that_was_done_comes_again_when_its_whole_group_does() -> None:
    """As in OTP: it is only dead, not forgotten; a temporary one is."""
    tree = serving(group(Strategy.ONE_FOR_ALL, P, T, X))
    tree.end(B, 0)
    tree.end(C, 0)
    tree.settle()
    assert [tree.children[id_].over for id_ in (A, B, C)] == [False, True, True]
    tree.end(A, None)
    tree.settle()
    assert tree.began == [A, B]
    assert [tree.children[id_].over for id_ in (A, B, C)] == [False, False, True]


def test_fork_that_fails_is_no_normal_end_when_the_one_before_was_one() -> None:
    """A transient child that ended with 0 long ago and can't be forked now is tried again."""
    tree = serving(group(Strategy.ONE_FOR_ALL, P, T))
    tree.end(B, 0)
    child = tree.children[B]
    child.last_exit_at_s, child.started_at_s, child.over = 1.0, 2.0, False
    child.state = State.FORKING
    tree.apply(child, Event.FORK_FAILED)
    tree.settle()
    assert (child.over, child.state) == (False, State.READY)


words = st.lists(
    st.tuples(
        st.sampled_from(["exit", "crash", "kill", "serve", "recycle", "dies", "tick"]), st.integers(0, 3)
    ),
    max_size=40,
)
shapes = st.tuples(st.sampled_from(Strategy), st.lists(st.sampled_from(Restart), min_size=3, max_size=3))


@given(shapes, words)
def test_nobody_is_forgotten_or_started_too_early_whatever_happens(
    shape: tuple[Strategy, list[Restart]], happened: list[tuple[str, int]]
) -> None:
    """When all has settled everyone serves or has ended for good, and whoever is permanent serves."""
    strategy, kinds = shape
    tree = WordTree(group(strategy, *kinds), group(Strategy.ONE_FOR_ONE, P, first=3))
    tree.groups.begin()
    happen(tree, happened)
    tree.settle()
    assert tree.ending is None or tree.ending.exit_code == 9
    if tree.ending is None:
        for child in tree.children.values():
            assert child.state is State.READY or child.over
            assert child.state is State.READY or child.spec.restart is not P


@given(shapes, words, words)
def test_nobody_lives_when_the_stop_came_and_every_process_has_ended(
    shape: tuple[Strategy, list[Restart]], before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    """Whatever was under way, and whatever still happens: nothing is started again."""
    strategy, kinds = shape
    tree = WordTree(group(strategy, *kinds), group(Strategy.ONE_FOR_ONE, P, first=3))
    tree.groups.begin()
    happen(tree, before)
    tree.stop(Ending(0))
    happen(tree, after)
    for id_ in tree.children:
        tree.end(id_, 0)
    tree.groups.tick(1e12)
    assert all(child.state in (State.DEAD, State.BACKOFF) for child in tree.children.values())
    assert not any(child.state in ALIVE for child in tree.children.values())


def happen(tree: WordTree, happened: list[tuple[str, int]]) -> None:
    """Let these things happen, where they can."""
    for word, index in happened:
        child = tree.children[ChildId("memory", index)]
        match word:
            case "exit" | "crash" | "kill":
                tree.end(child.spec.id, {"exit": 0, "crash": 3, "kill": None}[word])
            case "serve":
                tree.serve(child.spec.id)
            case "recycle" if child.state is State.READY and tree.ending is None:
                tree.apply(child, Event.RECYCLE)
            case "dies" if child.state in (State.STOPPING, State.RECYCLING):
                tree.end(child.spec.id, None)
            case "tick":
                tree.groups.tick(1e12)
