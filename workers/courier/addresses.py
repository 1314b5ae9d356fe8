"""Which addresses nobody may be taken to by a name.

Owns: the tables of special addresses, and the forms in which one address hides in another.
Must not know: names, sockets, who asks.
Invariants: only what is certainly public passes by itself; what is private passes only beneath a network that
    the operator listed; where a cloud keeps its machines' keys nobody gets, listed or not.
Source: IANA's IPv4 and IPv6 Special-Purpose Address Registries; RFC 6052 (NAT64), 3056 (6to4), 4380 (Teredo),
    2765 (translated); the clouds' manuals for their metadata services.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

V4 = ipaddress.IPv4Address
V6 = ipaddress.IPv6Address
Address = V4 | V6
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _table(rows: Mapping[str, str]) -> Mapping[Network, str]:
    return {ipaddress.ip_network(network): what for network, what in rows.items()}


_METADATA: Final = "a cloud's metadata service"
_HIDDEN: Final = "another spelling of an IPv4 address"
_NEVER: Final = _table(
    {
        "169.254.169.0/24": _METADATA,  # EC2, GCE, Azure, OpenStack, Oracle: .254; Amazon's DNS and clock
        "169.254.170.0/24": _METADATA,  # ECS .2, EKS .23
        "169.254.0.23/32": _METADATA,  # Tencent
        "100.100.100.200/32": _METADATA,  # Alibaba
        "168.63.129.16/32": _METADATA,  # Azure's wire server, which looks public
        "192.0.0.192/32": _METADATA,  # Oracle
        "fd00:ec2::/32": _METADATA,  # EC2 ::254, EKS ::23
        "fd20:ce::254/128": _METADATA,  # GCE
        "fd00:42::42/128": _METADATA,  # Scaleway
        "fe80::a9fe:a9fe/128": _METADATA,  # OpenStack
        "0.0.0.0/8": "unspecified",
        "224.0.0.0/4": "multicast",
        "255.255.255.255/32": "broadcast",
        "::/128": "unspecified",
        "ff00::/8": "multicast",
        "::ffff:0:0/96": _HIDDEN,  # mapped
        "::ffff:0:0:0/96": _HIDDEN,  # translated
        "2001::/32": _HIDDEN,  # Teredo
        "2002::/16": _HIDDEN,  # 6to4
        "64:ff9b:1::/48": _HIDDEN,  # NAT64 of one's own: where in it the other stands can't be known
    }
)
"""Whatever the operator lists."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""How a host without IPv4 reaches it: may be listed, and then what it stands for counts."""
_SPECIAL: Final = _table(
    {
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "a carrier's own",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "for documentation",
        "192.88.99.0/24": "a 6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "for documentation",
        "203.0.113.0/24": "for documentation",
        "240.0.0.0/4": "reserved",
        "::1/128": "loopback",
        "::/96": _HIDDEN,  # IPv4-compatible, long gone
        "64:ff9b::/96": "NAT64",
        "fc00::/7": "private",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "2001::/23": "of a protocol",
        "2001:db8::/32": "for documentation",
        "3fff::/20": "for documentation",
    }
)
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")


def fault(address: Address, listed: Sequence[Network]) -> str:
    """Why nothing may be sent there; empty if it may. ``listed`` are networks that the operator allows."""
    if isinstance(address, V6) and address.scope_id:
        return "with a zone"
    if what := _of(address, _NEVER):
        return what
    if isinstance(address, V6) and address in _NAT64:
        hidden = V4(int(address) & 0xFFFF_FFFF)
        if what := fault(hidden, listed):
            return f"NAT64 of {hidden}: {what}"
    if any(address in network for network in listed):
        return ""
    if what := _of(address, _SPECIAL):
        return what
    return "reserved" if isinstance(address, V6) and address not in _PUBLIC_V6 else ""


def is_own(text: str) -> bool:
    """Whether an address is of a network that is not the public one."""
    return bool(fault(ipaddress.ip_address(text), ()))


def _of(address: Address, table: Mapping[Network, str]) -> str:
    return next((what for network, what in table.items() if address in network), "")
