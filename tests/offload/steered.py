# SPDX-License-Identifier: MIT
"""The steering program beside the readings it has to agree with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pyvnet import reference
from pyvnet.datapath.policy import Policy
from pyvnet.datapath.steering_map import SteeringMap
from pyvnet.offload import bpf, program

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class Rss:
    """A steering configuration."""

    hash_types: int
    key: bytes
    table: tuple[int, ...]
    unclassified: int
    always: bool = False

    @classmethod
    def random(cls, rng: random.Random, **given: Any) -> Self:
        """Anything a driver may set; queues up to 255."""
        made = cls(
            hash_types=rng.randrange(512),
            key=rng.randbytes(rng.choice((1, 16, 39, 40, 40, 40))),
            table=tuple(rng.randrange(256) for _ in range(1 << rng.choice((0, 1, 4, 6, 7, 7)))),
            unclassified=rng.randrange(256),
            always=rng.random() < 0.3,
        )
        return replace(made, **given)

    def policy(self) -> Policy:
        """For the frame path."""
        return Policy.create(
            mode="rss",
            hash_types=self.hash_types,
            key=self.key,
            indirection_table=self.table,
            unclassified_queue=self.unclassified,
            ex_types_always=self.always,
        )

    def reference(self, frame: bytes) -> int:
        """The queue by the reference."""
        key = self.key.ljust(40, b"\0")
        hashed = reference.classify(frame, self.hash_types, key, ex_types_always=self.always)
        return reference.steer(hashed, self.table, self.unclassified)


class Program:
    """Program and map, loaded, and the policy published last."""

    def __init__(self) -> None:
        self.fds = program.load()
        self.map = SteeringMap(self.fds.map, fresh=True)
        self.policy: Policy | None = None

    def publish(self, rss: Rss) -> None:
        """Let the program steer by it."""
        if self.policy is not None:
            self.policy.close()
        self.policy = rss.policy()
        self.map.publish(self.policy)

    def queue(self, frame: bytes) -> int:
        """Where the program puts a frame."""
        return bpf.run_program(self.fds.program, frame).result

    def core(self, frame: bytes) -> int:
        """Where the C path puts it."""
        assert self.policy is not None
        return self.policy.classify(frame).queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.policy is not None:
            self.policy.close()
        self.map.close()
        self.fds.close()
