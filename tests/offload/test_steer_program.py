# SPDX-License-Identifier: MIT
"""The program in the kernel chooses the receiveq that the C path and the reference choose."""

from __future__ import annotations

import json
import subprocess
import sys
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.datapath.policy import Policy
from pyvnet.offload import bpf
from pyvnet.spec.rss import ALL_HASH_TYPES
from pyvnet.testing import frames
from tests.differential.axes import LIMITS, PORTS, Planner
from tests.differential.cases import build_case
from tests.differential.samples import ANYTHING, CHAINS, FRAMES, chain_frame
from tests.offload.steered import Program, Rss

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

pytestmark = [pytest.mark.needs_root, pytest.mark.may_leak("the module's program")]

# What the verifier followed when this was written, and some room for other kernels.
VERIFIED = 40_000
ETHERNET = 14
"""Bytes of the shortest frame the kernel hands to a tap."""

# Another process looks, since two threads of one would take turns.
LOOK = """
import json, sys
from pyvnet.offload import bpf
program, frames = int(sys.argv[1]), [bytes.fromhex(word) for word in sys.argv[2:]]
seen, before, changes = [set() for _ in frames], [-1] * len(frames), 0
while changes < 400:
    for i, frame in enumerate(frames):
        queue = bpf.run_program(program, frame).result
        seen[i].add(queue)
        changes += queue != before[i]
        before[i] = queue
print(json.dumps([sorted(queues) for queues in seen]))
"""

TYPES = st.integers(0, ALL_HASH_TYPES)


@pytest.fixture(scope="module")
def steered() -> Iterator[Program]:
    with Program() as made:
        yield made


def agrees(steered: Program, rss: Rss, frame: bytes) -> None:
    """All three readings of one frame, under the configuration published."""
    told = f"{rss}, frame {frame.hex()}"
    assert steered.queue(frame) == steered.core(frame) == rss.reference(frame), told


def test_the_verifier_follows_few_paths(steered: Program) -> None:
    assert 0 < bpf.program_info(steered.fds.program).verified_instructions < VERIFIED


@pytest.mark.requirement("U-20", "U-21", "U-22", "U-23", "U-24", "U-25", "U-29")
@pytest.mark.parametrize("name", FRAMES)
def test_cut_at_every_byte(steered: Program, name: str, vnet_random: random.Random) -> None:
    frame = FRAMES[name]
    rng = vnet_random
    for types in (ALL_HASH_TYPES, 0x3F):
        for always in (False, True):
            key, table = rng.randbytes(40), tuple(rng.randrange(255) for _ in range(128))
            steered.publish(Rss(types, key, table, unclassified=255, always=always))
            for size in range(ETHERNET, len(frame) + 1):
                data = frame.data[:size]
                told = f"{size} bytes, cut in {frame.field_at(size)}"
                assert steered.queue(data) == steered.core(data), told


@pytest.mark.requirement("NET-HASH-05", "NET-HASH-06", "NET-HASH-07", "U-19", "U-58", "U-14")
def test_every_set_of_types_chooses_alike(steered: Program, vnet_random: random.Random) -> None:
    chain = [frames.destination_options(frames.home_address("2001:db8::aaaa"), frames.padn(2))]
    some = [
        frames.build(ip, l4).data
        for ip in (frames.Ipv4(), frames.Ipv6(), frames.Ipv6(extensions=chain))
        for l4 in (frames.tcp(), frames.udp(), frames.icmp())
    ]
    rng = vnet_random
    for types in range(ALL_HASH_TYPES + 1):
        rss = Rss.random(rng, hash_types=types, always=types % 3 == 0)
        steered.publish(rss)
        for frame in some:
            assert steered.queue(frame) == steered.core(frame), f"{rss}, frame {frame.hex()}"


@pytest.mark.requirement("U-20", "U-21", "U-22", "U-24")
@pytest.mark.parametrize("part", ["PORTS", *LIMITS])
def test_chains_at_their_limits(steered: Program, part: str, vnet_random: random.Random) -> None:
    """Plans of the coverage matrix, each in three sizes."""
    rng = vnet_random
    planner = Planner(rng, LIMITS.get(part, PORTS), strict=part not in LIMITS)
    for plan in rng.sample(planner.covering_array(), 12):
        case = build_case(plan, rng)
        rss = Rss.random(rng, hash_types=case.hash_types, always=case.ex_types_always)
        steered.publish(rss)
        for size in (len(case.data), *rng.choices(range(ETHERNET, len(case.data) + 1), k=2)):
            agrees(steered, rss, case.data[:size])


@pytest.mark.requirement("U-21", "U-24")
@settings(max_examples=100, deadline=None)
@given(data=ANYTHING, types=TYPES, chance=st.randoms(use_true_random=False))
def test_any_bytes(steered: Program, data: bytes, types: int, chance: random.Random) -> None:
    rss = Rss.random(chance, hash_types=types)
    steered.publish(rss)
    agrees(steered, rss, data.ljust(ETHERNET, b"\0"))


@pytest.mark.requirement("U-20", "U-21", "U-22")
@settings(max_examples=150, deadline=None)
@given(chain=CHAINS, types=TYPES, chance=st.randoms(use_true_random=False))
def test_any_chain(
    steered: Program, chain: list[tuple[int, int, bytes]], types: int, chance: random.Random
) -> None:
    rss = Rss.random(chance, hash_types=types)
    steered.publish(rss)
    agrees(steered, rss, chain_frame(chain))


@pytest.mark.requirement("U-20", "U-21", "U-22", "U-24")
def test_many_chains(steered: Program, vnet_random: random.Random) -> None:
    """More than hypothesis would make in the time, and the C path alone to compare with."""
    rng = vnet_random
    kinds = (0, 6, 17, 43, 44, 51, 60, 60, 135, 139, 140, 50, 59)
    for _ in range(40):
        rss = Rss.random(rng, hash_types=rng.choice((ALL_HASH_TYPES, rng.randrange(512))))
        steered.publish(rss)
        for _ in range(40):
            options = [bytes([201, 16]) + rng.randbytes(16), b"\0", bytes([1, 2, 0, 0])]
            chain = [
                (
                    rng.choice(kinds),
                    rng.choice((0, 0, 1, 2, 2, 3)),
                    b"".join(rng.choices(options, k=2))[: rng.choice((6, 14, 22, 22, 30))]
                    if rng.random() < 0.7
                    else bytes([2, 1]) + rng.randbytes(20),
                )
                for _ in range(rng.randrange(1, 19))
            ]
            frame = chain_frame(chain)
            assert steered.queue(frame) == steered.core(frame), f"{rss}, frame {frame.hex()}"


def test_a_policy_without_rss_leaves_every_frame_to_the_first_queue(steered: Program) -> None:
    steered.publish(Rss(ALL_HASH_TYPES, bytes(range(40)), (3,), unclassified=5))
    assert steered.queue(FRAMES["v4 tcp"].data) == 3
    with Policy.create(mode="automatic", hash_types=ALL_HASH_TYPES, key=b"key", pairs=4) as other:
        steered.map.publish(other)
        for frame in FRAMES.values():
            assert steered.queue(frame.data) == 0


@pytest.mark.requirement("U-57")
def test_a_frame_sees_one_configuration_or_the_other(
    steered: Program, vnet_random: random.Random
) -> None:
    """Key, types and table change together while another process has frames steered."""
    data = [FRAMES[name].data for name in ("v4 tcp", "v6 udp", "v6 every header", "arp")]
    rng = vnet_random
    first = Rss(0x3F, rng.randbytes(40), tuple(range(128)), unclassified=128)
    second = Rss(ALL_HASH_TYPES, rng.randbytes(40), (*range(255, 191, -1),) * 2, unclassified=191)
    allowed: list[set[int]] = [set() for _ in data]
    for rss in (first, second):
        steered.publish(rss)
        for queues, frame in zip(allowed, data, strict=True):
            queues.add(steered.queue(frame))
    assert [len(queues) for queues in allowed] == [2] * len(data)
    words = [sys.executable, "-c", LOOK, str(steered.fds.program), *(f.hex() for f in data)]
    with (
        subprocess.Popen(words, pass_fds=[steered.fds.program], stdout=PIPE) as looking,
        first.policy() as one,
        second.policy() as other,
    ):
        assert looking.stdout is not None
        while looking.poll() is None:
            steered.map.publish(one)
            steered.map.publish(other)
        assert [set(queues) for queues in json.loads(looking.stdout.read())] == allowed
