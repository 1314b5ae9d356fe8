"""The courier's decisions, without sockets: permits, offers, the log, requests in time."""

from __future__ import annotations

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.config import Agent, Config, Credential, Egress
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.workers.courier.allowlist import Denied, Granted
from homeostat.workers.courier.answers import Failure, Response
from homeostat.workers.courier.core import Core
from homeostat.workers.courier.effects import (
    Cut,
    Due,
    Effect,
    Exchange,
    Exchanged,
    Gone,
    Offered,
    Over,
    Post,
    Resolve,
    Resolved,
    Serve,
    Shut,
)

KEY, TASK = Key("k1"), TaskId("t1")
ENTRIES = (
    Egress("api.test", (443, 8443), credential="token"),
    Egress("safe.test", idempotent=True),
    Egress("*.wide.test", (80,)),
)
CONFIG = Config(
    agent=(Agent("web", egress=ENTRIES), Agent("none")), credential=(Credential("token", value_file="/x"),)
)
PERMIT = m.Permit(KEY, TASK, "web", 60.0)
PUBLIC = ("93.184.215.14",)


def core() -> Core:
    """A fresh one."""
    return Core(CONFIG)


def execute(url: str, klass: EffectClass = "keyed", *, resumed: bool = False, **more: object) -> m.Execute:
    """A request."""
    args = msgspec.json.encode({"url": url, **more})
    return m.Execute(KEY, TASK, "http.request", args, klass, "", 60.0, 1 << 20, resumed)


def ended(effects: list[Effect]) -> m.Ended:
    """The outcome among these."""
    found = [one.message for one in effects if isinstance(one, Post) and isinstance(one.message, m.Ended)]
    assert len(found) == 1, effects
    return found[0]


def response(status: int = 200, *headers: tuple[str, str]) -> Response:
    """An answer."""
    return Response(status, "R", headers, b"", 0, PUBLIC[0], 100)


def connection(reason: str = "") -> m.Connection:
    """One that is over."""
    return m.Connection("a.test", 443, "1.1.1.1", "CONNECT", "open", reason)


# -- permits and offers ------------------------------------------------------------------------------------
def test_offer_is_served_when_it_is_permitted_before_or_after() -> None:
    """In both orders, once."""
    first, second = core(), core()
    assert first.handle(PERMIT, 0.0) == []
    assert first.handle(Offered(1, KEY, TASK), 1.0) == [Serve(1, KEY, TASK, "web")]
    assert first.handle(PERMIT, 2.0) == []
    assert second.handle(Offered(1, KEY, TASK), 0.0) == []
    assert second.handle(PERMIT, 1.0) == [Serve(1, KEY, TASK, "web")]


def test_offer_is_shut_when_it_is_not_permitted_in_time_or_to_another() -> None:
    """After its wait; at once for another task's permit; a second one of the same key."""
    one = core()
    one.handle(Offered(1, KEY, TASK), 0.0)
    assert one.due() == 30.0
    assert [effect.number for effect in one.handle(Due(), 30.0) if isinstance(effect, Shut)] == [1]
    one.handle(PERMIT, 31.0)
    assert isinstance(one.handle(Offered(2, KEY, TaskId("t2")), 32.0)[0], Shut)
    assert isinstance(one.handle(Offered(3, KEY, TASK), 33.0)[0], Serve)
    assert one.handle(Offered(4, KEY, TASK), 34.0) == [Shut(4, "the call has a way out already")]


def test_way_is_shut_when_the_gate_forgets_it_or_its_time_is_up() -> None:
    """And when the sandbox ends; a number that is over gives nothing."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(Offered(1, KEY, TASK), 0.0)
    assert one.handle(m.Forget(KEY), 1.0) == [Shut(1, "the command ended")]
    assert one.handle(Gone(1), 2.0) == []
    one.handle(PERMIT, 3.0)
    one.handle(Offered(2, KEY, TASK), 3.0)
    assert one.due() == 63.0
    assert one.handle(Due(), 63.0) == [Shut(2, "the command ended")]
    assert one.due() == float("inf")


# -- the log -----------------------------------------------------------------------------------------------
def test_connections_are_told_in_batches_and_then_only_counted() -> None:
    """32 at once or after half a second; of 300 there are 256 told and 44 counted."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(Offered(1, KEY, TASK), 0.0)
    told: list[m.Connections] = []
    for _ in range(300):
        told += [
            effect.message for effect in one.handle(Over(KEY, TASK, connection()), 1.0)
            if isinstance(effect, Post) and isinstance(effect.message, m.Connections)
        ]  # fmt: skip
    assert [len(each.connections) for each in told] == [32] * 8
    assert one.due() == 1.5
    last = one.handle(Due(), 1.5)
    assert last == [Post(m.Connections(KEY, TASK, (), 44))]


def test_connections_are_told_at_once_when_the_call_is_over() -> None:
    """What ends with the sandbox does not wait, and nothing of the call is kept."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(Offered(1, KEY, TASK), 0.0)
    one.handle(m.Forget(KEY), 1.0)
    one.handle(Over(KEY, TASK, connection()), 1.0)
    assert one.due() <= 1.0
    assert one.handle(Due(), 1.0) == [Post(m.Connections(KEY, TASK, (connection(),)))]
    assert one.due() == float("inf")


# -- the list ----------------------------------------------------------------------------------------------
def test_list_is_the_only_yes() -> None:
    """Exact ports, domains below, no agent without a list, no agent that isn't there."""
    one = core()
    assert isinstance(one.judge("web", "api.test", 8443), Granted)
    assert isinstance(one.judge("web", "a.wide.test", 80), Granted)
    for agent, host, port in (
        ("web", "api.test", 80), ("web", "wide.test", 80), ("web", "a.wide.test", 443),
        ("none", "api.test", 443),
        ("ghost", "api.test", 443),
    ):  # fmt: skip
        assert isinstance(one.judge(agent, host, port), Denied)


# -- requests ----------------------------------------------------------------------------------------------
def test_request_goes_by_name_and_address_to_its_host() -> None:
    """Its credential is named, never held; the deadline is the shorter one."""
    one = core()
    one.handle(PERMIT, 0.0)
    assert one.handle(execute("https://api.test/x", timeout_s=5), 0.0) == [Resolve(KEY, "api.test")]
    (exchange,) = one.handle(Resolved(KEY, PUBLIC), 1.0)
    assert isinstance(exchange, Exchange)
    assert (exchange.hop.credential, exchange.addresses, exchange.within_s) == ("token", PUBLIC, 4.0)
    done = one.handle(Exchanged(KEY, response(), 0.5), 2.0)
    assert ended(done).status == "ok"
    assert one.handle(execute("https://api.test/x"), 3.0) == [Post(ended(done))]
    one.handle(m.Forget(KEY), 4.0)
    assert not one.busy


def test_request_without_a_permit_is_refused() -> None:
    """The courier knows no agent for it."""
    assert ended(core().handle(execute("https://api.test/"), 0.0)).status == "refused"


def test_keyed_request_is_not_carried_by_a_redirect_to_where_it_may_not_go_twice() -> None:
    """307 of a POST: from an idempotent host to one that isn't."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(execute("https://safe.test/", method="POST"), 0.0)
    one.handle(Resolved(KEY, PUBLIC), 0.0)
    to_other = response(307, ("Location", "https://api.test/"))
    outcome = ended(one.handle(Exchanged(KEY, to_other, 0.1), 1.0))
    assert outcome.status == "error"
    assert "may not be sent twice to api.test" in outcome.text


def test_redirect_to_a_private_address_is_refused_at_its_hop() -> None:
    """A listed name is checked again on every hop."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(execute("https://api.test/"), 0.0)
    one.handle(Resolved(KEY, PUBLIC), 0.0)
    effects = one.handle(Exchanged(KEY, response(302, ("Location", "http://a.wide.test/")), 0.1), 1.0)
    assert Resolve(KEY, "a.wide.test") in effects
    assert ended(one.handle(Resolved(KEY, ("169.254.169.254",)), 1.0)).status == "refused"


def test_request_in_doubt_is_so_for_what_may_have_taken_effect_only() -> None:
    """A dial that failed is an error; a lost answer to a POST is a doubt, to a GET an error."""
    for method, sent, status in (
        ("POST", False, "error"), ("POST", True, "in_doubt"), ("GET", True, "error"),
        ("DELETE", True, "in_doubt"),
    ):  # fmt: skip
        one = core()
        one.handle(PERMIT, 0.0)
        one.handle(execute("https://api.test/", "once", method=method), 0.0)
        one.handle(Resolved(KEY, PUBLIC), 0.0)
        effects = one.handle(Exchanged(KEY, Failure("connection reset", sent=sent), 0.1), 1.0)
        assert ended(effects).status == status, method


def test_request_that_is_over_its_time_is_cut_and_ends_even_if_its_thread_does_not() -> None:
    """Cut at the deadline, given up some seconds later."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(execute("https://api.test/", "once", method="POST", timeout_s=5), 0.0)
    one.handle(Resolved(KEY, PUBLIC), 0.0)
    assert one.due() == 5.0
    assert one.handle(Due(), 5.0) == [Cut(KEY)]
    assert ended(one.handle(Due(), 10.0)).status == "in_doubt"
    assert one.handle(Exchanged(KEY, response(), 0.1), 11.0) == []


def redirected(status: int, klass: EffectClass = "once") -> Core:
    """A POST that was answered with a redirect to another host, which is being looked up."""
    one = core()
    one.handle(PERMIT, 0.0)
    one.handle(execute("https://api.test/", klass, method="POST", timeout_s=5), 0.0)
    one.handle(Resolved(KEY, PUBLIC), 0.0)
    effects = one.handle(Exchanged(KEY, response(status, ("Location", "http://a.wide.test/")), 0.1), 1.0)
    assert Resolve(KEY, "a.wide.test") in effects
    return one


@pytest.mark.parametrize("status", [303, 307])
def test_redirect_that_fails_says_what_was_answered_before(status: int) -> None:
    """Name, address, dial, deadline: the POST may have changed something, so none is refused or a timeout."""
    said = f"the POST to api.test:443 was answered {status}; the redirect failed: "

    def at(*events: Resolved | Exchanged | Due) -> m.Ended:
        one = redirected(status)
        for event in events[:-1]:
            one.handle(event, 2.0)
        return ended(one.handle(events[-1], 6.0))

    resolved = Resolved(KEY, PUBLIC)
    for outcome in (
        at(Resolved(KEY, (), "no such name")),
        at(Resolved(KEY, ("169.254.169.254",))),
        at(resolved, Exchanged(KEY, Failure("connection refused", sent=False), 0.1)),
        at(resolved, Exchanged(KEY, Failure("no answer in time", sent=False, timed_out=True), 0.1)),
        at(resolved, Exchanged(KEY, Failure("no credential", sent=False, refused=True), 0.1)),
        at(Due()),
    ):
        assert (outcome.status, outcome.text.startswith(said)) == ("error", True), outcome
    outcome = at(resolved, Exchanged(KEY, response(404), 0.1))
    assert outcome.status == "error"
    assert outcome.text.endswith(f"[the POST to api.test:443 was answered {status}]")


def test_redirect_whose_request_was_sent_too_is_in_doubt_and_says_both() -> None:
    """307: the second POST has no answer, the first had one."""
    one = redirected(307)
    one.handle(Resolved(KEY, PUBLIC), 1.0)
    outcome = ended(one.handle(Exchanged(KEY, Failure("connection reset", sent=True), 0.1), 2.0))
    assert outcome.status == "in_doubt"
    assert outcome.text.startswith("the POST to api.test:443 was answered 307; the redirect failed: ")
    one = redirected(303)
    assert one.handle(m.Abort(KEY, "cancelled"), 2.0)
    assert ended(one.handle(m.Abort(KEY, "cancelled"), 2.0)).text.startswith("the POST to api.test:443 was")


def test_request_that_can_not_be_sent_again_is_in_doubt() -> None:
    """keyed: its answer was lost, and now its name leads inward, or its credential is gone."""
    gone = Exchanged(KEY, Failure("no credential", sent=False, refused=True), 0.1)
    for addresses, last in ((("169.254.169.254",), None), (PUBLIC, gone)):
        one = core()
        one.handle(PERMIT, 0.0)
        one.handle(execute("https://safe.test/", method="POST"), 0.0)
        one.handle(Resolved(KEY, PUBLIC), 0.0)
        one.handle(Exchanged(KEY, Failure("connection reset", sent=True), 0.1), 1.0)
        effects = one.handle(Resolved(KEY, addresses), 2.0)
        if last is not None:
            effects = one.handle(last, 2.0)
        assert ended(effects).status == "in_doubt"
