"""Which addresses may be dialled, without and with networks of the operator's own."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies as st

from homeostat.workers.courier.addresses import fault, is_own

EVERYTHING = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
PUBLIC = [
    "1.1.1.1",
    "93.184.215.14",
    "192.0.3.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
    "192.88.98.1",
]
PRIVATE = ["10.1.2.3", "172.31.255.255", "192.168.0.1", "127.0.0.1", "100.127.255.255", "::1", "fd12::1"]
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - nobody binds to it
ALWAYS_REFUSED = [
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
    "fd20:ce::254", "fe80::a9fe:a9fe", UNSPECIFIED, "0.1.2.3", "224.0.0.251", "239.255.255.255",
    "255.255.255.255",
    "::", "ff02::1", "::ffff:1.1.1.1", "::ffff:0:1.1.1.1", "2002:101:101::", "2001:0:1::1",
    "64:ff9b:1::1.1.1.1",
    "64:ff9b::169.254.169.254", "64:ff9b::224.0.0.1",
]  # fmt: skip
SPECIAL = [
    "169.254.1.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "192.88.99.1",
    "2001:db8::1", "3fff::1", "fec0::1", "fe80::1", "::1.1.1.1", "64:ff9b::1.1.1.1", "4000::1",
    "100::1", "5f00::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address_may_be_dialled(text: str) -> None:
    """Without any network listed."""
    assert fault(ipaddress.ip_address(text), ()) == ""
    assert not is_own(text)


@pytest.mark.parametrize("text", [*PRIVATE, *SPECIAL])
def test_special_address_may_be_dialled_only_where_it_is_listed(text: str) -> None:
    """By a network that holds it, not by another."""
    address = ipaddress.ip_address(text)
    other = ipaddress.ip_network("10.99.0.0/16" if address.version == 6 else "fd99::/16")
    assert fault(address, ())
    assert fault(address, (other,))
    assert fault(address, EVERYTHING) == ""
    assert is_own(text)


@pytest.mark.parametrize("text", ALWAYS_REFUSED)
def test_address_is_refused_whatever_is_listed(text: str) -> None:
    """Metadata, what is no host, and one address in the clothes of another."""
    assert fault(ipaddress.ip_address(text), EVERYTHING)


def test_address_behind_nat64_counts_as_itself() -> None:
    """A private one stays private, unless its own network is listed too."""
    nat64, private = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("10.0.0.0/8")
    assert fault(ipaddress.ip_address("64:ff9b::1.1.1.1"), (nat64,)) == ""
    assert fault(ipaddress.ip_address("64:ff9b::10.0.0.1"), (nat64,)) == "NAT64 of 10.0.0.1: private"
    assert fault(ipaddress.ip_address("64:ff9b::10.0.0.1"), (nat64, private)) == ""


def test_address_with_a_zone_is_refused() -> None:
    """Where it leads depends on the interface."""
    assert fault(ipaddress.ip_address("fe80::1%lo"), EVERYTHING) == "with a zone"


@given(st.ip_addresses())
def test_what_passes_alone_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Never more than the standard library calls global."""
    if fault(address, ()) == "":
        assert address.is_global
        assert not address.is_multicast
