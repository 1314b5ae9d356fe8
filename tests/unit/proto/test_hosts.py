"""Which spellings are a host, a destination, a URL."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies as st

from homeostat.proto.hosts import HostError, authority, check, check_destination, covers, literal, url, write

ODD = [
    "", ".", "a.", ".a", "a..b", "-a.test", "a-.test", "a b", "a\n", "a\0", "a/b", "a:b", "a@b",
    "a%2eb", "ä.test", "a" * 64,
    "a." * 127 + "ab", "127.1", "1", "0x7f000001", "0X7F.1", "0177.0.0.1", "1.2.3.4.5", "256.1.1.1",
    "a.1", "a.0x1f",
    "a.0x", "[::1]", "::1%lo", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "01.2.3.4", "\uff41.test",
    "a\u3002test", "a\u00ad.test",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_host_is_refused_in_every_odd_spelling(text: str) -> None:
    """Refused, never made into something else."""
    with pytest.raises(HostError):
        check(text)


@pytest.mark.parametrize(
    "text",
    ["localhost", "a.test", "a-b.c_d.test", "xn--bcher-kva.test", "127.0.0.1", "::1", "1a.test", "a.1b"],
)
def test_host_is_taken_in_its_plain_spelling(text: str) -> None:
    """As it is; letters' case alone does not count."""
    assert check(text) == text
    assert check(text.upper()) == text


@given(st.ip_addresses())
def test_address_is_taken_in_its_canonical_spelling_only(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """What str() gives is one; the exploded form is the same text or none."""
    assert literal(str(address)) == address
    assert address.exploded == str(address) or literal(address.exploded) is None


@given(st.text(max_size=60))
def test_host_is_one_or_an_error_whatever_the_text(text: str) -> None:
    """And what is taken once is taken again as the same."""
    try:
        host = check(text)
    except HostError:
        return
    assert check(host) == host
    assert authority(write(host, 80)) == (host, 80)


@pytest.mark.parametrize(
    "text",
    [
        "a:0",
        "a:65536",
        "a:080",
        "a:+80",
        "a:8 0",
        "a:",
        ":80",
        "a:80:80",
        "[::1",
        "[a]:80",
        "[::1]80",
        "::1:80",
    ],
)
def test_authority_is_refused_when_its_parts_are_not_plain(text: str) -> None:
    """Each is a HostError."""
    with pytest.raises(HostError):
        authority(text, 80)


def test_authority_takes_its_port_or_the_default() -> None:
    """IPv6 in brackets; without a default a port must be there."""
    assert authority("a.test:8080") == ("a.test", 8080)
    assert authority("[::1]:443") == ("::1", 443)
    assert authority("a.test", 80) == ("a.test", 80)
    with pytest.raises(HostError):
        authority("a.test")


def test_destination_covers_all_below_it_and_not_itself() -> None:
    """``*.a.test`` is not a.test, nor nota.test; an address is below nothing."""
    below = check_destination("*.A.test")
    assert covers(below, "b.a.test")
    assert covers(below, "c.b.a.test")
    assert not covers(below, "a.test")
    assert not covers(below, "nota.test")
    assert covers("a.test", "a.test")
    assert not covers("a.test", "b.a.test")
    for wrong in ("*", "*.", "*.127.0.0.1", "*.1", "a.*.test", "**.test"):
        with pytest.raises(HostError):
            check_destination(wrong)


@pytest.mark.parametrize(
    "text",
    ["", "a.test", "//a.test", "HTTP://a.test", "ftp://a.test", "http://", "http:///x", "http://a b/", "http://u@a.test/",
     "http://a.test\\@b.test/", "http://a.test:0/", "http://[::1/", "http://a.test/\n",
     "http://a.test/ä", "javascript://a.test"],
)  # fmt: skip
def test_url_is_refused_when_it_is_not_plain(text: str) -> None:
    """Each is a HostError."""
    with pytest.raises(HostError):
        url(text)


def test_url_gives_origin_and_target_without_the_fragment() -> None:
    """The default port is not said in Host; a query without a path gets one."""
    found = url("https://A.test/x?y#z")
    assert (found.origin, found.target, found.authority) == (("https", "a.test", 443), "/x?y", "a.test")
    assert url("http://[::1]:8080?q").authority == "[::1]:8080"
    assert url("http://[::1]").authority == "[::1]"
    assert url("http://a.test?q").target == "/?q"
