# SPDX-License-Identifier: MIT
"""Every Toeplitz kernel gives the hashes of the reference, whatever the CPU has.

Kernels of this CPU run in a build with sanitizers, those it lacks in one whose
instructions are emulated, those of another architecture under user-mode QEMU.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from pyvnet import reference
from pyvnet.datapath import hashing
from pyvnet.datapath.policy import Policy
from pyvnet.errors import UsageError
from pyvnet.spec.rss import ALL_HASH_TYPES, HashReport
from pyvnet.testing import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path(__file__).resolve().parents[2]
_HERE: Final = Path(__file__).with_name("hash_kernels")
_SOURCES: Final = [*sorted((_ROOT / "native/src").glob("hash*.c")), _ROOT / "native/src/parse.c"]
_SANITIZERS: Final = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_SIZES: Final = (*range(1, 65), 100)


class Batch(NamedTuple):
    """Frames hashed in one go, and what the reference makes of them."""

    key: bytes
    hash_types: int
    always: bool
    frames: list[bytes]
    expected: list[tuple[int, int]]

    def encode(self) -> bytes:
        """As hash_frames.c reads it."""
        head = self.key + struct.pack("=3I", self.hash_types, self.always, len(self.frames))
        return head + b"".join(struct.pack("=I", len(data)) + data for data in self.frames)


def _frame(rng: random.Random) -> bytes:
    l4 = rng.choice((frames.tcp, frames.udp))(rng.randrange(65536), rng.randrange(65536))
    match rng.randrange(8):
        case 0 | 1 | 2:
            return frames.build(frames.Ipv4(rng.randbytes(4), rng.randbytes(4)), l4).data
        case 3 | 4:
            return frames.build(frames.Ipv6(rng.randbytes(16), rng.randbytes(16)), l4).data
        case 5:
            more = [
                frames.destination_options(frames.home_address(rng.randbytes(16))),
                frames.routing_type2(rng.randbytes(16)),
            ]
            ip = frames.Ipv6(rng.randbytes(16), rng.randbytes(16), rng.choice((more, more[1:])))
            return frames.build(ip, l4).data
        case 6:
            ip4 = frames.Ipv4(rng.randbytes(4), rng.randbytes(4), more_fragments=True)
            return frames.build(ip4, l4).data
        case _:
            return rng.randbytes(rng.randrange(60))


def _batch(rng: random.Random, size: int) -> Batch:
    key, always = rng.randbytes(40), rng.random() < 0.25
    types = rng.choice((int(ALL_HASH_TYPES), rng.randrange(int(ALL_HASH_TYPES) + 1)))
    made = [_frame(rng) for _ in range(size)]
    hashes = (reference.classify(data, types, key, ex_types_always=always) for data in made)
    return Batch(key, types, always, made, [(each.value, each.report) for each in hashes])


@pytest.fixture(scope="module")
def batches(vnet_seed: str) -> list[Batch]:
    rng = random.Random(vnet_seed)
    return [_batch(rng, size) for size in _SIZES]


def _clean() -> dict[str, str]:
    """The environment without what the sanitizers' runs of the suite load into every process."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def _build(to: Path, compiler: str, *flags: str) -> str:
    command = [compiler, "-std=gnu11", "-O1", *flags, f"-I{_ROOT}/native/include"]
    command += [f"-I{_ROOT}/native/src", "-o", str(to), str(_HERE / "hash_frames.c")]
    subprocess.run([*command, *map(str, _SOURCES)], check=True, env=_clean())
    return str(to)


def _runnable(program: list[str]) -> list[str]:
    out = subprocess.run(program, check=True, capture_output=True, text=True, env=_clean()).stdout
    return out.split()


def _disagreements(program: list[str], kernel: str, batches: list[Batch]) -> list[Any]:
    """Batches whose hashes are not the reference's: size, frame, hash."""
    sent = b"".join(batch.encode() for batch in batches)
    done = subprocess.run([*program, kernel], input=sent, capture_output=True, check=False,
                          env=_clean())  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    answers = struct.iter_unpack("=2I", done.stdout)
    return [
        (kernel, len(batch.frames), data.hex(), answer, expected)
        for batch in batches
        for data, expected, answer in zip(batch.frames, batch.expected, answers, strict=False)
        if answer != expected
    ]


def test_batches_have_every_report(batches: list[Batch]) -> None:
    reports = {report for batch in batches for _, report in batch.expected}
    assert reports == set(HashReport)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The kernels of this CPU, with sanitizers."""
    return [_build(tmp_path_factory.mktemp("hash") / "native", "gcc", *_SANITIZERS)]


_KERNELS: Final = (
    pytest.param("vpclmul512", marks=pytest.mark.needs_cpu("avx512f", "avx512bw", "vpclmulqdq")),
    pytest.param("vpclmul256", marks=pytest.mark.needs_cpu("avx2", "vpclmulqdq")),
    pytest.param("pclmul", marks=pytest.mark.needs_cpu("pclmulqdq", "sse4_1")),
    pytest.param("pmull", marks=pytest.mark.needs_cpu("pmull")),
    "tables",
)


@pytest.mark.requirement("NET-HASH-05", "NET-HASH-06", "NET-HASH-07")
@pytest.mark.parametrize("kernel", _KERNELS)
def test_a_kernel_of_this_cpu(native: list[str], kernel: str, batches: list[Batch]) -> None:
    assert hashing.HashKernel(kernel, "") in hashing.kernels()
    assert kernel in _runnable(native)
    assert _disagreements(native, kernel, batches) == []


def test_emulated_kernels(tmp_path: Path, batches: list[Batch]) -> None:
    """The wide ones of x86, on any CPU; without sanitizers, which the compiler takes 10 s for."""
    emulated = ("-DVNET_HASH_EMULATED", "-Wno-psabi", f"-I{_HERE}/simde")
    program = [_build(tmp_path / "emulated", "gcc", *emulated)]
    names = _runnable(program)
    assert {"vpclmul512", "vpclmul256", "pclmul"} < set(names)
    assert [_disagreements(program, name, batches) for name in names] == [[]] * len(names)


def test_kernels_of_aarch64(tmp_path: Path, batches: list[Batch]) -> None:
    program = _build(tmp_path / "aarch64", "aarch64-linux-gnu-gcc", "-static")
    command = ["qemu-aarch64-static", program]
    assert _runnable(command) == ["pmull", "tables"]
    assert _disagreements(command, "pmull", batches) == []
    assert _disagreements(command, "tables", batches) == []


@pytest.fixture
def selection() -> Iterator[None]:
    yield
    hashing.select("")


@pytest.mark.usefixtures("selection")
def test_the_environment_forces_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYVNET_HASH", "tables")
    with Policy.create(mode="rss", hash_types=0x3F, key=bytes(range(40))):
        assert hashing.selected() == "tables"


@pytest.mark.usefixtures("selection")
def test_a_kernel_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYVNET_HASH", "abacus")
    with pytest.raises(UsageError, match=r"no hash kernel 'abacus'; this CPU can run .*tables"):
        Policy.create(mode="rss", hash_types=0, key=b"")
    assert hashing.selected() != "abacus"
