# SPDX-License-Identifier: MIT
"""The independent second reading of hashing and steering: slow, obvious, no C.

``classify(frame, hash_types, key)`` and ``steer(...)`` answer "which hash, which
queue"; ``parse``, ``select``, ``hash_input`` and ``toeplitz`` are the steps in
between, for whoever asks why.
"""

from pyvnet.reference.parse import Flow, parse
from pyvnet.reference.steer import Hash, candidates, classify, hash_input, select, steer
from pyvnet.reference.toeplitz import toeplitz

__all__ = [
    "Flow",
    "Hash",
    "candidates",
    "classify",
    "hash_input",
    "parse",
    "select",
    "steer",
    "toeplitz",
]
