"""Names that lead to where they must not: resolved once, and what was checked is what is dialled."""

from __future__ import annotations

import socket

import pytest

from homeostat.proto.config import Egress
from tests.fakes.far_host import echo
from tests.integration.courier.conftest import MakeHost, MakeStand
from tests.integration.courier.stand import LOOPBACK, agent

UNSPECIFIED = "0.0.0.0"  # noqa: S104 - nobody binds to it
ODD = [
    "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.1.",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]", "[::1%lo]",
    "0", UNSPECIFIED, "[::]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "localhost", "LOCALHOST", "127.0.0.1",
    "%31%32%37.0.0.1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "xn--127-0-0-1.test",
    "169.254.169.254",
    "[fd00:ec2::254]", "metadata.google.internal", "2852039166", "0xa9fea9fe", "[::1]",
]  # fmt: skip


def test_every_spelling_of_the_machine_itself_is_refused(stand: MakeStand, far: MakeHost) -> None:
    """50: with a list that names a host, none of these gets there, whatever the resolver would make of it."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("*.api.test", (host.port,))), names=lambda _: ["127.0.0.1"])
    sandbox = courier.sandbox()
    for spelling in ODD:
        answer = sandbox.ask(f"CONNECT {spelling}:{host.port} HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")), spelling
    assert host.accepted == 0


def test_every_spelling_is_refused_even_when_the_list_holds_it(stand: MakeStand, far: MakeHost) -> None:
    """An operator who writes a strange spelling gets nothing for it, not something else."""
    host = far(echo, heads=False)
    for spelling in ODD:
        bare = spelling.strip("[]")
        courier = stand(agent(Egress(bare, (host.port,))), names=lambda _: ["127.0.0.1"])
        answer = courier.sandbox().ask(f"CONNECT {spelling}:{host.port} HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")), spelling
        courier.close()
        (courier.home / "run" / "courier.sock").unlink()
    assert host.accepted == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1",
        UNSPECIFIED, "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fd00:ec2::254",
    ],
)  # fmt: skip
def test_name_is_refused_when_it_leads_inward(stand: MakeStand, address: str) -> None:
    """49: a listed name that resolves to a private, special or metadata address."""
    courier = stand(agent(Egress("rebind.test", (80,))), names={"rebind.test": [address]})
    answer = courier.sandbox().ask(b"GET http://rebind.test/ HTTP/1.1\r\nHost: rebind.test\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 rebind.test resolves to no address that may be reached")


def test_metadata_is_refused_even_when_the_operator_lists_its_network(stand: MakeStand) -> None:
    """A list of a whole network, or of everything, does not hand out a machine's keys."""
    everything = Egress("rebind.test", (80,), ("0.0.0.0/0", "::/0"))
    for address in ("169.254.169.254", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254"):
        courier = stand(agent(everything), names={"rebind.test": [address]})
        answer = courier.sandbox().ask(b"CONNECT rebind.test:80 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 "), address
        courier.close()
        (courier.home / "run" / "courier.sock").unlink()


def test_name_is_resolved_once_and_what_was_checked_is_dialled(stand: MakeStand, far: MakeHost) -> None:
    """49: a resolver that answers something else the second time is not asked a second time."""
    inside, outside = far(echo, heads=False), far(echo, heads=False)
    asked: list[str] = []

    def rebinding(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    entry = Egress("rebind.test", (outside.port,), ("127.0.0.2/32",))
    courier = stand(agent(entry), names=rebinding)
    with socket.create_server(("127.0.0.2", outside.port)) as listed:
        sandbox = courier.sandbox()
        with sandbox.dial() as one:
            one.sendall(b"CONNECT rebind.test:%d HTTP/1.1\r\n\r\n" % outside.port)
            assert one.recv(12) == b"HTTP/1.1 200"
            listed.accept()[0].close()
    assert asked == ["rebind.test"]
    again = courier.sandbox().ask(b"CONNECT rebind.test:%d HTTP/1.1\r\n\r\n" % outside.port)
    assert again.startswith(b"HTTP/1.1 403 ")
    assert (inside.accepted, outside.accepted) == (0, 0)


def test_only_the_allowed_of_several_addresses_is_dialled(stand: MakeStand, far: MakeHost) -> None:
    """A name with a listed and a special address leads to the listed one alone."""
    host = far(echo, heads=False)
    entry = Egress("mixed.test", (host.port,), ("127.0.0.1/32",))
    courier = stand(agent(entry), names={"mixed.test": ["169.254.169.254", "127.0.0.2", "127.0.0.1"]})
    sandbox = courier.sandbox()
    with sandbox.dial() as one:
        one.sendall(b"CONNECT mixed.test:%d HTTP/1.1\r\n\r\n" % host.port)
        assert one.recv(12) == b"HTTP/1.1 200"
    assert courier.connection(sandbox.key).address == "127.0.0.1"


def test_the_system_s_resolver_is_asked_by_default(stand: MakeStand, far: MakeHost) -> None:
    """getaddrinfo, in its thread: localhost, where the operator listed the loopback."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("localhost", (host.port,), (*LOOPBACK, "::1/128"))))
    with courier.sandbox().dial() as one:
        one.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % host.port)
        assert one.recv(12) == b"HTTP/1.1 200"
