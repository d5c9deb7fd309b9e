# SPDX-License-Identifier: MIT
"""What a failed expectation shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.reference import classify, hash_input, parse, steer, toeplitz
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashReport, HashType
from pyvnet.testing import ExpectationError
from pyvnet.testing.decode import decode, in_words
from pyvnet.testing.explain import explain, hash_slip, queue_slip
from pyvnet.testing.frames import (
    Ipv4,
    Ipv6,
    Vlan,
    build,
    destination_options,
    fragment_header,
    home_address,
    hop_by_hop,
    icmp,
    routing_type2,
    sctp,
    tcp,
    udp,
)
from pyvnet.testing.steering import Steering
from tests.testing.suites import Suite

if TYPE_CHECKING:
    from pyvnet.testing import Vnet

pytest_plugins = ("pytester",)

TCP4 = build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(1024, 80))
MOBILE = build(Ipv6(extensions=[destination_options(home_address("2001:db8::9"))]), udp(1, 2))
TABLE = tuple(i * 5 % 8 for i in range(128))
STEERING = Steering(
    rss=True,
    hash_types=ALL_HASH_TYPES,
    key=VERIFICATION_KEY,
    table=TABLE,
    unclassified_queue=7,
)


def lines_of(text: str) -> list[str]:
    """Without columns' blanks."""
    return [re.sub(r" +", " ", line.strip()) for line in text.splitlines()]


async def test_expected_and_seen_stand_side_by_side(vnet: Vnet) -> None:
    await vnet.steer(table=(3, 3))
    vnet.inject(build(Ipv4("192.0.2.1", "192.0.2.3"), tcp(1024, 80)))
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect(TCP4, queue=1, report=HashReport.TCPV4)
    shown = lines_of(str(caught.value))
    assert shown[0] == "not as expected: another frame; queue 3, expected 1"
    assert "≠ queue 1 3" in shown
    assert "hash_report TCPV4 (2) TCPV4 (2)" in shown
    assert "ipv4.src c0000201 192.0.2.1 c0000201 192.0.2.1" in shown
    assert "≠ ipv4.dst c0000202 192.0.2.2 c0000203 192.0.2.3" in shown
    assert "receiveq 3 = indirection_table" in " ".join(shown)


async def test_the_way_to_the_queue_is_spelled_out(vnet: Vnet) -> None:
    """Types tried, addresses and ports, key bytes, hash, slot, receiveq."""
    await vnet.steer(hash_types=HashType.IPV4 | HashType.UDP_EX, key=bytes(range(40)))
    vnet.inject(TCP4)
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect(TCP4, hash=1)
    shown = lines_of(str(caught.value))
    value = toeplitz(bytes(range(40)), hash_input(parse(TCP4.data), HashType.IPV4))
    for line in (
        "type TCPV4: applies, but is not enabled",
        "type IPV4: enabled, applies: taken",
        "UDPV4: not UDP",
        "IPV6, TCPV6, UDPV6, IP_EX, TCP_EX, UDP_EX: not IPv6",
        "input c0000201 source address 192.0.2.1",
        "c0000202 destination address 192.0.2.2",
        "key 00010203 04050607 08090a0b (bytes 0 to 11 of 40)",
        f"hash 0x{value:08x}, report IPV4 (1)",
        f"slot 0x{value:08x} & 0x7f = {value & 127}",
        f"receiveq {value & 127 & 3} = indirection_table[{value & 127}]",
    ):
        assert line in shown


async def test_a_slip_in_what_is_expected_is_recognized(vnet: Vnet) -> None:
    await vnet.steer()
    vnet.inject(TCP4)
    turned = build(Ipv4("192.0.2.2", "192.0.2.1"), tcp(80, 1024))
    wrong = vnet.predict(turned)["hash"]
    with pytest.raises(
        ExpectationError,
        match=f"expected  0x{wrong:08x} is the hash of type TCPV4 with addresses and ports swapped",
    ):
        await vnet.expect(TCP4, hash=wrong)


async def test_nothing_came_and_why(vnet: Vnet) -> None:
    await vnet.driver.ctrl.rx_promisc(on=False)
    vnet.inject(TCP4)
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect(TCP4)
    shown = str(caught.value)
    assert shown.startswith("expected a frame of 54 bytes; no frame came; lost by the device: 1 × ")
    assert "rx_drop_filtered (receive modes, MAC table or VLAN table refuse it)" in shown
    assert "counters that moved: rx_port_frames +1, rx_drop_filtered +1" in shown


async def test_frames_of_other_queues_are_listed(vnet: Vnet) -> None:
    await vnet.steer()
    frames = [build(Ipv6(), udp(port, 53)) for port in range(20)]
    vnet.inject(*frames)
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect(TCP4)
    shown = str(caught.value)
    report = rf"queue \d, hash 0x[0-9a-f]{{8}}, UDPV6 \(6\): {len(frames[0])} bytes: UDP \["
    assert len(re.findall(report, shown)) == 8
    assert "… and 11 more" in shown


async def test_a_frame_where_silence_was_expected(vnet: Vnet) -> None:
    vnet.inject(TCP4)
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect_nothing()
    shown = lines_of(str(caught.value))
    assert shown[0] == (
        "expected nothing; came on queue 0: 54 bytes: TCP 192.0.2.1:1024 > 192.0.2.2:80"
    )
    assert "tcp.dport 0050 80" in shown


async def test_the_driver_s_frame_on_the_wire(vnet: Vnet) -> None:
    await vnet.send(build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(1024, 81)))
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect_sent(TCP4, gso_size=9)
    shown = lines_of(str(caught.value))
    assert shown[0] == "not as expected: another frame; gso_size 0, expected 9"
    assert "≠ tcp.dport 0050 80 0051 81" in shown
    assert "by the reference" not in str(caught.value)


async def test_long_frames_are_folded(vnet: Vnet) -> None:
    """Rows that are equal are counted, and of those that differ the first are shown."""
    payload = bytes(range(256)) * 200
    seen = bytearray(payload)
    seen[20_000:20_100] = bytes(100)
    vnet.inject(build(Ipv4(), tcp(payload=bytes(seen))))
    expected = build(Ipv4(), tcp(payload=payload))
    with pytest.raises(ExpectationError) as caught:
        await vnet.expect(expected)
    shown = str(caught.value)
    assert "… 20000 equal bytes" in shown
    assert shown.count("payload @") == 7
    assert len(shown.splitlines()) < 70


def test_the_report_is_the_picture_and_the_user_s_line(pytester: pytest.Pytester) -> None:
    """Nobody wants to read our frames of the stack, nor the event loop's."""
    body = """
    async def test_one(vnet):
        vnet.inject(FRAME)
        await vnet.expect(OTHER)

    def test_two(vnet_plain):
        vnet_plain.inject(FRAME)
        vnet_plain.expect(OTHER)
    """
    result = Suite(pytester)(body)
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert text.count("E       ") > 20
    assert ">       await vnet.expect(OTHER)" in text
    assert ">       vnet_plain.expect(OTHER)" in text
    assert "def expect(" not in text
    assert "base_events.py" not in text
    result.stdout.fnmatch_lines(["FAILED *test_one - *"])


# --- decoding and explaining -----------------------------------------------------------------

FRAMES = {
    "tcp": TCP4,
    "mobile": MOBILE,
    "tagged": build(Ipv4(options=bytes(4)), sctp(), vlans=[Vlan(7, pcp=3), Vlan(9)]),
    "fragment": build(Ipv6(extensions=[fragment_header(2, more=True)]), udp()),
    "first fragment": build(Ipv4(more_fragments=True), udp()),
    "icmp": build(Ipv6(extensions=[hop_by_hop()]), icmp(128)),
    "type 2": build(Ipv6(extensions=[routing_type2("2001:db8::7")]), tcp()),
}


@pytest.mark.parametrize("name", FRAMES)
def test_fields_have_the_builder_s_names_and_bytes(name: str) -> None:
    frame = FRAMES[name]
    found = {(field.name, field.start) for field in decode(frame.data)}
    skip = {"payload", "tcp.rest", "udp.rest", "sctp.rest", "icmp.header"}
    named = {
        (field, start)
        for field, start, end in frame.fields()
        if field not in skip and end > start and not (name == "fragment" and field[:3] == "udp")
    }
    assert named <= found


@given(
    st.sampled_from(sorted(FRAMES)),
    st.integers(0, 200),
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=6),
)
def test_any_bytes_are_shown_whole(name: str, cut: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FRAMES[name].data[:cut])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    frame = bytes(data)
    fields = decode(frame)
    assert b"".join(field.data for field in fields) == frame
    assert [field.start for field in fields] == [
        sum(len(f.data) for f in fields[:i]) for i in range(len(fields))
    ]
    assert in_words(frame).startswith(f"{len(frame)} bytes")


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(FRAMES)),
    st.integers(0, int(ALL_HASH_TYPES)),
    st.binary(min_size=1, max_size=40),
    st.booleans(),
)
def test_an_explanation_ends_where_the_reference_does(
    name: str, types: int, key: bytes, always: bool
) -> None:
    frame = FRAMES[name].data
    steering = Steering(
        rss=True,
        hash_types=HashType(types),
        key=key,
        table=TABLE,
        unclassified_queue=7,
        ex_types_always=always,
    )
    hashed = classify(frame, types, key, ex_types_always=always)
    text = "\n".join(explain(frame, steering))
    queue = steer(hashed, TABLE, 7)
    assert re.search(rf"receiveq  {queue}\b", text)
    if hashed.report:
        assert f"0x{hashed.value:08x}, report {hashed.report.name}" in text
    else:
        assert "unclassified_queue" in text


def value_of(frame: bytes, hash_type: HashType, key: bytes = VERIFICATION_KEY) -> int:
    return toeplitz(key, hash_input(parse(frame), hash_type))


@pytest.mark.parametrize(
    ("frame", "seen", "slip"),
    [
        (TCP4, value_of(TCP4.data, HashType.IPV4), "the hash of type IPV4"),
        (MOBILE, value_of(MOBILE.data, HashType.UDPV6), "the hash of type UDPV6"),
        (
            TCP4,
            value_of(build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(80, 1024)).data, HashType.TCPV4),
            "the hash of type TCPV4 with the ports swapped",
        ),
        (
            TCP4,
            value_of(TCP4.data, HashType.TCPV4, VERIFICATION_KEY[::-1]),
            "the hash of type TCPV4 with the key's bytes reversed",
        ),
        (
            TCP4,
            int.from_bytes(value_of(TCP4.data, HashType.TCPV4).to_bytes(4, "big"), "little"),
            "the hash of type TCPV4 with its bytes reversed",
        ),
        (TCP4, 0x12345678, ""),
        (build(Ipv4(version=5), tcp()), 0x12345678, ""),
    ],
)
def test_well_known_slips_of_a_hash(frame: object, seen: int, slip: str) -> None:
    assert hash_slip(bytes(frame), STEERING, seen) == slip  # type: ignore[call-overload]


def test_well_known_slips_of_a_queue() -> None:
    value = value_of(TCP4.data, HashType.TCPV4)
    upper = TABLE[value >> 25]
    assert queue_slip(TCP4.data, STEERING, upper) == "the slot taken from the hash's upper bits"
    assert queue_slip(TCP4.data, STEERING, 7) == "the unclassified_queue"
    assert queue_slip(TCP4.data, STEERING, 200) == ""
