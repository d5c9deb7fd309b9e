# SPDX-License-Identifier: MIT
"""What the tun driver of this kernel takes, found out by trying.

Trying means making a tap, so it happens in a child process, inside a network
namespace of the child's own: nothing can be seen from outside and nothing can
be left behind.  The child is this module run as a program; it prints JSON.

``TUNSETOFFLOAD`` refuses a whole set for one unknown bit, and some bits only
come with others (drivers/net/tun.c, set_offload()); so each offload is tried
together with what it needs.

The kernel hash ioctls are only asked for, never set: they are not merged, and
number 228 has meant different things in different series.  An answer is a reason to
try (`pyvnet.offload.kernel_hash`), not a promise.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from pyvnet.netdev import tun_uapi
from pyvnet.netdev.finding import YES, Finding, no, refused
from pyvnet.netdev.netns import enter_private_netns
from pyvnet.netdev.tun_uapi import Iff, Offload

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")

KERNEL_HASH_ABSENT: Final = no(
    "not in this kernel: the series is not merged", "none needed: the device hashes"
)
_NEWER_KERNEL: Final = "run a newer kernel; the device does the work itself meanwhile"
_TSO: Final = Offload.CSUM | Offload.TSO4 | Offload.TSO6
_USO: Final = Offload.CSUM | Offload.USO4 | Offload.USO6
_TRIED_WITH: Final = {
    Offload.CSUM: Offload.CSUM,
    Offload.TSO4: Offload.CSUM | Offload.TSO4,
    Offload.TSO6: Offload.CSUM | Offload.TSO6,
    Offload.TSO_ECN: _TSO | Offload.TSO_ECN,
    Offload.UFO: Offload.CSUM | Offload.UFO,
    Offload.USO4: _USO,
    Offload.USO6: _USO,
    Offload.UDP_TUNNEL_GSO: _TSO | _USO | Offload.UDP_TUNNEL_GSO,
    Offload.UDP_TUNNEL_GSO_CSUM: (
        _TSO | _USO | Offload.UDP_TUNNEL_GSO | Offload.UDP_TUNNEL_GSO_CSUM
    ),
}


def probe_tap() -> dict[str, Any]:
    """Ask a child process what taps can do here; the answer is ready for JSON.

    Every answer is a ``Finding`` as JSON, under ``device``, ``private_tap``,
    ``multi_queue``, ``header_sizes``, ``offloads``, ``steering_program`` and
    ``kernel_hash``; those that need a tap are missing when none can be made.
    ``flags`` are the names of TUNGETFEATURES.
    """
    try:
        child = subprocess.run(  # noqa: S603 this module, by this interpreter
            [sys.executable, "-m", __name__], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return {"device": refused(error, "let this user run this Python").as_json()}
    try:
        answers: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        last = child.stderr.strip().rpartition("\n")[2] or f"exit status {child.returncode}"
        return {"device": no(f"the probe ended early: {last}", "report this bug").as_json()}
    return answers


def _probe_here() -> dict[str, Any]:
    try:
        fd = tun_uapi.open_clone_device()
    except OSError as error:
        cure = "`modprobe tun`; a container needs the device passed in, a user access to it"
        return {"device": refused(error, cure).as_json()}
    flags = tun_uapi.get_features(fd)
    os.close(fd)
    answers: dict[str, Any] = {
        "device": YES.as_json(),
        "flags": [str(flag.name).lower() for flag in Iff if flags & flag],
    }
    reason = enter_private_netns()
    if reason is not None:
        cure = "run as root, or allow user namespaces (user.max_user_namespaces)"
        return answers | {"private_tap": no(reason, cure).as_json()}
    return answers | _probe_with_tap()


def _probe_with_tap() -> dict[str, Any]:
    queues: list[int] = []
    try:
        try:
            queues.append(tun_uapi.open_clone_device())
            flags = Iff.TAP | Iff.NO_PI | Iff.VNET_HDR
            name = tun_uapi.set_iff(queues[0], "probe%d", flags | Iff.MULTI_QUEUE)
        except OSError as error:
            cure = "run as root or with CAP_NET_ADMIN"
            return {"private_tap": refused(error, cure).as_json()}
        queues.append(tun_uapi.open_clone_device())
        multi_queue = _try(tun_uapi.set_iff, queues[1], name, flags | Iff.MULTI_QUEUE)
        return {
            "private_tap": YES.as_json(),
            "multi_queue": multi_queue.as_json(),
            **_probe_queue(queues[0]),
        }
    finally:
        for fd in queues:
            os.close(fd)


def _probe_queue(fd: int) -> dict[str, Any]:
    return {
        "header_sizes": {
            str(size): _try(tun_uapi.set_header_size, fd, size).as_json() for size in (10, 12, 20)
        },
        "offloads": {
            str(offload.name).lower(): _try(tun_uapi.set_offload, fd, tried).as_json()
            for offload, tried in _TRIED_WITH.items()
        },
        "steering_program": _try(tun_uapi.set_steering_program, fd, -1).as_json(),
        "kernel_hash": _probe_kernel_hash(fd).as_json(),
    }


def _probe_kernel_hash(fd: int) -> Finding:
    for request, size in tun_uapi.KERNEL_HASH_GET.values():
        if _try(tun_uapi.probe_ioctl, fd, request, size).available:
            return YES
    return KERNEL_HASH_ABSENT


def _try(attempt: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> Finding:
    try:
        attempt(*args, **kwargs)
    except OSError as error:
        unknown = error.errno in {errno.EINVAL, errno.ENOTTY}
        return no("not in this kernel", _NEWER_KERNEL) if unknown else refused(error, "run as root")
    return YES


if __name__ == "__main__":
    json.dump(_probe_here(), sys.stdout)
