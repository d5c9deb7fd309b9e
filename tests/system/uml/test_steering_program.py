# SPDX-License-Identifier: MIT
"""The steering program on an older kernel, by its verifier and without a compiler: the guest's."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.steering_map import SteeringMap
from pyvnet.offload import program
from pyvnet.spec.rss import ALL_HASH_TYPES
from tests.differential.samples import FRAMES
from tests.offload.steered import Rss
from tests.system.uml.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.uml.build import Built

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs_program("linux.uml", "busybox", "ethtool", "ip", "gcc"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
]

VERIFIED = 40_000
"""Instructions a verifier follows; half of it when this was written."""


def map_value(rss: Rss, size: int) -> bytes:
    """What the map has once the configuration is published."""
    fd = os.memfd_create("steering")
    try:
        os.truncate(fd, size + -size % 4096)
        os.pwrite(fd, struct.pack("=II", program.MAP_MAGIC, program.MAP_LAYOUT), 0)
        with SteeringMap(fd, fresh=True) as steering, rss.policy() as policy:
            steering.publish(policy)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


@pytest.mark.one_loop("the guest's kernel is asked, not ours")
async def test_it_loads_and_names_the_same_queues(built: Built, tmp_path: Path) -> None:
    rng = random.Random(61)
    table = tuple(rng.randrange(255) for _ in range(128))
    rss = Rss(ALL_HASH_TYPES, rng.randbytes(40), table, unclassified=255)
    some = [frame.data[:size] for frame in FRAMES.values() for size in range(14, len(frame), 9)]
    image = program.image()
    (spec,), (takes_map,) = image.maps, image.relocations
    (tmp_path / "program").write_bytes(image.instructions)
    (tmp_path / "map").write_bytes(map_value(rss, spec.value_size))
    (tmp_path / "frames").write_bytes(b"".join(struct.pack("<H", len(f)) + f for f in some))
    async with Machine(built, tmp_path) as machine:
        said = await machine.sh(f"steer_load /share {takes_map.instruction}")
    followed, *queues = said.splitlines()
    assert 0 < int(followed.split()[1]) < VERIFIED
    with rss.policy() as policy:
        assert [int(queue) for queue in queues] == [policy.classify(frame).queue for frame in some]
