# SPDX-License-Identifier: MIT
"""The steering program on a real tap: attached, told, let go of, closed."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.policy import Policy
from pyvnet.errors import HostError
from pyvnet.netdev import tun_uapi
from pyvnet.offload import bpf, ebpf, kernel_hash, program, proof_frames
from pyvnet.offload.ebpf import EbpfSteerer
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.offload.base import Steerer
    from pyvnet.offload.kernel_hash import Scene

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]


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


@contextmanager
def steerer_on(queue_fd: int) -> Iterator[tuple[EbpfSteerer, int]]:
    """A steerer, and an fd of its program that outlives it."""
    fds = program.load()
    watch = os.dup(fds.program)
    steerer = EbpfSteerer(queue_fd, fds.program, fds.map, fresh=True)
    try:
        yield steerer, watch
    finally:
        steerer.close()
        os.close(watch)


def queues_of(tap: Scene) -> list[int]:
    found = [kernel_hash._receive(tap, frame) for frame in proof_frames.FRAMES.values()]
    return [queue for queue, _ in filter(None, found)]


def decided(wanted: Policy) -> list[int]:
    return [wanted.classify(frame).queue for frame in proof_frames.FRAMES.values()]


def test_frames_come_by_the_queue_the_policy_names(private_tap: Scene) -> None:
    with steerer_on(private_tap.queues[0]) as (steerer, _):
        protocol: Steerer = steerer
        assert protocol.owner == "ebpf"
        for changes in (
            {},
            {"key": b"\x55" * 40, "indirection_table": (1, 0, 2, 3, 3, 2, 0, 1)},
            {"hash_types": 0, "unclassified_queue": 3},
        ):
            with policy(**changes) as wanted:
                steerer.publish(wanted)
                assert queues_of(private_tap) == decided(wanted)
        steerer.settle()


def test_before_the_first_snapshot_and_after_release_the_kernel_steers(private_tap: Scene) -> None:
    with steerer_on(private_tap.queues[0]) as (steerer, watch), counted(), policy() as wanted:
        steerer.release()
        queues_of(private_tap)
        assert bpf.program_info(watch).run_count == 0
        steerer.publish(wanted)
        queues_of(private_tap)
        ran = bpf.program_info(watch).run_count
        assert ran >= len(proof_frames.FRAMES)
        steerer.release()
        steerer.release()
        queues_of(private_tap)
        assert bpf.program_info(watch).run_count == ran
        steerer.publish(wanted)
        assert queues_of(private_tap) == decided(wanted)
        steerer.close()
        steerer.close()
        ran = bpf.program_info(watch).run_count
        queues_of(private_tap)
        assert bpf.program_info(watch).run_count == ran


@contextmanager
def counted() -> Iterator[None]:
    fd = bpf.enable_stats()
    try:
        yield
    finally:
        os.close(fd)


def test_fds_that_were_handed_over_steer_too(private_tap: Scene) -> None:
    """And whatever their map says already, nothing is written where a frame may read."""
    first = program.load()
    again = program.SteeringFds(os.dup(first.program), os.dup(first.map))
    steerer = EbpfSteerer(private_tap.queues[0], first.program, first.map, fresh=True)
    with policy() as wanted:
        steerer.publish(wanted)
    steerer.close()
    steerer = EbpfSteerer(private_tap.queues[1], again.program, again.map)
    with policy(indirection_table=(2, 0)) as wanted:
        steerer.publish(wanted)
        assert queues_of(private_tap) == decided(wanted)
    steerer.close()


# --- what cannot be -----------------------------------------------------------------


def test_fds_that_do_not_fit_are_closed_all_the_same() -> None:
    """A look at this test's leak check is part of it."""
    null = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(HostError, match="is no BPF program"):
        EbpfSteerer(0, null, os.dup(null))


def test_a_program_and_a_frame_path_of_two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    own = program.image()
    (spec,) = own.maps
    other = replace(own, maps=(replace(spec, value_size=spec.value_size + 64),))
    monkeypatch.setattr(program, "image", lambda: other)
    fds = program.load()
    with pytest.raises(HostError, match=rf"reads a map of {spec.value_size + 64} bytes"):
        EbpfSteerer(0, fds.program, fds.map)


def attached_to(queue_fd: int) -> HostError:
    with steerer_on(queue_fd) as (steerer, _), policy() as wanted:
        with pytest.raises(HostError, match="cannot attach the steering program") as caught:
            steerer.publish(wanted)
        steerer.release()
    return caught.value


def test_what_is_no_tap() -> None:
    with ExitStack() as undo:
        ours, _ = pair = socket.socketpair()
        for end in pair:
            undo.enter_context(end)
        assert attached_to(ours.fileno()).errno == errno.ENOTTY
        queue = tun_uapi.open_clone_device()
        undo.callback(os.close, queue)
        assert attached_to(queue).errno == errno.EBADFD
    assert attached_to(9999).errno == errno.EBADF


def test_a_program_that_is_no_steering_program_is_not_attached(private_tap: Scene) -> None:
    with open("/dev/null", "rb") as null:  # noqa: PTH123 an fd is wanted
        with pytest.raises(HostError, match="cannot attach") as caught:
            ebpf.attach(private_tap.queues[0], null.fileno())
        assert caught.value.errno == errno.EINVAL
        assert caught.value.cure
    ebpf.attach(private_tap.queues[0], -1)
    ebpf.attach(private_tap.queues[0], -1)


def test_a_tap_that_went_away_is_told_and_closing_goes_on() -> None:
    queue = tun_uapi.open_clone_device()
    tun_uapi.set_iff(
        queue,
        "gone%d",
        tun_uapi.Iff.TAP | tun_uapi.Iff.NO_PI | tun_uapi.Iff.VNET_HDR | tun_uapi.Iff.MULTI_QUEUE,
    )
    with steerer_on(queue) as (steerer, _), policy() as wanted:
        steerer.publish(wanted)
        os.close(queue)
        with pytest.raises(HostError, match="cannot detach it from the tap"):
            steerer.release()
