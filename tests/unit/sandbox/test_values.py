"""Profiles, ids, messages, refusals: the values of the sandbox and their limits."""

import os
import socket
from typing import get_args, get_type_hints

import msgspec
import pytest

from homeostat.proto.errors import MessageTooLargeError, ProtocolError
from homeostat.proto.settings import Sandbox
from homeostat.sandbox import landlock, layers, probe, protocol
from homeostat.sandbox.client import ZygoteClient, ZygoteGoneError, ZygoteSilentError
from homeostat.sandbox.kernel import KernelError, invoke
from homeostat.sandbox.layers import Layer, LayerError
from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.placement import MAY_BE_MISSING
from homeostat.sandbox.profile import Limits, Profile
from homeostat.sandbox.protocol import Exited, Kill, Launch, Refused


def test_profile_digest_is_stable_and_tells_profiles_apart() -> None:
    """The same profile has the same digest in every process; any change gives another."""
    assert Profile().digest() == Profile().digest()
    assert len(Profile().digest()) == 64
    others = [
        Profile(workspace="/w"),
        Profile(limits=Limits(cpu_s=1)),
        Profile(read_only=("/opt",)),
        Profile(tty=False),
    ]
    assert len({Profile().digest(), *(other.digest() for other in others)}) == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"workspace": "relative"},
        {"workspace": "/"},
        {"workspace": "/a/../b"},
        {"workspace": "//a"},
        {"workspace": "/a\0b"},
        {"workspace": "/proc/x"},
        {"workspace": "/etc"},
        {"workspace": "/usr/x"},
        {"workspace": "/lib"},
        {"read_only": ("/dev/x",)},
        {"read_only": ("/sys",)},
        {"read_only": ("/oldroot",)},
        {"tmp_bytes": 0},
        {"hostname": ""},
        {"hostname": "x" * 65},
    ],
)  # fmt: skip
def test_profile_refuses_what_cannot_be_meant(fields: dict[str, object]) -> None:
    """Bad mount points and sizes are errors when the profile is made."""
    with pytest.raises(ValueError, match=r"must|cover"):
        Profile(**fields)  # type: ignore[arg-type]


def test_profile_refuses_unknown_fields_and_other_networks() -> None:
    """What was misspelt is not silently left out."""
    for raw in (b'{"workspaces": "/w"}', b'{"network": "host"}', b'{"limits": {"cpu_s": -1}}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(raw, type=Profile)


@pytest.mark.parametrize("pair", [(0, 5), (5, 0), (5, 5)])
def test_ids_never_map_a_command_to_the_hosts_root(pair: tuple[int, int]) -> None:
    """Nor do set-up and command share one."""
    with pytest.raises(ValueError, match="root"):
        Ids(*pair)


def test_messages_survive_their_encoding() -> None:
    """Every message is itself again on the other side, bytes and all."""
    launch = Launch(7, Profile(), [b"a\xff"], env={"A": "b"}, cwd="x", tty=True, rows=1, cols=2, staged=True)
    assert protocol.decode_request(protocol.encode(launch)) == launch
    assert protocol.decode_request(protocol.encode(Kill(3))) == Kill(3)
    for reply in (Refused(1, "exec", 2, "m", "r"), Exited(1, 0, None, 0.5, 10)):
        assert protocol.decode_reply(protocol.encode(reply)) == reply


@pytest.mark.parametrize(
    "packet", [b"", b"\xc1", b"\x80", b"\x81\xa4type\xa4what", protocol.encode(Exited(1, 0, None, 0.0, 0))]
)
def test_decode_request_refuses_everything_else(packet: bytes) -> None:
    """Garbage, unknown types and the other direction's messages are errors."""
    with pytest.raises(ProtocolError):
        protocol.decode_request(packet)


def test_encode_refuses_too_many_arguments() -> None:
    """Environment and argv count together; one string has its own limit; the error says what to do."""
    with pytest.raises(MessageTooLargeError, match="file"):
        protocol.encode(Launch(1, Profile(), [b"x" * 65536] * 2, env={"A": "y" * 70000}))
    with pytest.raises(MessageTooLargeError, match="file"):
        protocol.encode(Launch(1, Profile(), [b"x" * (protocol.MAX_STRING_BYTES + 1)]))
    assert protocol.encode(Launch(1, Profile(), [b"x" * protocol.MAX_STRING_BYTES]))


def test_receive_refuses_a_cut_packet_and_closes_its_descriptors() -> None:
    """Too many descriptors: none of them stays open here."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(theirs, [b"x"], [0] * (protocol.MAX_FDS + 4))
        with pytest.raises(ProtocolError, match="cut"):
            protocol.receive(ours)
        assert len(os.listdir("/proc/self/fd")) == before


def test_client_drains_everything_and_then_tells_the_end() -> None:
    """Whole messages in order; then ZygoteGoneError, again and again."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = ZygoteClient(ours)
    assert client.receive() == []
    for number in (1, 2, 3):
        theirs.send(protocol.encode(Exited(number, 0, None, 0.0, 0)))
    theirs.close()
    assert [message.id for message, _ in client.receive()] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(ZygoteGoneError):
            client.receive()
    with pytest.raises(ZygoteGoneError):
        client.kill(1)
    client.close()


def test_client_gives_up_when_the_zygote_does_not_serve_it() -> None:
    """A zygote that hangs costs a bounded wait, and is told from one that is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        client = ZygoteClient(ours)
        with pytest.raises(ZygoteSilentError):
            client.wait_served(0.05)
        client.close()


def test_kernel_error_names_the_call() -> None:
    """errno, name and text of a failed call."""
    with pytest.raises(KernelError) as caught:
        invoke("umount2", b"/nonexistent", 0, subject="/nonexistent")
    assert caught.value.call == "umount2"
    assert caught.value.errno in {1, 2}
    assert "umount2(/nonexistent)" in str(caught.value)


def test_every_layer_has_a_remedy() -> None:
    """A refusal always says what can be done."""
    assert set(layers.REMEDIES) == set(Layer)
    error = LayerError.of(Layer.EXEC, FileNotFoundError(2, "No such file", "/x"))
    assert (error.layer, error.errno, error.message) == (Layer.EXEC, 2, "/x: No such file")
    assert error.remedy == layers.REMEDIES[Layer.EXEC]


def test_landlock_asks_only_for_what_a_version_knows() -> None:
    """Older kernels get fewer rights, not EINVAL."""
    assert [int(landlock.handled(version)).bit_length() for version in (1, 2, 3, 4, 5, 6, 7)] == [
        13,
        14,
        15,
        15,
        16,
        16,
        16,
    ]


def test_probe_finds_what_the_kernel_gives_and_leaves_nothing(tmp_path: os.PathLike[str]) -> None:
    """Every finding is typed, a missing one has a remedy, and the folder is empty again."""
    findings = probe.probe_all(os.fspath(tmp_path))
    assert [finding.feature for finding in findings] == [one.name for one in layers.PROTECTIONS]
    assert all(finding.available or (finding.remedy and finding.costs) for finding in findings)
    assert all(finding.detail for finding in findings)
    assert os.listdir(tmp_path) == []


def test_every_layer_that_may_be_lacking_is_tried_and_told() -> None:
    """One table: what an operator may allow to be missing, and a trial, a price and a remedy for each."""
    assert [one.name for one in layers.PROTECTIONS] == [*probe.PROBES]
    assert all(one.costs and one.remedy for one in layers.PROTECTIONS)
    allowed = get_args(get_args(get_type_hints(Sandbox)["may_be_missing"])[0])
    assert set(allowed) == layers.DEGRADABLE
    assert set(Sandbox().may_be_missing) == set(MAY_BE_MISSING) <= layers.DEGRADABLE
    assert layers.missing(landlock=False, cgroup=False) == ("landlock", "cgroup")
    assert layers.missing(landlock=True, cgroup=True) == ()


def test_probe_tells_a_folder_that_cannot_hold_stages() -> None:
    """A place where no stage can be made is a finding with its errno, not a crash."""
    (protection,) = (one for one in layers.PROTECTIONS if one.name == "overlay")
    finding = probe.probe(protection, "/proc")
    assert not finding.available
    assert not finding.required
    assert finding.errno is not None
    assert "/proc" in finding.detail


def test_encode_refuses_text_that_is_no_unicode() -> None:
    """A lone surrogate is a typed error, not a crash of the executor."""
    with pytest.raises(ProtocolError, match="Unicode"):
        protocol.encode(Launch(1, Profile(), [b"x"], env={"A": "\udc80"}))
