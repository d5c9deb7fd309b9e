# SPDX-License-Identifier: MIT
"""The Toeplitz hash alone: batches of 32 inputs that stay in the first-level cache."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import built, cpu
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

_OURS: Final = (built("toeplitz"),)
_DPDK: Final = (built("toeplitz_dpdk"),)
_GFNI: Final = cpu("gfni", "avx512f")
_AVX512: Final = cpu("gfni", "avx512f", "avx512bw", "avx512vl", "vpclmulqdq")

_BEST: Final = "pyvnet"
_TABLES: Final = "pyvnet, portable tables"
_SOFT: Final = "DPDK rte_softrss_be"
_BULK: Final = "DPDK rte_thash_gfni_bulk"


def _loop(program: str, function: str) -> Setup:
    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        def measure() -> dict[str, float]:
            values = room.run(program, function, str(room.seconds))
            return {"ns_12": values["ns_12"], "ns_36": values["ns_36"]}

        yield measure

    return setup


ROW = Row(
    number=8,
    question="How long does the Toeplitz hash of one frame take?",
    meaning="What a hash costs on top of a frame: IPv4 with ports is 12 bytes, IPv6 36.",
    figures=(Figure("ns_12", "ns", better="less"), Figure("ns_36", "ns", better="less")),
    variants=(
        Variant(_BEST, _loop("toeplitz", "best"), needs=_OURS, ours=True),
        Variant(_TABLES, _loop("toeplitz", "tables"), needs=_OURS, ours=True),
        Variant(_BULK, _loop("toeplitz_dpdk", "gfni_bulk"), needs=(*_DPDK, _GFNI)),
        Variant("DPDK rte_thash_gfni", _loop("toeplitz_dpdk", "gfni"), needs=(*_DPDK, _GFNI)),
        Variant(_SOFT, _loop("toeplitz_dpdk", "softrss_be"), needs=_DPDK),
    ),
    goals=(
        Goal("ns_12", of=_BULK, to=_BEST, at_least=3, needs=(_AVX512,)),
        Goal("ns_36", of=_BULK, to=_BEST, at_least=2, needs=(_AVX512,)),
        Goal("ns_12", of=_SOFT, to=_TABLES, at_least=10),
        Goal("ns_36", of=_SOFT, to=_TABLES, at_least=10),
    ),
    seconds=0.4,
    keep=True,
)
