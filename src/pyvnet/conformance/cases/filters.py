# SPDX-License-Identifier: MIT
"""Receive modes, addresses and VLANs: which frames come.

That a frame does not come is seen by the one behind it, on the one receiveq in use,
which does.  Each case ends promiscuous reception first, since the standard does not say
how a device begins (U-31).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._commands import stations
from pyvnet.spec.ctrl import Ack, CtrlClass, MacCommand, RxCommand, pack_mac_table
from pyvnet.spec.features import Feature
from pyvnet.testing.frames import Ipv4, Vlan, build, udp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

OTHER: Final = bytes.fromhex("0250564e4501")
THIRD: Final = bytes.fromhex("0250564e4502")
GROUP: Final = bytes.fromhex("01005e010203")
OTHER_GROUP: Final = bytes.fromhex("333300010203")
EVERYBODY: Final = b"\xff" * 6
NAMES: Final = {
    OTHER: "another station", THIRD: "a third station", GROUP: "a group",
    OTHER_GROUP: "another group", EVERYBODY: "everybody",
}  # fmt: skip

_RX: Final = Feature.MAC | Feature.CTRL_RX
_EXTRA: Final = _RX | Feature.CTRL_RX_EXTRA


@lru_cache(4096)
def _to(mac: bytes, *vids: int, tpid: int = 0x8100) -> bytes:
    tags = [Vlan(vid, tpid=tpid) for vid in vids]
    return bytes(build(Ipv4(), udp(1024, 53), dst=mac.hex(":"), vlans=tags))


class _Filtered:
    """A driver on one receiveq, not promiscuous, and what comes through to it."""

    def __init__(self, t: Trial, drv: Driver) -> None:
        self.t = t
        self.drv = drv
        self.ctrl = drv.ctrl
        self.mac = drv.config.mac

    async def through(self, frames: Sequence[bytes], last: bytes) -> list[bytes]:
        """Which of the frames come, before the last, which must."""
        end = bytes(build(Ipv4(), udp(65000, 9), dst=last.hex(":")))
        for frame in (*frames, end):
            await self.t.inject(frame)
        seen = []
        while (data := (await self.t.receive(self.drv)).data) != end:
            if data in frames:
                seen.append(data)
        return seen

    async def reach(
        self, expected: Iterable[bytes], when: str, *, last: bytes | None = None
    ) -> None:
        """Frames to these addresses come, out of one to everyone of `NAMES` and to the device."""
        names = {self.mac: "the device", **NAMES}
        frames = {_to(mac): name for mac, name in names.items()}
        seen = await self.through(list(frames), last or self.mac)
        wanted = sorted(names[mac] for mac in expected)
        self.t.equal(sorted(frames[frame] for frame in seen), wanted, f"who is received {when}")

    async def tags(self, expected: Iterable[int], when: str, vids: Iterable[int]) -> None:
        """Frames to the device with these VLAN ids come, out of ``vids``."""
        frames = {_to(self.mac, vid): vid for vid in vids}
        seen = await self.through(list(frames), self.mac)
        self.t.equal([frames[frame] for frame in seen], list(expected), f"VLANs received {when}")


async def _filtered(t: Trial, features: Feature = _RX, **options: Any) -> _Filtered:
    drv = await t.negotiate(features, pairs=1, rx_buffers=64, **options)
    await drv.ctrl.rx_promisc(on=False)
    return _Filtered(t, drv)


# --- receive modes --------------------------------------------------------------------


@case("NET-FLT-12", needs=_RX, wire=True, control=True)
async def other_stations_are_filtered(t: Trial) -> None:
    """Not promiscuous, no table: the device's own address and broadcast, nothing else."""
    at = await _filtered(t)
    await at.reach((at.mac, EVERYBODY), "without any mode or table")


@case("NET-FLT-01", "NET-FLT-02", needs=_RX, wire=True, control=True)
async def promisc_receives_everything(t: Trial) -> None:
    """PROMISC is taken, lets every frame come, and ends again."""
    at = await _filtered(t)
    for _ in range(2):
        await at.ctrl.rx_promisc(on=True)
        await at.reach((at.mac, *NAMES), "with PROMISC")
        await at.ctrl.rx_promisc(on=False)
        await at.reach((at.mac, EVERYBODY), "after PROMISC")


@case("NET-FLT-01", "NET-FLT-03", needs=_RX, wire=True, control=True)
async def allmulti_receives_every_group(t: Trial) -> None:
    """ALLMULTI is taken, lets every multicast come and no other station, and ends again."""
    at = await _filtered(t)
    for _ in range(2):
        await at.ctrl.rx_allmulti(on=True)
        await at.reach((at.mac, GROUP, OTHER_GROUP, EVERYBODY), "with ALLMULTI")
        await at.ctrl.rx_allmulti(on=False)
        await at.reach((at.mac, EVERYBODY), "after ALLMULTI")


@case("NET-FLT-04", "NET-FLT-05", needs=_EXTRA, wire=True, control=True)
async def alluni_receives_every_station(t: Trial) -> None:
    """ALLUNI lets every unicast come and no group."""
    at = await _filtered(t, _EXTRA)
    await at.ctrl.rx_alluni(on=True)
    await at.reach((at.mac, OTHER, THIRD, EVERYBODY), "with ALLUNI")
    await at.ctrl.rx_alluni(on=False)
    await at.reach((at.mac, EVERYBODY), "after ALLUNI")


@case("NET-FLT-04", "NET-FLT-06", needs=_EXTRA, wire=True, control=True)
async def nomulti_wins_over_allmulti(t: Trial) -> None:
    """NOMULTI ends multicast, also with ALLMULTI and a table, and leaves broadcast alone."""
    at = await _filtered(t, _EXTRA)
    await at.ctrl.rx_allmulti(on=True)
    await at.ctrl.mac_table_set([], [GROUP])
    await at.ctrl.rx_nomulti(on=True)
    await at.reach((at.mac, EVERYBODY), "with ALLMULTI and NOMULTI")
    await at.ctrl.rx_allmulti(on=False)
    await at.reach((at.mac, EVERYBODY), "with a table and NOMULTI")
    await at.ctrl.rx_nomulti(on=False)
    await at.reach((at.mac, GROUP, EVERYBODY), "after NOMULTI")


@case("NET-FLT-04", "NET-FLT-07", needs=_EXTRA, wire=True, control=True)
async def nouni_wins_over_alluni(t: Trial) -> None:
    """NOUNI ends unicast, also with ALLUNI."""
    at = await _filtered(t, _EXTRA)
    await at.ctrl.rx_alluni(on=True)
    await at.ctrl.rx_nouni(on=True)
    await at.reach((EVERYBODY,), "with ALLUNI and NOUNI", last=EVERYBODY)
    await at.ctrl.rx_nouni(on=False)
    await at.reach((at.mac, OTHER, THIRD, EVERYBODY), "after NOUNI")


@case("NET-FLT-04", "NET-FLT-08", needs=_EXTRA, wire=True, control=True)
async def nobcast_wins_over_allmulti(t: Trial) -> None:
    """NOBCAST ends broadcast, also with ALLMULTI, and leaves groups alone."""
    at = await _filtered(t, _EXTRA)
    await at.ctrl.rx_nobcast(on=True)
    await at.reach((at.mac,), "with NOBCAST")
    await at.ctrl.rx_allmulti(on=True)
    await at.reach((at.mac, GROUP, OTHER_GROUP), "with ALLMULTI and NOBCAST")
    await at.ctrl.rx_nobcast(on=False)
    await at.reach((at.mac, GROUP, OTHER_GROUP, EVERYBODY), "after NOBCAST")


@case("NET-FLT-02", "U-34", needs=_EXTRA, wire=True, control=True)
async def promisc_wins_over_everything(t: Trial) -> None:
    """With PROMISC everything comes, whatever NOMULTI, NOUNI and NOBCAST say."""
    at = await _filtered(t, _EXTRA)
    for switch in (at.ctrl.rx_nomulti, at.ctrl.rx_nouni, at.ctrl.rx_nobcast, at.ctrl.rx_promisc):
        await switch(on=True)
    await at.reach((at.mac, *NAMES), "with PROMISC and every NO mode")


@case("U-31", needs=_RX, wire=True, control=True)
async def begins_promiscuous(t: Trial) -> None:
    """Before any command, and again after a reset, every frame comes."""
    at = await _filtered(t)
    await at.drv.negotiate(at.drv.features, pairs=1, rx_buffers=64)
    await t.started(at.drv)
    await _Filtered(t, at.drv).reach((at.mac, *NAMES), "after a reset")


@case("U-32", needs=_RX, wire=True, control=True)
async def any_byte_but_0_is_on(t: Trial) -> None:
    """A receive mode of 2 or 255 is on."""
    at = await _filtered(t)
    for byte in (2, 0x80, 0xFF):
        await at.ctrl.raw(CtrlClass.RX, RxCommand.ALLMULTI, bytes([byte]))
        await at.reach((at.mac, GROUP, OTHER_GROUP, EVERYBODY), f"with ALLMULTI {byte}")
        await at.ctrl.rx_allmulti(on=False)


@case("U-33", "OUR-CVQ-04", needs=_EXTRA, wire=True, control=True)
async def extra_modes_need_their_feature(t: Trial) -> None:
    """Without CTRL_RX_EXTRA its modes are refused and do nothing."""
    at = await _filtered(t)
    for mode in (RxCommand.ALLUNI, RxCommand.NOMULTI, RxCommand.NOUNI, RxCommand.NOBCAST):
        ack = await at.ctrl.raw(CtrlClass.RX, mode, b"\1", check=False)
        t.equal(ack, Ack.ERR, f"answer to {mode.name} without CTRL_RX_EXTRA")
    await at.reach((at.mac, EVERYBODY), "after modes that were refused")


@case("OUR-CVQ-06", "U-04", needs=_RX, wire=True, control=True)
async def a_mode_without_its_byte_changes_nothing(t: Trial) -> None:
    """PROMISC and ALLMULTI without data are refused and change nothing."""
    at = await _filtered(t)
    for mode in (RxCommand.PROMISC, RxCommand.ALLMULTI):
        t.equal(await at.ctrl.raw(CtrlClass.RX, mode, check=False), Ack.ERR, f"answer to {mode}")
    await at.reach((at.mac, EVERYBODY), "after modes that were refused")


# --- addresses ------------------------------------------------------------------------


@case("NET-FLT-10", "NET-FLT-12", needs=_RX, wire=True, control=True)
async def table_is_in_force_when_answered(t: Trial) -> None:
    """MAC_TABLE_SET lets the addresses in both lists come, replaces the old ones, and empties."""
    at = await _filtered(t)
    for unicast, multicast in (
        ([OTHER], [GROUP]),
        ([THIRD], []),
        ([], [OTHER_GROUP]),
        ([OTHER, THIRD], [GROUP, OTHER_GROUP]),
        ([], []),
    ):
        await at.ctrl.mac_table_set(unicast, multicast)
        named = f"with {len(unicast)} stations and {len(multicast)} groups in the table"
        await at.reach((at.mac, EVERYBODY, *unicast, *multicast), named)


@case("NET-FLT-09", "U-59", needs=_RX, wire=True, control=True)
async def table_is_empty_after_reset(t: Trial) -> None:
    """Addresses of before a reset are forgotten."""
    at = await _filtered(t)
    await at.ctrl.mac_table_set([OTHER], [GROUP])
    await at.drv.negotiate(at.drv.features, pairs=1, rx_buffers=64)
    await t.started(at.drv)
    await at.drv.ctrl.rx_promisc(on=False)
    await _Filtered(t, at.drv).reach((at.mac, EVERYBODY), "after a reset")


@case("OUR-CVQ-06", "U-04", needs=_RX, wire=True, control=True)
async def a_cut_table_changes_nothing(t: Trial) -> None:
    """MAC_TABLE_SET that ends inside its lists is refused, and the table stays as it was."""
    at = await _filtered(t)
    await at.ctrl.mac_table_set([OTHER], [GROUP])
    payload = pack_mac_table([THIRD], [OTHER_GROUP])
    for length in (0, 3, 4, 9, 10, 13, 14, 19):
        cut = payload[:length]
        ack = await at.ctrl.raw(CtrlClass.MAC, MacCommand.TABLE_SET, cut, check=False)
        t.equal(ack, Ack.ERR, f"answer to MAC_TABLE_SET of {length} bytes")
    await at.reach((at.mac, EVERYBODY, OTHER, GROUP), "after tables that were refused")


@case("NET-FLT-13", "U-36", needs=_RX, wire=True, control=True)
async def long_tables_lose_nobody(t: Trial) -> None:
    """A long table is taken: those in it come, filtered exactly or not."""
    at = await _filtered(t)
    many = stations(300)
    await at.ctrl.mac_table_set(many, [b"\1" + mac[1:] for mac in many])
    wanted = [_to(many[0]), _to(many[150]), _to(many[-1]), _to(b"\1" + many[-1][1:])]
    seen = await at.through(wanted, at.mac)
    t.equal(len(seen), len(wanted), "frames that came, to 4 of 600 addresses in the table")


@case("NET-FLT-11", needs=Feature.MAC | Feature.CTRL_MAC_ADDR, control=True)
async def address_is_shown_when_answered(t: Trial) -> None:
    """Configuration space has the address of MAC_ADDR_SET once that is answered."""
    drv = await t.negotiate(Feature.MAC | Feature.CTRL_MAC_ADDR, pairs=1, rx_buffers=8)
    for mac in (OTHER, THIRD, OTHER):
        await drv.ctrl.mac_addr_set(mac)
        t.equal((await drv.read_config()).mac.hex(":"), mac.hex(":"), "mac in configuration space")


@case("NET-FLT-11", "NET-FLT-12", needs=_RX | Feature.CTRL_MAC_ADDR, wire=True, control=True)
async def address_is_in_force_when_answered(t: Trial) -> None:
    """From MAC_ADDR_SET on frames to the new address come, and those to the old one do not."""
    at = await _filtered(t, _RX | Feature.CTRL_MAC_ADDR)
    await at.ctrl.mac_addr_set(OTHER)
    await at.reach((OTHER, EVERYBODY), "with another address", last=OTHER)


@case("U-37", needs=Feature.MAC | Feature.CTRL_MAC_ADDR, control=True)
async def addresses_of_no_station_are_refused(t: Trial) -> None:
    """MAC_ADDR_SET of a group, of broadcast or of zero is refused, and the address stays."""
    drv = await t.negotiate(Feature.MAC | Feature.CTRL_MAC_ADDR, pairs=1, rx_buffers=8)
    await drv.ctrl.mac_addr_set(OTHER)
    for mac in (GROUP, EVERYBODY, bytes(6)):
        ack = await drv.ctrl.mac_addr_set(mac, check=False)
        t.equal(ack, Ack.ERR, f"answer to MAC_ADDR_SET of {mac.hex(':')}")
        t.equal((await drv.read_config()).mac.hex(":"), OTHER.hex(":"), "mac afterwards")


@case("U-48", "U-59", needs=Feature.MAC | Feature.CTRL_MAC_ADDR, control=True)
async def reset_brings_the_address_back(t: Trial) -> None:
    """After a reset the device has its own address again."""
    drv = await t.negotiate(Feature.MAC | Feature.CTRL_MAC_ADDR, pairs=1, rx_buffers=8)
    own = drv.config.mac
    await drv.ctrl.mac_addr_set(OTHER)
    await drv.negotiate(drv.features, pairs=1, rx_buffers=8)
    t.equal((await drv.read_config()).mac.hex(":"), own.hex(":"), "mac after a reset")


# --- VLANs ----------------------------------------------------------------------------

_VIDS: Final = (1, 7, 8, 2048, 4095)
_VLAN: Final = _RX | Feature.CTRL_VLAN


@case("NET-VLAN-01", needs=_RX, wire=True, control=True)
async def tags_come_without_ctrl_vlan(t: Trial) -> None:
    """Without CTRL_VLAN frames of every VLAN come."""
    at = await _filtered(t)
    await at.tags(_VIDS, "without CTRL_VLAN", _VIDS)


@case("NET-VLAN-02", "NET-VLAN-03", needs=_VLAN, wire=True, control=True)
async def tags_in_the_table_come(t: Trial) -> None:
    """VLAN_ADD lets frames of a VLAN come, VLAN_DEL ends it; the others are dropped."""
    at = await _filtered(t, _VLAN)
    await at.tags((), "before any VLAN_ADD", _VIDS)
    for vid in _VIDS:
        await at.ctrl.vlan_add(vid)
        await at.tags((vid,), f"with VLAN {vid}", _VIDS)
        await at.ctrl.vlan_del(vid)
    for vid in _VIDS:
        await at.ctrl.vlan_add(vid)
    await at.ctrl.vlan_del(8)
    await at.tags([vid for vid in _VIDS if vid != 8], "with all but VLAN 8", _VIDS)


@case("NET-VLAN-02", "NET-FLT-12", needs=_VLAN, wire=True, control=True)
async def untagged_frames_come(t: Trial) -> None:
    """With CTRL_VLAN and an empty table frames without a tag come, filtered by address."""
    at = await _filtered(t, _VLAN)
    await at.reach((at.mac, EVERYBODY), "with CTRL_VLAN and no VLAN")


@case("OUR-VLAN-04", needs=_VLAN, wire=True, control=True)
async def vlans_are_forgotten_at_reset(t: Trial) -> None:
    """The VLAN table is empty after a reset."""
    at = await _filtered(t, _VLAN)
    await at.ctrl.vlan_add(7)
    await at.drv.negotiate(at.drv.features, pairs=1, rx_buffers=64)
    await t.started(at.drv)
    await at.drv.ctrl.rx_promisc(on=False)
    await _Filtered(t, at.drv).tags((), "after a reset", _VIDS)


@case("OUR-VLAN-04", needs=_VLAN, wire=True, control=True)
async def vlans_may_be_named_twice(t: Trial) -> None:
    """Adding a VLAN twice, or deleting one that is not there, is OK and changes no other."""
    at = await _filtered(t, _VLAN)
    for _ in range(2):
        await at.ctrl.vlan_add(7)
    for vid in (8, 8, 4095):
        await at.ctrl.vlan_del(vid)
    await at.tags((7,), "with VLAN 7 added twice", _VIDS)
    await at.ctrl.vlan_del(7)
    await at.tags((), "with VLAN 7 deleted once", _VIDS)


@case("OUR-VLAN-04", "OUR-CVQ-06", needs=_VLAN, wire=True, control=True)
async def vlan_ids_above_4095_are_refused(t: Trial) -> None:
    """VLAN_ADD and VLAN_DEL of what is no VLAN id, or half of one, change nothing."""
    at = await _filtered(t, _VLAN)
    await at.ctrl.vlan_add(7)
    for vid in (4096, 4096 + 8, 0x8007, 0xFFFF):
        t.equal(await at.ctrl.vlan_add(vid, check=False), Ack.ERR, f"answer to VLAN_ADD of {vid}")
        t.equal(await at.ctrl.vlan_del(vid, check=False), Ack.ERR, f"answer to VLAN_DEL of {vid}")
    for command in (0, 1):
        ack = await at.ctrl.raw(CtrlClass.VLAN, command, b"\x07", check=False)
        t.equal(ack, Ack.ERR, "answer to half a VLAN id")
    await at.tags((7,), "after ids that were refused", _VIDS)


@case("U-35", needs=_VLAN, wire=True, control=True)
async def priority_tags_are_no_vlan(t: Trial) -> None:
    """A tag with VLAN id 0 counts as none; of two tags the outermost counts, also a provider's."""
    at = await _filtered(t, _VLAN)
    await at.ctrl.vlan_add(7)
    frames = {
        _to(at.mac, 0): "priority only",
        _to(at.mac, 7, 8): "7, inside 8",
        _to(at.mac, 7, tpid=0x88A8): "7 of a provider",
    }
    others = [_to(at.mac, 8, 7), _to(at.mac, 8, tpid=0x88A8)]
    seen = await at.through([*frames, *others], at.mac)
    t.equal([frames.get(frame, "8 outermost") for frame in seen], list(frames.values()), "tags")


@case("U-34", needs=_VLAN, wire=True, control=True)
async def promisc_wins_over_vlans(t: Trial) -> None:
    """With PROMISC frames of every VLAN come."""
    at = await _filtered(t, _VLAN)
    await at.ctrl.rx_promisc(on=True)
    await at.tags(_VIDS, "with PROMISC and no VLAN", _VIDS)
