# SPDX-License-Identifier: MIT
"""The frames of the coverage matrix on their way through a tap, configuration by configuration.

A frame keeps the hash types, their order and the key that both readings hashed it with;
it meets an indirection table and an unclassified queue of its own here, and what is asked
is which tap queue the kernel put it on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet import reference
from pyvnet.datapath.policy import Policy
from pyvnet.datapath.steering_map import SteeringMap
from pyvnet.offload import program
from tests.differential.observe import observe
from tests.differential.steered_tap import ETHERNET, ROOM, Aimed, SteeredTap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.differential.axes import Plan
    from tests.differential.cases import Case

QUEUES: Final = 200  # of the tap: a wrong one is seldom the right one by accident
_LENGTHS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 128, 128, 128)


class Hashing(NamedTuple):
    """What a frame is hashed with."""

    key: bytes
    hash_types: int
    ex_types_always: bool


class Rss(NamedTuple):
    """A whole configuration."""

    key: bytes
    hash_types: int
    ex_types_always: bool
    table: tuple[int, ...]
    unclassified: int

    def policy(self, queues: int) -> Policy:
        """As the frame path and the program are told of it."""
        return Policy.create(
            mode="rss",
            hash_types=self.hash_types,
            key=self.key,
            ex_types_always=self.ex_types_always,
            indirection_table=self.table,
            unclassified_queue=self.unclassified,
            pairs=queues,
            port_queues=queues,
        )


class Steered:
    """Frames collected, then sent."""

    def __init__(self) -> None:
        self.recut: list[tuple[Plan, Plan]] = []  # from, to
        self.sent = 0
        self._rng = random.Random(17)
        self._frames: dict[Hashing, list[tuple[bytes, reference.Hash]]] = defaultdict(list)

    def add(self, case: Case, plan: Plan, key: bytes, hashed: reference.Hash) -> None:
        """A frame, its plan, and its hash.

        The kernel sends nothing shorter than an Ethernet header: what is cut in there is
        cut behind it.
        """
        if len(case.data) < ETHERNET:
            spans = [
                (start, end) for _, start, end in case.frame.fields() if ETHERNET <= start < end
            ]
            case.data = case.frame.data[: self._rng.randrange(*self._rng.choice(spans))]
            self.recut.append((plan, observe(case)))
            hashed = reference.classify(
                case.data, case.hash_types, key, ex_types_always=case.ex_types_always
            )
        self.put(case.data, Hashing(key, case.hash_types, case.ex_types_always), hashed)

    def put(self, frame: bytes, hashing: Hashing, hashed: reference.Hash) -> None:
        """A frame of at least an Ethernet header, and its hash."""
        self._frames[hashing].append((frame, hashed))

    def send(
        self, tap: SteeredTap, told: SteeringMap, slip: Callable[[Rss], Rss] = lambda rss: rss
    ) -> Iterator[str]:
        """Send each frame twice, through the queueing discipline and past it.

        Args:
            tap: where the program is attached.
            told: what the program goes by.
            slip: makes of a configuration the one that the program is told.

        Yields:
            What there is to complain about: a frame that came out of another queue than
            the reference names, or the C path.
        """
        self.sent = 0
        for hashing, frames in self._frames.items():
            length = self._rng.choice(_LENGTHS)
            table = tuple(self._rng.randrange(tap.queues) for _ in range(length))
            unclassified = self._rng.randrange(tap.queues)
            rss = Rss(*hashing, table, unclassified)
            with rss.policy(tap.queues) as policy, slip(rss).policy(tap.queues) as published:
                publish(told, published)
                aimed = []
                for frame, hashed in frames:
                    queue = reference.steer(hashed, table, unclassified)
                    aimed.append(Aimed(frame, queue))
                    if policy.classify(frame).queue != queue:
                        yield f"C and reference differ: {frame.hex()}"
            for begin in range(0, len(aimed), ROOM):
                for bypass in (False, True):
                    part = aimed[begin : begin + ROOM]
                    for complaint in tap.astray(part, bypass=bypass):
                        yield f"{complaint}; {hashing}, {length} entries, bypass {bypass}"
                    self.sent += len(part)


@contextmanager
def steered_tap() -> Iterator[tuple[SteeredTap, SteeringMap]]:
    """A tap that the steering program steers, and the map that the program goes by."""
    with SteeredTap(QUEUES) as tap, program.load() as fds, SteeringMap(fds.map, fresh=True) as told:
        tap.attach(fds.program)
        yield tap, told


def publish(told: SteeringMap, policy: Policy) -> None:
    """Steer by a policy from now on, without waiting for frames under way: there are none."""
    told._free_slots = 1
    told.publish(policy)
