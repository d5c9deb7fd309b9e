# SPDX-License-Identifier: MIT
"""The kernel's own hash: absent from this kernel, used where it is proved, and never believed."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.policy import Policy
from pyvnet.errors import HostError
from pyvnet.netdev import Tap
from pyvnet.netdev.finding import YES
from pyvnet.offload import kernel_hash, proof_frames
from pyvnet.reference import classify
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from tests.offload.fake_kernel import V11_GET, V11_SET, V12_AUTOMATIC, V12_GET, V12_RSS, FakeKernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.offload.base import Steerer

SERIES = pytest.mark.parametrize("series", ["v11", "v12"])


def policy(**changes: Any) -> Policy:
    settings: dict[str, Any] = {
        "mode": "rss",
        "hash_types": ALL_HASH_TYPES,
        "key": VERIFICATION_KEY,
        "indirection_table": (3, 1, 0, 2),
        "unclassified_queue": 2,
        "pairs": 4,
        "port_queues": 4,
    }
    return Policy.create(**settings | changes)


# --- this kernel --------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.needs_tap
def test_this_kernel_is_asked_and_has_none() -> None:
    with Tap(queues=2) as tap:
        assert kernel_hash.offered(tap.fds[0]) is None
        with pytest.raises(HostError, match="not in this kernel") as caught:
            kernel_hash.make(tap.fds[0], proof=lambda: pytest.fail("not after such an answer"))
        assert caught.value.cure
    assert not kernel_hash.probe().available


def test_a_kernel_without_it_is_asked_two_questions_that_change_nothing() -> None:
    with FakeKernel("") as kernel, pytest.raises(HostError, match="not in this kernel"):
        kernel_hash.make(kernel.queues[0], ask=kernel.ask)
    assert kernel.asked == [V11_GET, V12_GET]


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_the_private_tap_delivers_the_frames() -> None:
    """Where the kernel hashes nothing: they arrive, without a report."""
    script = """
from contextlib import ExitStack
from pyvnet.netdev.netns import enter_private_netns
from pyvnet.offload import kernel_hash, proof_frames
assert enter_private_netns() is None
with ExitStack() as undo:
    scene = kernel_hash._PrivateTap(undo)
    for frame in proof_frames.FRAMES.values():
        queue, header = kernel_hash._receive(scene, frame)
        print(queue in range(4), header.hash_report)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["True 0"] * len(proof_frames.FRAMES)


def test_the_known_frames_are_one_of_each_kind() -> None:
    reports = {
        name: classify(frame, ALL_HASH_TYPES, VERIFICATION_KEY).report
        for name, frame in proof_frames.FRAMES.items()
    }
    assert sorted(reports.values()) == [0, 1, 2, 3, 4, 5, 6]


# --- kernels that might be ----------------------------------------------------------


@SERIES
@pytest.mark.parametrize("types", [0x3F, 0x1FF, 0x07])
def test_one_that_does_what_it_says_is_proved(series: str, types: int) -> None:
    with FakeKernel(series, types=types) as kernel:
        assert kernel_hash.prove(kernel) == YES
        assert not kernel.rss
        assert not kernel.reports


LIES: dict[str, Callable[[int, int, int], tuple[int, int, int] | None]] = {
    "another value": lambda queue, value, report: (queue, value ^ 1 << 31, report),
    "no value": lambda queue, _value, report: (queue, 0, report),
    "another report": lambda queue, value, report: (queue, value, report and report % 6 + 1),
    "no report": lambda queue, _value, _report: (queue, 0, 0),
    "a report of everything": lambda queue, value, report: (queue, value, report or 1),
    "another queue": lambda queue, value, report: (queue + 1, value, report),
    "always queue 0": lambda _queue, value, report: (0, value, report),
}


@SERIES
@pytest.mark.parametrize("lie", LIES)
def test_one_that_lies_is_not_believed(series: str, lie: str) -> None:
    with FakeKernel(series, LIES[lie]) as kernel:
        found = kernel_hash.prove(kernel)
    assert not found.available
    assert f"the kernel answers like series {series}, but" in found.reason


@SERIES
def test_one_that_loses_frames_is_not_waited_for_long(
    series: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_hash, "_PATIENCE_S", 0.01)
    with FakeKernel(series, lambda *_found: None) as kernel:
        assert "never arrived" in kernel_hash.prove(kernel).reason


@pytest.mark.parametrize(
    ("series", "request_"), [("v11", V11_SET), ("v12", V12_RSS), ("v12", V12_AUTOMATIC)]
)
def test_one_that_refuses_what_it_offers(series: str, request_: int) -> None:
    """Another meaning of the number might look like this."""
    with FakeKernel(series, refuses=frozenset({request_})) as kernel:
        found = kernel_hash.prove(kernel)
    assert "refuses what it offered: Invalid argument" in found.reason


def test_one_that_never_lets_go() -> None:
    with FakeKernel("v12") as kernel:
        kernel._automatic = lambda argument: argument  # type: ignore[method-assign]  # a fault
        assert "does not let go" in kernel_hash.prove(kernel).reason


@SERIES
def test_one_that_knows_no_types_offers_nothing(series: str) -> None:
    with FakeKernel(series, types=0) as kernel:
        assert kernel_hash.offered(kernel.queues[0], kernel.ask) is None


# --- steering by it -----------------------------------------------------------------


@SERIES
def test_it_steers_as_the_frame_path_decides(series: str) -> None:
    with FakeKernel(series) as kernel:
        steerer: Steerer = kernel_hash.make(
            kernel.queues[0], ask=kernel.ask, proof=lambda: kernel_hash.prove(kernel)
        )
        assert steerer.owner == "kernel-hash"
        for changes in ({}, {"indirection_table": (1, 0), "key": b"\x55" * 40}):
            with policy(hash_types=0x3F, **changes) as wanted:
                steerer.publish(wanted)
                for frame in proof_frames.FRAMES.values():
                    found = kernel_hash._receive(kernel, frame)
                    assert found is not None
                    assert found[0] == wanted.classify(frame).queue
                    assert found[1].hash_report == 0
        steerer.settle()
        steerer.release()
        assert not kernel.rss
        before = list(kernel.asked)
        steerer.release()
        steerer.close()
        assert kernel.asked == before


@SERIES
def test_types_the_kernel_does_not_know_are_kept_from_it(series: str) -> None:
    with FakeKernel(series) as kernel:
        steerer = kernel_hash.make(kernel.queues[0], ask=kernel.ask, proof=lambda: YES)
        with policy() as wanted:
            steerer.publish(wanted)
        assert kernel.hash_types == 0x3F
        steerer.close()
        assert not kernel.rss


def test_a_proof_that_failed_is_why_there_is_none() -> None:
    with FakeKernel("v12", LIES["no value"]) as kernel:
        with pytest.raises(HostError, match="the kernel answers like series v12, but a frame"):
            kernel_hash.make(
                kernel.queues[0], ask=kernel.ask, proof=lambda: kernel_hash.prove(kernel)
            )
        assert kernel.asked[:2] == [V11_GET, V12_GET]


def test_a_kernel_that_refuses_later_says_so() -> None:
    with FakeKernel("v12") as kernel:
        steerer = kernel_hash.make(kernel.queues[0], ask=kernel.ask, proof=lambda: YES)
        with policy() as wanted:
            steerer.publish(wanted)
            kernel.series = ""
            with pytest.raises(HostError, match="cannot steer by the kernel's hash") as caught:
                steerer.publish(wanted)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(HostError, match="cannot let go"):
            steerer.release()
        steerer.close()
        steerer.close()
