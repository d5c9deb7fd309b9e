# SPDX-License-Identifier: MIT
"""A tap of our own, and one that was there before: made, used and put back as it was."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from fcntl import ioctl
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Tap, rtnl, tun_uapi
from pyvnet.netdev.flows import start_flows
from tests.netdev import kernel
from tests.netdev.kernel import TapState, interfaces, ip, open_fds

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("private_netns"),
]

ETHERTYPE_EXPERIMENTAL = b"\x88\xb5"


def tap_info(name: str) -> rtnl.TunInfo:
    link = rtnl.get_link(name)
    assert link is not None
    assert link.tun is not None
    return link.tun


# --- a tap of our own ---------------------------------------------------------------


@pytest.mark.parametrize("queues", [1, 2, 4, 256])
def test_creates_a_tap_with_one_nonblocking_fd_per_queue(queues: int) -> None:
    before = open_fds()
    with Tap("ours", queues=queues) as tap:
        assert len(set(tap.fds)) == tap.queues == queues
        assert not any(os.get_blocking(fd) or os.get_inheritable(fd) for fd in tap.fds)
        assert tap.created
        info = tap_info("ours")
        assert info.tap
        assert info.vnet_header
        assert not info.packet_info
        assert info.multi_queue == (queues > 1)
        assert info.queues == (queues if queues > 1 else 0)
        assert struct.unpack("i", ioctl(tap.fds[-1], kernel.TUNGETVNETHDRSZ, bytes(4))) == (12,)
        link = rtnl.get_link("ours")
        assert link is not None
        assert link.up
        assert link.carrier
    assert tap.fds == ()
    assert interfaces() == {"lo"}
    assert open_fds() == before


def test_the_kernel_numbers_a_tap_without_a_name() -> None:
    with Tap(queues=1) as first, Tap(queues=2) as second:
        assert (first.name, second.name) == ("vnet0", "vnet1")
    with first:
        assert first.name == "vnet0"
    assert interfaces() == {"lo"}


def test_no_offload_is_on_until_a_driver_asks() -> None:
    with Tap("ours", queues=2):
        on = rtnl.offload_names("ours")
    assert not any(name.startswith(("tx-tcp", "tx-udp", "tx-checksum")) for name in on)


@pytest.mark.requirement("U-62")
@pytest.mark.parametrize("queues", [1, 3])
def test_fd_i_is_queue_i(queues: int) -> None:
    with Tap("ours", queues=queues) as tap, start_flows("ours", 8, 1) as flows:
        for wanted in range(queues):
            kernel.steer_all_to(tap.fds[0], wanted)
            for fd in tap.fds:
                kernel.drain(fd)
            assert sum(flows.batches()) == 8
            counts = [len(kernel.drain(fd)) for fd in tap.fds]
            assert counts[wanted] >= 8
            assert sum(counts) == counts[wanted]


def test_frames_carry_a_12_byte_header_both_ways_and_are_counted() -> None:
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + ETHERTYPE_EXPERIMENTAL + b"payload".ljust(46)
    with Tap("ours", queues=1) as tap, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("ours", 0x88B5))
        raw.send(frame)
        assert bytes(12) + frame in kernel.drain(tap.fds[0])
        assert os.write(tap.fds[0], bytes(12) + frame) == 12 + len(frame)
        statistics = tap.statistics()
        assert statistics.tx_packets >= 1
        assert (statistics.rx_packets, statistics.rx_bytes) == (1, len(frame))
        assert statistics.rx_dropped + statistics.tx_dropped == 0


def test_frames_nobody_reads_are_counted_as_the_kernels_drops() -> None:
    with (
        Tap("ours", queues=1) as tap,
        start_flows("ours", 8, 200) as flows,
    ):
        sent = sum(flows.batches())
        statistics = tap.statistics()
        assert sent == 1600
        read = len(kernel.drain(tap.fds[0]))
        assert read == 1000  # txqueuelen
        assert statistics.tx_dropped >= sent - read


def test_the_mtu_is_set_at_start() -> None:
    with Tap("ours", queues=2, mtu=9000):
        link = rtnl.get_link("ours")
        assert link is not None
        assert link.mtu == 9000


def test_carrier_follows_the_cable() -> None:
    with Tap("ours", queues=2) as tap:
        for on in (False, True):
            tap.set_carrier(on=on)
            link = rtnl.get_link("ours")
            assert link is not None
            assert link.carrier is on


def test_a_persistent_tap_stays_and_can_be_opened_again() -> None:
    with Tap("ours", queues=2, persist=True) as tap:
        assert tap.created
    assert interfaces() == {"lo", "ours"}
    with Tap("ours", queues=2, persist=True) as tap:
        assert not tap.created
    assert interfaces() == {"lo", "ours"}


def test_close_is_idempotent_and_open_is_not() -> None:
    tap = Tap("ours", queues=2)
    tap.close()
    tap.open()
    with pytest.raises(UsageError, match="open already"):
        tap.open()
    tap.close()
    tap.close()
    assert interfaces() == {"lo"}
    with pytest.raises(UsageError, match="not open"):
        tap.statistics()


def test_a_tap_deleted_under_us_closes_without_complaint() -> None:
    ip("tuntap", "add", "theirs", "mode", "tap", "multi_queue")
    for name, created in (("ours", True), ("theirs", False)):
        with Tap(name, queues=2, mtu=1400) as tap:
            assert tap.created is created
            ip("link", "delete", name)
    assert interfaces() == {"lo"}


def test_describes_itself() -> None:
    with Tap("ours", queues=2, mtu=1400) as tap:
        assert tap.describe() == {
            "kind": "tap",
            "queues": 2,
            "name": "ours",
            "created": True,
            "persist": False,
            "mtu": 1400,
            "netns": None,
            "bridge": None,
        }


# --- a tap that was there before ------------------------------------------------------


def make_foreign(words: str, *, up: bool, offload: int, header_size: int) -> TapState:
    """Make a persistent tap the way an administrator and some earlier program did."""
    ip("tuntap", "add", "theirs", "mode", "tap", "user", "65534", "group", "65534", *words.split())
    flags = kernel.IFF_TAP
    for word, bit in (("multi_queue", kernel.IFF_MULTI_QUEUE), ("vnet_hdr", kernel.IFF_VNET_HDR)):
        flags |= bit if word in words.split() else 0
    flags |= 0 if "pi" in words.split() else kernel.IFF_NO_PI
    fd = kernel.attach("theirs", flags)
    ioctl(fd, kernel.TUNSETVNETHDRSZ, struct.pack("i", header_size))
    ioctl(fd, kernel.TUNSETOFFLOAD, offload)
    os.close(fd)
    if up:
        ip("link", "set", "theirs", "up")
    return TapState.take("theirs")


@pytest.mark.parametrize("words", ["", "pi", "vnet_hdr", "multi_queue", "multi_queue vnet_hdr pi"])
@pytest.mark.parametrize(
    ("up", "offload", "header_size"),
    [
        pytest.param(False, 0, 10, id="down"),
        pytest.param(True, 0x1, 12, id="up-csum"),
        pytest.param(False, 0x6F, 20, id="down-all-segmentation"),
    ],
)
def test_a_foreign_tap_is_restored(words: str, up: bool, offload: int, header_size: int) -> None:
    before = make_foreign(words, up=up, offload=offload, header_size=header_size)
    fds = open_fds()
    with Tap("theirs", queues=2 if "multi" in words else 1, mtu=1400) as tap:
        assert not tap.created
        during = rtnl.get_link("theirs")
        assert during is not None
        assert during.tun is not None
        assert (during.up, during.mtu) == (True, 1400)
        assert (during.tun.vnet_header, during.tun.packet_info) == (True, False)
        assert tun_uapi.get_header_size(tap.fds[0]) == 12
        assert not any("segmentation" in name for name in tap_offloads("theirs"))
    after = TapState.take("theirs")
    assert (after.link.up, after.link.mtu) == (before.link.up, before.link.mtu)
    assert after.link.tun == before.link.tun
    assert after.offloads == before.offloads
    assert after.header_size == before.header_size
    assert open_fds() == fds


def tap_offloads(name: str) -> frozenset[str]:
    """Offloads the tap's reader decides about."""
    return rtnl.offload_names(name) & {
        "tx-checksum-ip-generic",
        "tx-tcp-segmentation",
        "tx-tcp6-segmentation",
        "tx-tcp-ecn-segmentation",
        "tx-udp-segmentation",
    }


def test_what_already_fits_is_not_touched() -> None:
    ip("tuntap", "add", "theirs", "mode", "tap", "multi_queue")
    ip("link", "set", "theirs", "mtu", "1400")
    with Tap("theirs", queues=2):
        link = rtnl.get_link("theirs")
        assert link is not None
        assert link.mtu == 1400


# --- refusals -----------------------------------------------------------------------


def occupied() -> int:
    return kernel.attach("theirs", kernel.IFF_TAP | kernel.IFF_NO_PI | kernel.IFF_MULTI_QUEUE)


def occupied_single() -> int:
    return kernel.attach("theirs", kernel.IFF_TAP | kernel.IFF_NO_PI)


def single_queue() -> None:
    ip("tuntap", "add", "theirs", "mode", "tap")


def tun_not_tap() -> None:
    ip("tuntap", "add", "theirs", "mode", "tun", "multi_queue")


def bridge() -> None:
    ip("link", "add", "theirs", "type", "bridge")


@pytest.mark.parametrize(
    ("scene", "queues", "message"),
    [
        (occupied, 2, "another program uses it: stop that one"),
        (occupied, 1, "another program uses it: stop that one"),
        (occupied_single, 1, "another program uses it: stop that one"),
        (single_queue, 2, "has a single queue and cannot get 2; make it with `ip tuntap"),
        (tun_not_tap, 2, "theirs exists and is not a tap; choose another name"),
        (bridge, 1, "theirs exists and is not a tap; choose another name"),
    ],
)
def test_a_name_that_is_taken(scene: Callable[[], int | None], queues: int, message: str) -> None:
    held = scene()
    fds = open_fds()
    links = ip("-details", "link", "show", "theirs")
    with pytest.raises(HostError, match=message):
        Tap("theirs", queues=queues).open()
    assert open_fds() == fds
    assert ip("-details", "link", "show", "theirs") == links
    if held is not None:
        os.close(held)


def test_more_queues_than_the_kernel_takes() -> None:
    fds = open_fds()
    with pytest.raises(HostError, match="at most 256 queues") as caught:
        Tap("ours", queues=257).open()
    assert caught.value.errno == errno.E2BIG
    assert interfaces() == {"lo"}
    assert open_fds() == fds


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "ä" * 8, "a b", "a/b", "a:b", ".", "..", "vnet%d", "a\0b", "a\n"]
)
def test_a_name_no_interface_may_have(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an interface"):
        Tap(name, queues=1)


@pytest.mark.parametrize("options", [{"queues": 0}, {"queues": -1}, {"mtu": 67}, {"mtu": 65522}])
def test_numbers_no_tap_can_have(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"asked for|MTU"):
        Tap("ours", **{"queues": 1, **options})


# --- every point of failure -----------------------------------------------------------


@pytest.fixture(params=["created", "persistent", "foreign"])
def fragile(request: pytest.FixtureRequest) -> Tap:
    """A tap whose opening takes every kind of step."""
    if request.param == "foreign":
        make_foreign("multi_queue vnet_hdr pi", up=False, offload=0x6F, header_size=20)
        return Tap("theirs", queues=3, mtu=1400)
    return Tap("ours", queues=3, mtu=1400, persist=request.param == "persistent")


def host_state() -> tuple[object, ...]:
    if "theirs" not in interfaces():
        return (interfaces(), open_fds())
    state = TapState.take("theirs")
    link = state.link
    return (
        *(interfaces(), open_fds(), state.offloads, state.header_size),
        *(link.up, link.mtu, link.tun),
    )


def refusal(tap: Tap) -> int | None:
    """The errno that opening failed with, None if it did not."""
    try:
        tap.open()
    except HostError as error:
        assert tap.fds == ()
        return error.errno
    return None


def test_running_out_of_fds_leaves_nothing_behind(fragile: Tap) -> None:
    before = host_state()
    for room in itertools.count():
        with kernel.room_for_fds(room):
            refused = refusal(fragile)
        if refused is None:
            break
        assert refused == errno.EMFILE
        assert host_state() == before
    fragile.close()
    assert room > 5


def test_a_failing_ioctl_leaves_nothing_behind(
    fragile: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = host_state()
    for victim in itertools.count():
        calls = itertools.count()

        def fail_once(*args: Any, _calls: Any = calls, _victim: int = victim) -> Any:
            if next(_calls) == _victim:
                raise OSError(errno.EIO, "injected")
            return ioctl(*args)

        with monkeypatch.context() as patched:
            patched.setattr(tun_uapi, "ioctl", fail_once)
            refused = refusal(fragile)
        if refused is None:
            break
        assert refused == errno.EIO
        assert host_state() == before
    fragile.close()
    assert victim >= 5
