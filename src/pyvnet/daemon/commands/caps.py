# SPDX-License-Identifier: MIT
"""``pyvnet caps``: what this host, this process, the engine and this device can do.

Each "no" says why and what would help.  The host is asked by trying (see
``netdev.probe`` and ``netdev.host``), the engine by making one; the device's
offer is read from where the device itself takes it.  Exit status 0 whatever
cannot be done: a report is no failure.
"""

from __future__ import annotations

import json
import os
import textwrap
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from pyvnet.datapath import hashing
from pyvnet.datapath.config import EngineConfig
from pyvnet.datapath.engine import Engine
from pyvnet.device.settings import DEFAULT_OFFER, DEFAULT_QUEUE_SIZE
from pyvnet.errors import HostError
from pyvnet.netdev import Null, host, probe
from pyvnet.netdev.finding import YES, Finding, because, no
from pyvnet.netdev.tun_uapi import MAX_QUEUES
from pyvnet.offload import bpf, kernel_hash, program
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HDR_HASH_SIZE, HDR_V1_SIZE
from pyvnet.spec.rss import ALL_HASH_TYPES, MAX_KEY_SIZE, MAX_TABLE_LENGTH, HashType

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SCHEMA: Final = "pyvnet/1"
_WIDTH: Final = 120

_NO_CREATE: Final = no(
    "CAP_NET_ADMIN is missing",
    "run as root, or let root make it: `ip tuntap add NAME mode tap multi_queue user USER`",
)
_NO_TAP: Final = no("no tap could be made to try it on", "see host: tap")
_NOT_OFFERED: Final = no("not in this version", "drivers do without it")

# A report is a tree: groups of values, of findings (``available``) and of groups.
_Tree = dict[str, Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "caps",
        help="what this host and the engine can do and what the device offers",
        description="Report what this host can do, what the engine will use, and what the device"
        " offers. Taps are tried"
        " in a network namespace that ends with the command.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print the report; returns the exit status."""
    report = make_report()
    if args.json:
        print(json.dumps(report))
    else:
        print("\n".join(_lines(report)))
    return 0


def make_report() -> _Tree:
    """The whole report, ready for JSON."""
    host_side = _host()
    return {
        "schema": SCHEMA,
        "version": version("pyvnet"),
        "host": host_side,
        "engine": _engine(),
        "device": _device() | {"steering": _steering(host_side)},
    }


def _host() -> _Tree:
    system = os.uname()
    capabilities = host.capabilities()
    create = YES if capabilities["cap_net_admin"].available else _NO_CREATE
    return {
        "kernel": {"system": system.sysname, "release": system.release, "machine": system.machine},
        "tap": {"create": create.as_json(), **_tap()},
        "cpu": {"flags": host.cpu_flags()},
        "bpf": _bpf(),
        "capabilities": _findings(capabilities),
        "limits": host.limits(),
    }


def _tap() -> _Tree:
    tap = probe.probe_tap()
    if tap.get("kernel_hash") == YES.as_json():  # so it says
        tap["kernel_hash"] = kernel_hash.probe().as_json()
    return tap


def _bpf() -> _Tree:
    """Load the real program: sysctls, capabilities, seccomp and the verifier together decide."""
    before = time.perf_counter()
    try:
        with program.load() as fds:
            took = time.perf_counter() - before
            verified = bpf.program_info(fds.program).verified_instructions
    except HostError as error:
        return {"load_steering_program": because(error).as_json()}
    return {
        "load_steering_program": YES.as_json(),
        "steering_program_instructions": program.image().count,
        "steering_program_verified_instructions": verified,
        "steering_program_load_ms": round(took * 1000, 1),
    }


def _steering(host_side: _Tree) -> _Tree:
    """Who can steer a tap made here, as ``--steering`` and status call them."""
    tap = host_side["tap"]
    load = host_side["bpf"]["load_steering_program"]
    attach = tap.get("steering_program", _NO_TAP.as_json())
    by_program = attach if load["available"] else load
    return {
        "kernel-auto": YES.as_json(),
        "software": YES.as_json(),
        "ebpf": by_program,
        "kernel-hash": tap.get("kernel_hash", _NO_TAP.as_json()),
        "user-program": by_program,
    }


def _engine() -> _Tree:
    """What ``serve`` will run with where it is not told otherwise."""
    hashing.follow_environment()
    default = EngineConfig()
    return {
        "io": default.io,
        "io_uring": _io_uring().as_json(),
        "poll_us": default.poll_us,
        "hash_kernel": hashing.selected(),
        "hash_kernels": _findings(_hash_kernels()),
    }


def _io_uring() -> Finding:
    """Every step of it: a kernel that gives a ring may still refuse the memory."""
    with Null(1) as port:
        config = EngineConfig(io="uring")
        try:
            Engine(pairs=1, port_type=port.kind, port_fds=port.fds, config=config).close()
        except HostError as error:
            return no(error.what, error.cure)
    return YES


def _hash_kernels() -> dict[str, Finding]:
    cure = f"nothing to do: {hashing.selected()} is used, which gives the same hashes"
    return {
        kernel.name: no(kernel.lacks, cure) if kernel.lacks else YES for kernel in hashing.kernels()
    }


def _device() -> _Tree:
    offered = [feature for feature in Feature if feature & DEFAULT_OFFER]
    others = [feature for feature in Feature if not feature & DEFAULT_OFFER]
    return {
        "features": [_feature(feature) for feature in offered],
        "not_offered": [_feature(feature) | _NOT_OFFERED.as_json() for feature in others],
        "hash_types": [
            {"name": str(hash_type.name).lower(), "bit": hash_type.bit_length() - 1}
            for hash_type in HashType
            if hash_type & ALL_HASH_TYPES
        ],
        "max_key_size": MAX_KEY_SIZE,
        "max_table_length": MAX_TABLE_LENGTH,
        # The engine's VNET_MAX_PAIRS is the tun driver's limit, on purpose.
        "max_queue_pairs": MAX_QUEUES,
        "max_queue_size": DEFAULT_QUEUE_SIZE,
        "header_sizes": [HDR_V1_SIZE, HDR_HASH_SIZE],
    }


def _feature(feature: Feature) -> _Tree:
    return {"name": str(feature.name).lower(), "bit": feature.bit_length() - 1}


def _findings(findings: dict[str, Finding]) -> _Tree:
    return {name: finding.as_json() for name, finding in findings.items()}


# Text.


def _lines(report: _Tree) -> Iterator[str]:
    yield f"pyvnet {report['version']}"
    for title, group in _groups(report):
        rows = list(_rows(group))
        width = max((len(label) for label, _, _ in rows), default=0)
        yield f"\n{title}"
        for label, value, cure in rows:
            yield from _filled(f"  {label:<{width}}  ", value)
            if cure:
                yield from _filled(f"  {'':<{width}}  → ", cure)


def _filled(head: str, text: str) -> Iterator[str]:
    """A label and what belongs to it, on as many lines as that takes."""
    lines = textwrap.wrap(text, _WIDTH - len(head), break_on_hyphens=False) or [""]
    yield head + lines[0]
    for line in lines[1:]:
        yield " " * len(head) + line


def _groups(report: _Tree) -> Iterator[tuple[str, _Tree]]:
    for name, group in report["host"].items():
        yield f"host: {name}", group
    yield "engine", report["engine"]
    device = dict(report["device"])
    steering = device.pop("steering")
    device["not_offered"] = [entry["name"] for entry in device["not_offered"]]
    for key in ("features", "hash_types"):
        device[key] = [f"{entry['name']}({entry['bit']})" for entry in device[key]]
    yield "device", device
    yield "device: steering owners", steering


def _rows(group: _Tree, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Label, value and cure of every leaf."""
    if "available" in group:
        yes = group["available"]
        value = "yes" if yes else f"no: {group['reason']}"
        yield prefix.strip() or "available", value, "" if yes else group["cure"]
        return
    for name, value in group.items():
        label = f"{prefix}{name} "
        if isinstance(value, dict):
            yield from _rows(value, label)
        elif isinstance(value, list):
            yield from _wrapped(label.strip(), value)
        else:
            yield label.strip(), "unlimited" if value is None else str(value), ""


def _wrapped(label: str, words: list[Any], width: int = 72) -> Iterator[tuple[str, str, str]]:
    text = " ".join(str(word) for word in words) or "none"
    for line in textwrap.wrap(text, width, break_on_hyphens=False):
        yield label, line, ""
        label = ""
