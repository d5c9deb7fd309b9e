# SPDX-License-Identifier: MIT
"""The kernel steers by RSS itself, should it ever learn to.

Theory.  Two series for tun were posted and none was merged; each spells the same
wish with other numbers, and number 228 of tun's ioctls has meant something else
before.  So an answer proves nothing.  What is believed is done in three steps:

1. *Ask* on a queue of the tap itself, by the two ioctls that only read.
   On kernels of today this is where it ends, after two system calls.
2. *Prove* it in a process and network namespace of its own, on a private tap:
   known frames must come out of the queue, with the hash and the report, that
   the frame path's own policy names for them, under two configurations; and
   none of this must hold any more once the kernel was told to let go.
3. *Use* it: the kernel only chooses the tap queue.  Hash, report and
   receiveq of every frame are still the frame path's (see `base`).

Nothing depends on it.  The module asks the kernel through `Scene` and `Ask`, so
that a fake kernel can be put in their place.

The series: "tun: Introduce virtio-net hash feature", v11 (17 March 2025)
and v12 (30 May 2025).  v12 reuses number 229 for what reports in automatic mode.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fcntl import ioctl
from functools import cache
from typing import Final, Protocol

from pyvnet.datapath import steering_map
from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.datapath.policy import Policy, Steering
from pyvnet.errors import HostError
from pyvnet.netdev import rtnl, tun_uapi
from pyvnet.netdev.finding import YES, Finding, no
from pyvnet.netdev.netns import enter_private_netns
from pyvnet.netdev.probe import KERNEL_HASH_ABSENT
from pyvnet.netdev.tun_uapi import KERNEL_HASH_GET, Iff
from pyvnet.offload import proof_frames
from pyvnet.spec.net_hdr import HDR_HASH_SIZE, NetHdr
from pyvnet.spec.rss import VERIFICATION_KEY, HashType

ABSENT: Final = KERNEL_HASH_ABSENT
_REPORT, _RSS = 1, 2  # flags of v11
_QUEUES: Final = 4
_PATIENCE_S: Final = 2.0

# An ioctl: fd, request, argument in and out.  Raises OSError.
Ask = Callable[[int, int, bytes], bytes]


class Scene(Protocol):
    """A private tap of four queues, whose readers get headers of 20 bytes."""

    @property
    def queues(self) -> Sequence[int]:
        """An fd each, nonblocking."""

    def ask(self, fd: int, request: int, argument: bytes) -> bytes:
        """An ioctl on one of them."""

    def send(self, frame: bytes) -> None:
        """Have the kernel deliver a frame to some queue."""


@dataclass(frozen=True, slots=True)
class Series:
    """How one series is asked.

    Attributes:
        name: "v11" or "v12".
        types: hash types the kernel says it knows.
    """

    name: str
    types: int

    def steer(self, steering: Steering) -> tuple[int, bytes]:
        """Request and argument that have the kernel choose the queue."""
        return self._request(steering, _RSS, 0x800854E7)

    def steer_and_report(self, steering: Steering) -> tuple[int, bytes]:
        """The same, with hash and report in the header."""
        return self._request(steering, _RSS | _REPORT, 0x800854E6)

    def let_go(self) -> tuple[int, bytes]:
        """Automatic steering, and no report."""
        if self.name == "v11":
            return 0x400854E5, struct.pack("=HxxI", 0, 0)
        return 0x800454E5, struct.pack("=I", 0)

    def _request(self, steering: Steering, flags: int, v12_request: int) -> tuple[int, bytes]:
        types = steering.hash_types & self.types
        table = steering.indirection_table
        rss = struct.pack("=HH", len(table) - 1, steering.unclassified_queue)
        tail = struct.pack(f"={len(table)}H", *table) + steering.key
        if self.name == "v11":
            return 0x400854E5, struct.pack("=HxxI", flags, types) + rss + tail
        return v12_request, struct.pack("=I", types) + rss + tail


def offered(fd: int, ask: Ask = ioctl) -> Series | None:
    """The series whose question the kernel answers on a tap queue; changes nothing."""
    for name, (request, size) in KERNEL_HASH_GET.items():
        try:
            answer = ask(fd, request, bytes(size))
        except OSError:
            continue
        flags, types = (
            struct.unpack("=HxxI", answer) if size == 8 else (_REPORT | _RSS, *_u32(answer))
        )
        if types and flags & _RSS:
            return Series(name, types)
    return None


def _u32(answer: bytes) -> tuple[int]:
    (value,) = struct.unpack("=I", answer)
    return (value,)


def probe() -> Finding:
    """Whether this kernel hashes and steers as it should: all of it is tried, privately."""
    return _proof()


def make(
    queue_fd: int,
    *,
    native: Native = DEFAULT,
    ask: Ask = ioctl,
    proof: Callable[[], Finding] | None = None,
) -> KernelHashSteerer:
    """A steerer for the tap of a queue, which stays the caller's.

    Args:
        queue_fd: attached to the tap.
        native: the build that makes the policies.
        ask: the kernel's ioctl, or a fake's.
        proof: tells whether what the kernel says holds; by default `probe`.

    Raises:
        HostError: the kernel does not offer it, or it was not proved.
    """
    series = offered(queue_fd, ask)
    if series is None:
        raise HostError(ABSENT.reason, cure=ABSENT.cure)
    found = (proof or probe)()
    if not found.available:
        raise HostError(found.reason, cure=found.cure)
    return KernelHashSteerer(queue_fd, series, native=native, ask=ask)


class KernelHashSteerer:
    """The kernel's own RSS on one tap; see `pyvnet.offload.base.Steerer`."""

    owner: Final = "kernel-hash"

    def __init__(
        self, queue_fd: int, series: Series, *, native: Native = DEFAULT, ask: Ask = ioctl
    ) -> None:
        self._queue_fd = queue_fd
        self._series = series
        self._native = native
        self._ask = ask
        self._steers = False

    def publish(self, policy: Policy) -> None:
        """Steer by ``policy``; types the kernel does not know are steered as if unclassified.

        Raises:
            HostError: the kernel refuses it.
        """
        self._tell(*self._series.steer(policy.steering), "steer by the kernel's hash")
        self._steers = True

    def release(self) -> None:
        """Back to the kernel's automatic steering; harmless twice.

        Raises:
            HostError: the tap went away.
        """
        if self._steers:
            self._tell(*self._series.let_go(), "let go of the kernel's hash")
            self._steers = False

    def settle(self) -> None:
        """Wait until no frame is steered by what held before the last call."""
        steering_map.settle(self._native)

    def close(self) -> None:
        """Release; harmless twice, and never fails."""
        try:
            self.release()
        except HostError:  # with the tap it all went
            self._steers = False

    def _tell(self, request: int, argument: bytes, what: str) -> None:
        try:
            self._ask(self._queue_fd, request, argument)
        except OSError as error:
            cure = "let the device steer by software or by its eBPF program"
            raise HostError(f"cannot {what}", error.errno, cure) from error


# --- the proof ----------------------------------------------------------------------


def prove(scene: Scene, native: Native = DEFAULT) -> Finding:
    """Try everything on a private tap; the finding says what did not hold."""
    series = offered(scene.queues[0], scene.ask)
    if series is None:
        return ABSENT
    try:
        with closing(_configurations(series.types, native)) as policies:
            for policy in policies:
                if reason := _holds(scene, series, policy):
                    return _unproved(series, reason)
    except OSError as error:
        return _unproved(series, f"refuses what it offered: {os.strerror(error.errno or 0)}")
    return YES


def _unproved(series: Series, reason: str) -> Finding:
    what = f"the kernel answers like series {series.name}, but {reason}"
    return no(what, "none needed: the device hashes; tell us about this kernel")


def _configurations(types: int, native: Native) -> Generator[Policy]:
    """Two that agree in nothing; the second leaves out half of the types."""
    ours = types & 0x3F
    narrow = ours & (HashType.IPV4 | HashType.TCPV6 | HashType.UDPV6) or ours
    key = VERIFICATION_KEY
    for hash_types, secret, table, unclassified in (
        (ours, key, (2, 0, 3, 1), 1),
        (narrow, key[::-1], (1, 3), 2),
    ):
        with Policy.create(
            mode="rss",
            hash_types=hash_types,
            key=secret,
            indirection_table=table,
            unclassified_queue=unclassified,
            pairs=_QUEUES,
            port_queues=_QUEUES,
            native=native,
        ) as policy:
            yield policy


def _holds(scene: Scene, series: Series, policy: Policy) -> str:
    """Why a policy is not what the kernel does; "" if it is.

    With reports, without them, and let go of while there are some.
    """
    scene.ask(scene.queues[0], *series.steer_and_report(policy.steering))
    for name, frame in proof_frames.FRAMES.items():
        expected = policy.classify(frame)
        found = _receive(scene, frame)
        if found is None:
            return f"a frame ({name}) never arrived"
        queue, header = found
        if (header.hash_value, header.hash_report, queue) != expected:
            return (
                f"a frame ({name}) came with {header.hash_value:#x}, report {header.hash_report} "
                f"and queue {queue} instead of {expected.hash_value:#x}, "
                f"{expected.hash_report} and {expected.queue}"
            )
    scene.ask(scene.queues[0], *series.steer(policy.steering))
    for name, frame in proof_frames.FRAMES.items():
        found = _receive(scene, frame)
        if found is None or found[0] != policy.classify(frame).queue:
            return f"without reports a frame ({name}) came by another queue"
    scene.ask(scene.queues[0], *series.steer_and_report(policy.steering))
    scene.ask(scene.queues[0], *series.let_go())
    for name, frame in proof_frames.FRAMES.items():
        found = _receive(scene, frame)
        if found is None or found[1].hash_report:
            return f"it does not let go: a frame ({name}) still has a report, or is gone"
    return ""


def _receive(scene: Scene, frame: bytes) -> tuple[int, NetHdr] | None:
    """Send a frame and wait for it; what the kernel itself sends meanwhile is passed over."""
    scene.send(frame)
    poll = select.poll()
    for fd in scene.queues:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + _PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            read = os.read(fd, HDR_HASH_SIZE + 65536)
            if read[HDR_HASH_SIZE:] == frame:
                return list(scene.queues).index(fd), NetHdr.unpack(read, HDR_HASH_SIZE)
    return None


class _PrivateTap:
    """A `Scene` in this process's network namespace, which should be its own."""

    def __init__(self, undo: ExitStack) -> None:
        self.queues: list[int] = []
        name = "prove%d"
        flags = Iff.TAP | Iff.NO_PI | Iff.VNET_HDR | Iff.MULTI_QUEUE
        for _ in range(_QUEUES):
            self.queues.append(tun_uapi.open_clone_device())
            undo.callback(os.close, self.queues[-1])
            name = tun_uapi.set_iff(self.queues[-1], name, flags)
        tun_uapi.set_header_size(self.queues[0], HDR_HASH_SIZE)
        rtnl.set_up(name)
        self._socket = undo.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._socket.bind((name, 0))

    def ask(self, fd: int, request: int, argument: bytes) -> bytes:
        return ioctl(fd, request, argument)

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)


@cache
def _proof() -> Finding:
    """In a child process: what is tried is nothing a device's own namespace should see."""
    try:
        child = subprocess.run(  # noqa: S603 this module, by this interpreter
            [sys.executable, "-m", __name__], capture_output=True, text=True, check=False
        )
        return Finding(**json.loads(child.stdout))
    except (OSError, ValueError, TypeError) as error:
        return no(f"the proof ended early: {error}", "report this bug")


def _prove_here() -> Finding:
    reason = enter_private_netns()
    if reason is not None:
        return no(reason, "run as root, or allow user namespaces (user.max_user_namespaces)")
    try:
        with ExitStack() as undo:
            return prove(_PrivateTap(undo))
    except (OSError, HostError) as error:
        return no(f"no private tap to try it on: {error}", "run as root or with CAP_NET_ADMIN")


if __name__ == "__main__":
    json.dump(_prove_here().as_json(), sys.stdout)
