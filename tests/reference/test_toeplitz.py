# SPDX-License-Identifier: MIT
"""The Toeplitz hash against published vectors and against its algebra."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.reference import classify, toeplitz
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashReport, HashType
from tests.reference.frames import MICROSOFT_VECTORS, tcp_frame

VECTOR = ("destination", "dport", "source", "sport", "without_ports", "with_ports")


@pytest.mark.requirement("NET-HASH-09", "U-30")
@pytest.mark.parametrize(VECTOR, MICROSOFT_VECTORS)
def test_hash_of_microsofts_vectors(
    destination: str, dport: int, source: str, sport: int, without_ports: int, with_ports: int
) -> None:
    addresses = ip_address(source).packed + ip_address(destination).packed
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    assert toeplitz(VERIFICATION_KEY, addresses) == without_ports
    assert toeplitz(VERIFICATION_KEY, addresses + ports) == with_ports


@pytest.mark.requirement("NET-HASH-05", "NET-HASH-06", "NET-HASH-09", "NET-REP-01")
@pytest.mark.parametrize(VECTOR, MICROSOFT_VECTORS)
def test_classify_frames_of_microsofts_vectors(
    destination: str, dport: int, source: str, sport: int, without_ports: int, with_ports: int
) -> None:
    frame = tcp_frame(destination, dport, source, sport)
    is_v4 = "." in source
    tcp = classify(frame, ALL_HASH_TYPES, VERIFICATION_KEY)
    assert tcp.report == (HashReport.TCPV4 if is_v4 else HashReport.TCPV6)
    assert tcp.value == with_ports
    ip = classify(frame, HashType.IPV4 | HashType.IPV6, VERIFICATION_KEY)
    assert ip.report == (HashReport.IPV4 if is_v4 else HashReport.IPV6)
    assert ip.value == without_ports


@pytest.mark.requirement("NET-HASH-09")
@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        pytest.param("12345678 9a", "00", 0, id="no bit set"),
        pytest.param("12345678 9a", "80", 0x12345678, id="first bit: first 32 key bits"),
        pytest.param("12345678 9a", "40", 0x2468ACF1, id="second bit: key shifted by one"),
        pytest.param("12345678 9a", "01", 0x1A2B3C4D, id="last bit: key shifted by seven"),
        pytest.param("12345678 9a", "c0", 0x12345678 ^ 0x2468ACF1, id="two bits: added"),
        pytest.param("12345678 9a", "", 0, id="nothing to hash"),
    ],
)
def test_by_hand(key: str, data: str, expected: int) -> None:
    assert toeplitz(bytes.fromhex(key), bytes.fromhex(data)) == expected


@pytest.mark.requirement("U-13")
@given(key=st.binary(max_size=40), data=st.binary(max_size=36))
def test_short_key_is_zero_extended(key: bytes, data: bytes) -> None:
    assert toeplitz(key, data) == toeplitz(key.ljust(40, b"\0"), data)


@pytest.mark.requirement("NET-HASH-09")
@given(
    key=st.binary(min_size=40, max_size=40),
    pair=st.integers(0, 36).flatmap(
        lambda n: st.tuples(
            st.binary(min_size=n, max_size=n),
            st.binary(min_size=n, max_size=n),
        )
    ),
)
def test_invariant_the_hash_is_linear_in_its_input(key: bytes, pair: tuple[bytes, bytes]) -> None:
    one, other = pair
    both = bytes(a ^ b for a, b in zip(one, other, strict=True))
    assert toeplitz(key, both) == toeplitz(key, one) ^ toeplitz(key, other)
