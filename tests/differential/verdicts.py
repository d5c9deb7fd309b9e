# SPDX-License-Identifier: MIT
"""Both readings of one frame: the C frame path and the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self

from pyvnet import reference
from pyvnet.datapath.policy import Policy

if TYPE_CHECKING:
    import random

UNCLASSIFIED: Final = 200


class Answer(NamedTuple):
    """Hash value, report and receive queue."""

    value: int
    report: int
    queue: int


class Readers:
    """One key and one indirection table; C policies are made once per set of types."""

    def __init__(self, key: bytes, indirection_table: tuple[int, ...]) -> None:
        self._key = key
        self._table = indirection_table
        self._policies: dict[tuple[int, bool], Policy] = {}

    @classmethod
    def random(cls, rng: random.Random) -> Self:
        """A random key, and a table that never names the unclassified queue."""
        return cls(rng.randbytes(40), tuple(rng.randrange(UNCLASSIFIED) for _ in range(128)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for policy in self._policies.values():
            policy.close()

    @property
    def key(self) -> bytes:
        """Of the hash."""
        return self._key

    def native(self, frame: bytes, hash_types: int, *, ex_types_always: bool = False) -> Answer:
        """What the C path decides."""
        policy = self._policies.get((hash_types, ex_types_always))
        if policy is None:
            policy = self._policies[hash_types, ex_types_always] = Policy.create(
                mode="rss",
                hash_types=hash_types,
                key=self._key,
                indirection_table=self._table,
                unclassified_queue=UNCLASSIFIED,
                ex_types_always=ex_types_always,
            )
        return Answer(*policy.classify(frame))

    def reference(self, frame: bytes, hash_types: int, *, ex_types_always: bool = False) -> Answer:
        """What the reference decides."""
        hashed = reference.classify(frame, hash_types, self._key, ex_types_always=ex_types_always)
        queue = reference.steer(hashed, self._table, UNCLASSIFIED)
        return Answer(hashed.value, hashed.report, queue)
