# SPDX-License-Identifier: MIT
"""Which hash a frame gets, and how it is reported: every kind of frame under every hash type.

Kinds of frames the standard speaks of are apart from those it leaves open, which are
judged by our decisions and never held against anybody as a MUST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases import _frames
from pyvnet.conformance.cases._bursts import LONG
from pyvnet.conformance.cases._frames import flow, flows
from pyvnet.conformance.cases._steering import (
    EX_TYPES,
    OTHER_KEY,
    as_seen,
    configure,
    deliver,
    judge_group,
    judge_hash,
    plain_types,
    refuses,
    rss,
    several,
    steered,
    unchanged,
)
from pyvnet.spec.ctrl import Ack, CtrlClass, MqCommand
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import VERIFICATION_KEY, HashConfig, HashReport, HashType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

T = HashType
_V4: Final = T.IPV4 | T.TCPV4 | T.UDPV4
_V6: Final = T.IPV6 | T.TCPV6 | T.UDPV6
_EX: Final = EX_TYPES
_V4_SETS: Final = (_V4, T.IPV4, T.TCPV4, T.UDPV4, T.IPV4 | T.UDPV4, T.IPV4 | T.TCPV4)
_V6_SETS: Final = (_V6, T.IPV6, T.TCPV6, T.UDPV6, T.IPV6 | T.UDPV6, T.IPV6 | T.TCPV6)
_EX_SETS: Final = (_EX | _V6, _EX, T.IP_EX, T.TCP_EX, T.UDP_EX, T.TCP_EX | T.IPV6)


async def _reporting(t: Trial) -> tuple[Driver, int, bytes]:
    """A driver that gets reports, by RSS where it is offered; plain types, and a key."""
    drv = await steered(t, Feature.HASH_REPORT | t.offered & Feature.RSS, pairs=1)
    return drv, int(plain_types(drv)), VERIFICATION_KEY[: drv.config.rss_max_key_size]


async def _judge(
    t: Trial, group: Mapping[str, bytes], sets: tuple[HashType, ...], *, also_all: bool = True
) -> None:
    """Judge a group under some sets of types, and under all the device has but the EX types."""
    drv, types, key = await _reporting(t)
    await judge_group(t, drv, group, [*map(int, sets), *([types] if also_all else [])], key)


async def _judge_flows(t: Trial, drv: Driver, types: int, key: bytes, what: str = "") -> None:
    arrived = await deliver(t, drv, flows(8))
    for number, frame in enumerate(flows(8)):
        judge_hash(t, arrived[frame], types, key, f"flow {number}", under=what)


# --- what the standard says -----------------------------------------------------------


@case("NET-HASH-04", "NET-REP-02", "U-02", needs=Feature.HASH_REPORT, wire=True, control=True)
async def nothing_is_reported_before_configuration(t: Trial) -> None:
    """Until a command says what to hash every report is NONE."""
    drv, _, _ = await _reporting(t)
    for frame in (await deliver(t, drv, flows(8))).values():
        t.equal(HashReport(frame.hash_report).name, "NONE", "hash_report before configuration")


@case("NET-HASH-01", "NET-HASH-03", needs=Feature.HASH_REPORT, wire=True, control=True)
async def hash_config_switches_reports_on(t: Trial) -> None:
    """HASH_REPORT without RSS: HASH_CONFIG is taken and says what is hashed, and how."""
    drv = await steered(t, Feature.HASH_REPORT)
    key = VERIFICATION_KEY[: drv.config.rss_max_key_size]
    for types in (plain_types(drv), plain_types(drv) & (T.TCPV4 | T.UDPV6), plain_types(drv)):
        await drv.ctrl.hash_config(HashConfig(int(types), key))
        await _judge_flows(t, drv, int(types), key)


@case("NET-HASH-02", needs=Feature.HASH_REPORT | Feature.RSS, wire=True, control=True)
async def rss_config_governs_reports(t: Trial) -> None:
    """With RSS the reports are by types and key of RSS_CONFIG, whatever HASH_CONFIG said before."""
    drv = await steered(t)
    first = HashConfig(int(plain_types(drv)), OTHER_KEY[: drv.config.rss_max_key_size])
    await drv.ctrl.raw(CtrlClass.MQ, MqCommand.HASH_CONFIG, first.pack(), check=False)
    config = rss(drv, hash_types=int(plain_types(drv) & ~(T.UDPV4 | T.TCPV6)))
    await drv.ctrl.rss_config(config)
    await _judge_flows(t, drv, config.hash_types, config.key)


@case("NET-HASH-09", "NET-REP-01", "U-30", needs=Feature.HASH_REPORT, wire=True, control=True)
async def hash_is_toeplitz_with_the_key_given(t: Trial) -> None:
    """Under keys of single bits, of ones, and of any bytes, the value is that of Toeplitz."""
    drv, types, _ = await _reporting(t)
    size = drv.config.rss_max_key_size
    keys = [OTHER_KEY[:size], b"\xff" * size, VERIFICATION_KEY[:size]]
    keys += [
        (1 << (8 * size - 1 - bit)).to_bytes(size)
        for bit in (0, 127, 128, 8 * size - 2, 8 * size - 1)
    ]
    frames = [*_frames.ipv4().values(), *_frames.ipv6().values()][::2]
    for key in keys:
        await configure(drv, types, key)
        arrived = await deliver(t, drv, frames)
        for number, frame in enumerate(frames):
            where = f" under key {key.hex()}"
            judge_hash(t, arrived[frame], types, key, f"frame {number}", under=where)


@case(
    "NET-HASH-05", "NET-HASH-08", "NET-REP-01", "NET-REP-03", "U-27",
    needs=Feature.HASH_REPORT, wire=True, control=True,
)  # fmt: skip
async def ipv4_is_hashed_by_the_first_type_that_is_on(t: Trial) -> None:
    """TCP, UDP, other protocols, options: the transport's type if on, else IPv4, else none."""
    await _judge(t, _frames.ipv4(), _V4_SETS)


@case(
    "NET-HASH-06", "NET-HASH-08", "NET-REP-01", "NET-REP-03", "U-27",
    needs=Feature.HASH_REPORT, wire=True, control=True,
)  # fmt: skip
async def ipv6_is_hashed_by_the_first_type_that_is_on(t: Trial) -> None:
    """Without extension headers: the transport's type if on, else IPv6, else none."""
    await _judge(t, _frames.ipv6(), _V6_SETS)


@case("NET-HASH-07", "NET-REP-03", needs=Feature.HASH_REPORT, wire=True, control=True)
async def ipv6_extensions_are_hashed_by_ex_types(t: Trial) -> None:
    """With options, home addresses and routing headers: the EX types, with the addresses there."""
    await _judge(t, _frames.extended(), _EX_SETS)


@case("NET-HASH-07", "NET-HASH-06", needs=Feature.HASH_REPORT, wire=True, control=True)
async def ipv6_extensions_are_skipped_without_ex_types(t: Trial) -> None:
    """Without EX types the headers are skipped, and addresses are those of the IPv6 header."""
    await _judge(t, _frames.extended(), _V6_SETS, also_all=False)


@case(
    "NET-REP-02", "NET-HASH-05", "NET-HASH-06", needs=Feature.HASH_REPORT, wire=True, control=True
)
async def types_of_the_other_version_do_not_count(t: Trial) -> None:
    """IPv4 under types of IPv6, and the other way round, is not hashed."""
    group = dict(list(_frames.ipv4().items())[:5] + list(_frames.ipv6().items())[:5])
    await _judge(t, group, (_V4, _V6), also_all=False)


@case("NET-REP-02", "U-26", needs=Feature.HASH_REPORT, wire=True, control=True)
async def what_is_not_ip_is_reported_as_none(t: Trial) -> None:
    """ARP, LLDP, LLC and unknown EtherTypes have no hash."""
    await _judge(t, _frames.not_ip(), ())


@case("NET-REP-02", needs=Feature.HASH_REPORT, wire=True, control=True)
async def reports_end_with_the_types(t: Trial) -> None:
    """Once all types are off again reports are NONE."""
    drv = await steered(t, Feature.HASH_REPORT)
    key = VERIFICATION_KEY[: drv.config.rss_max_key_size]
    for types in (int(plain_types(drv)), 0):
        await drv.ctrl.hash_config(HashConfig(types, key))
        await _judge_flows(t, drv, types, key, f" under {types:#x}")


@case("NET-HASH-04", "U-59", needs=Feature.HASH_REPORT, wire=True, control=True)
async def reset_ends_reports(t: Trial) -> None:
    """After a reset all types are off."""
    drv, types, key = await _reporting(t)
    await configure(drv, types, key)
    await deliver(t, drv, flows(4))
    await drv.negotiate(drv.features, pairs=1, rx_buffers=64)
    await t.started(drv)
    for frame in (await deliver(t, drv, flows(8))).values():
        t.equal(HashReport(frame.hash_report).name, "NONE", "hash_report after the reset")


@case(
    "OUR-RX-19", "NET-RX-01", needs=Feature.HASH_REPORT | Feature.MRG_RXBUF, wire=True, control=True
)
async def merged_frames_are_reported_once(t: Trial) -> None:
    """A frame over many small buffers: hash in the first header, and nothing of it in the data."""
    drv = await steered(t, Feature.HASH_REPORT | Feature.MRG_RXBUF, rx_buffer_size=128)
    key = VERIFICATION_KEY[: drv.config.rss_max_key_size]
    await configure(drv, int(plain_types(drv)), key)
    frames = [flow(number, 600 + 130 * number) for number in range(6)]
    arrived = await deliver(t, drv, frames)
    for frame in frames:
        seen, whole = arrived[frame], 20 + len(frame)
        judge_hash(t, seen, plain_types(drv), key, f"a frame of {len(frame)} bytes")
        t.equal(seen.header.num_buffers, -(-whole // 128), f"num_buffers of {whole} bytes by 128")


# --- what the standard leaves open ----------------------------------------------------


@case("U-03", needs=Feature.HASH_REPORT, wire=True, control=True)
async def no_hash_leaves_no_value(t: Trial) -> None:
    """hash_value and padding are 0 where the report is NONE."""
    drv, types, key = await _reporting(t)
    await configure(drv, types, key)
    mixed = [f for pair in zip(flows(4), _frames.not_ip().values(), strict=True) for f in pair]
    arrived = await deliver(t, drv, mixed)
    for frame in _frames.not_ip().values():
        header = arrived[frame].header
        t.equal((header.hash_value, header.padding_reserved), (0, 0), "hash_value and padding")


@case("U-58", "NET-HASH-07", needs=Feature.HASH_REPORT, wire=True, control=True)
async def ip_ex_comes_before_the_plain_types(t: Trial) -> None:
    """TCP and UDP with extension headers under IP_EX and plain types, without the EX type."""
    sets = (_V6 | T.IP_EX, T.TCPV6 | T.IP_EX, T.UDPV6 | T.TCP_EX | T.IP_EX, T.IPV6 | T.IP_EX)
    await _judge(t, _frames.extended(), sets, also_all=False)


@case("U-19", needs=Feature.HASH_REPORT, wire=True, control=True)
async def ex_types_are_for_extension_headers_only(t: Trial) -> None:
    """IPv6 without extension headers is hashed by the plain types even if the EX types are on."""
    await _judge(t, _frames.ipv6(), (_EX | _V6, _EX, _EX | T.IPV6))


@case("U-20", needs=Feature.HASH_REPORT, wire=True, control=True)
async def which_headers_are_extensions(t: Trial) -> None:
    """AH, mobility, HIP and Shim6 are walked like the others; ESP and No Next Header end it."""
    await _judge(t, _frames.other_headers(), (_V6, _EX, T.IP_EX | T.IPV6))


@case("U-21", needs=Feature.HASH_REPORT, wire=True, control=True)
async def long_chains_end_somewhere(t: Trial) -> None:
    """16 headers, 64 options and 1024 bytes are looked at; ports beyond are not used."""
    await _judge(t, _frames.long_chains(), (_V6, _EX))


@case("U-22", needs=Feature.HASH_REPORT, wire=True, control=True)
async def invalid_addresses_are_not_used(t: Trial) -> None:
    """Home addresses and routing headers that are wrong leave the address of the IPv6 header."""
    await _judge(t, _frames.invalid_addresses(), (_EX,))


@case("U-23", needs=Feature.HASH_REPORT, wire=True, control=True)
async def fragments_have_no_ports(t: Trial) -> None:
    """First, later and atomic fragments are hashed by addresses alone."""
    sets = (_V4 | _V6, T.UDPV4 | T.TCPV4 | T.UDPV6 | T.TCPV6, _EX | _V6)
    await _judge(t, _frames.fragments(), sets)


@case("U-24", "U-29", "U-64", needs=Feature.HASH_REPORT, wire=True, control=True)
async def frames_cut_short_are_hashed_by_what_is_there(t: Trial) -> None:
    """Frames that end inside a header, or lie about lengths: the type whose fields are there."""
    await _judge(t, _frames.cut_short(), (_V4 | _V6,))


@case("U-25", needs=Feature.HASH_REPORT, wire=True, control=True)
async def vlan_tags_are_skipped(t: Trial) -> None:
    """Frames are hashed behind one tag or two; behind three there is no hash."""
    await _judge(t, _frames.tagged(), (_V4 | _V6,))


@case("U-26", needs=Feature.HASH_REPORT, wire=True, control=True)
async def encapsulated_ip_is_not_hashed(t: Trial) -> None:
    """IP in PPPoE and MPLS has no hash."""
    await _judge(t, _frames.encapsulated(), ())


@case("U-28", needs=Feature.HASH_REPORT | Feature.GUEST_TSO4, wire=True, control=True)
async def bursts_have_the_hash_of_their_headers(t: Trial) -> None:
    """A burst that comes whole has one hash, and in segments each the same: that of its flow."""
    if not t.wire.carries_header:
        t.not_applicable(f"{t.wire.describe()} carries no virtio header")
    features = Feature.HASH_REPORT | Feature.GUEST_TSO4 | t.offered & Feature.RSS
    drv = await steered(t, features, pairs=1)
    types, key = int(plain_types(drv)), VERIFICATION_KEY[: drv.config.rss_max_key_size]
    await configure(drv, types, key)
    burst, last = LONG[0], flow(0, 30)
    asked = burst.asked(segments=True)
    await t.inject(asked.frame, asked.header.pack())
    await t.inject(last)
    came = 0
    while (seen := await t.receive(drv)).data != last:
        came += len(seen.data)
        how = "whole" if seen.header.gso_type else "a segment"
        judge_hash(t, seen, types, key, f"a {burst.name} burst, {how}")
    t.check(came >= len(burst.payload), f"{came} bytes came of a burst of {len(burst.frame)}")


@case("U-17", needs=Feature.HASH_REPORT | Feature.RSS, wire=True, control=True)
async def hash_config_is_refused_while_rss_governs(t: Trial) -> None:
    """After RSS_CONFIG, HASH_CONFIG is answered ERR and changes no report."""
    drv = await steered(t)
    config = rss(drv)
    await drv.ctrl.rss_config(config)
    before = await as_seen(t, drv, flows(8))
    await refuses(t, drv, HashConfig(1, OTHER_KEY), "HASH_CONFIG after RSS_CONFIG")
    await unchanged(t, drv, before, "after HASH_CONFIG was refused")


@case("U-15", needs=Feature.HASH_REPORT | Feature.RSS | Feature.MQ, wire=True, control=True)
async def reports_go_on_after_vq_pairs_set(t: Trial) -> None:
    """VQ_PAIRS_SET ends RSS, not the reports; HASH_CONFIG is then taken again."""
    drv = await several(t, Feature.HASH_REPORT | Feature.RSS | Feature.MQ)
    config = rss(drv)
    await drv.ctrl.rss_config(config)
    await drv.ctrl.vq_pairs_set(1)
    await _judge_flows(t, drv, config.hash_types, config.key)
    await drv.ctrl.hash_config(HashConfig(config.hash_types, OTHER_KEY))
    await _judge_flows(t, drv, config.hash_types, OTHER_KEY)


@case("U-18", needs=Feature.HASH_REPORT, control=True)
async def reserved_fields_are_ignored(t: Trial) -> None:
    """HASH_CONFIG with anything in its reserved fields is answered OK."""
    drv = await steered(t, Feature.HASH_REPORT)
    for reserved in ((0, 0, 0, 4), (1, 2, 3, 4), (0xFFFF,) * 4):
        config = HashConfig(int(plain_types(drv)), VERIFICATION_KEY, reserved)
        ack = await drv.ctrl.hash_config(config, check=False)
        t.equal(ack, Ack.OK, f"answer with reserved fields {reserved}")


@case(
    "NET-RSS-06", "U-08", "U-13", "OUR-CVQ-06", needs=Feature.HASH_REPORT, wire=True, control=True
)
async def bad_hash_configs_change_nothing(t: Trial) -> None:
    """Types or keys the device does not have, and cut commands: ERR, and reports stay as before."""
    drv = await steered(t, Feature.HASH_REPORT)
    most = drv.config.rss_max_key_size
    types, key = int(plain_types(drv)), VERIFICATION_KEY[:most]
    await drv.ctrl.hash_config(HashConfig(types, key))
    before = await as_seen(t, drv, flows(8))
    unknown = [1 << bit for bit in range(32) if not drv.config.supported_hash_types >> bit & 1]
    bad = {f"types {bit:#x}": HashConfig(bit, OTHER_KEY) for bit in (*unknown[:1], *unknown[-1:])}
    bad["no key"] = HashConfig(types, b"")
    if most < 255:
        bad["a key that is too long"] = HashConfig(1, OTHER_KEY.ljust(most + 1, b"\0"))
    bad["a key that is cut"] = HashConfig(1, OTHER_KEY[:20], key_length=40)
    for what, config in bad.items():
        await refuses(t, drv, config, f"HASH_CONFIG with {what}")
        await unchanged(t, drv, before, f"after {what} was refused")


@case("OUR-CVQ-04", "NET-HASH-03", needs=Feature.HASH_REPORT | Feature.MQ, control=True)
async def hash_config_needs_hash_report(t: Trial) -> None:
    """Without HASH_REPORT, HASH_CONFIG is refused."""
    drv = await steered(t, Feature.MQ)
    await refuses(t, drv, HashConfig(1, VERIFICATION_KEY), "HASH_CONFIG without HASH_REPORT")
