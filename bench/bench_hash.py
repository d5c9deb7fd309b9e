# SPDX-License-Identifier: MIT
"""How long do parse and hash take?

    python bench/bench_hash.py

Batches of 32 frames of one kind, all in the first-level cache; the kinds take turns, so
that drift of the machine touches all of them.
"""

from __future__ import annotations

import ctypes
import platform
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from pyvnet.testing import frames

ROOT = Path(__file__).parent.parent
BATCH, STRIDE, ROUNDS, SAMPLES = 32, 128, 500, 301


def kinds(rng: random.Random) -> dict[str, list[bytes]]:
    """Frames with random addresses and ports."""

    def batch(size: int, l4: str) -> list[bytes]:
        build = {"tcp": frames.tcp, "udp": frames.udp}[l4]
        ip = frames.Ipv4 if size == 4 else frames.Ipv6
        return [
            frames.build(
                ip(rng.randbytes(size), rng.randbytes(size)),
                build(rng.randrange(65536), rng.randrange(65536)),
            ).data
            for _ in range(BATCH)
        ]

    option = [frames.destination_options(frames.padn(4), frames.home_address("2001:db8::1"))]
    v6 = [
        frames.build(frames.Ipv6(rng.randbytes(16), rng.randbytes(16), option), frames.udp()).data
        for _ in range(BATCH)
    ]
    mixed = batch(4, "udp")[:8] + batch(4, "tcp")[:8] + batch(16, "udp")[:8] + batch(16, "tcp")[:8]
    rng.shuffle(mixed)
    return {
        "IPv4 UDP": batch(4, "udp"),
        "IPv6 TCP": batch(16, "tcp"),
        "IPv6 home address": v6,
        "mixed": mixed,
    }


def compiled(directory: str) -> ctypes.CDLL:
    """The loop, with the sources of the frame path, as the package compiles them."""
    library = Path(directory) / "hash_loop.so"
    sources = ["bench/hash_loop.c", "native/src/parse.c", "native/src/hash.c"]
    command = ["cc", "-O2", "-shared", "-fPIC", "-Inative/include", "-Inative/src"]
    subprocess.run([*command, "-o", library, *sources], check=True, cwd=ROOT)  # noqa: S603 - ours
    loop = ctypes.CDLL(str(library))
    loop.hash_loop.restype = ctypes.c_double
    return loop


def measure(loop: ctypes.CDLL, batch: list[bytes], types: int) -> float:
    """Nanoseconds a frame."""
    memory = b"".join(frame.ljust(STRIDE, b"\0") for frame in batch)
    lengths = (ctypes.c_uint32 * BATCH)(*map(len, batch))
    total = ctypes.c_uint32()
    nanoseconds: float = loop.hash_loop(
        memory, lengths, BATCH, ROUNDS, types, VERIFICATION_KEY, ctypes.byref(total)
    )
    return nanoseconds / (BATCH * ROUNDS)


def cpu() -> str:
    """Model name, as the kernel tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure and print."""
    batches = kinds(random.Random(1))  # noqa: S311 - the same frames every time
    cases = {
        (name, what): (batch, types)
        for name, batch in batches.items()
        for what, types in (("parse", 0), ("parse + hash", int(ALL_HASH_TYPES)))
    }
    samples: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as directory:
        loop = compiled(directory)
        for _ in range(SAMPLES):
            for case, (batch, types) in cases.items():
                samples[case].append(measure(loop, batch, types))
    print(f"{cpu()}, Linux {platform.release()}; ns per frame")
    print(f"N = {SAMPLES} samples of {BATCH * ROUNDS} frames")
    print(f"{'':20}{'':14}{'median':>8}{'mean':>8}{'sd':>8}{'min':>8}")
    for (name, what), values in samples.items():
        numbers = (
            statistics.median(values),
            statistics.fmean(values),
            statistics.stdev(values),
            min(values),
        )
        print(f"{name:20}{what:14}" + "".join(f"{number:8.2f}" for number in numbers))


if __name__ == "__main__":
    main()
