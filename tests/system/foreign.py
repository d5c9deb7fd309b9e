# SPDX-License-Identifier: MIT
"""vhost-user-net back-ends of others that Debian packages, with their ports as sockets.

Neither needs huge pages or a network card.  Their threads spin: they keep to one CPU.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.system.program import Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from pyvnet.netdev.netns import NetNamespace

QUEUES: Final = 4
OVS: Final = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
_CPU: Final = max(os.sched_getaffinity(0))
_EAL: Final = ("--no-huge", "--no-pci", "--no-telemetry", "--no-shconf")
_BOOT: Final = 60.0  # a hang guard
_RUN: Final = 150.0  # a hang guard: a machine may be busy
_SCHEMA: Final = "/usr/share/openvswitch/vswitch.ovsschema"


class Ports(NamedTuple):
    """A back-end in operation: the port to judge, and what its wire is called."""

    target: str
    wire: str


@asynccontextmanager
async def dpdk(directory: Path, *, ports: int) -> AsyncIterator[Ports]:
    """DPDK's net_vhost driver: two ports with frames forwarded between them, or one that loops."""
    sockets = [directory / f"port{number}" for number in range(ports)]
    vdevs = [
        f"--vdev=net_vhost{number},iface={path},queues={QUEUES}"
        for number, path in enumerate(sockets)
    ]
    command = [
        *("stdbuf", "--output=L", "dpdk-testpmd", *_EAL, "-m", "256"),
        f"--file-prefix=pyvnet-foreign-{os.getpid()}",
        *("--lcores", f"0@{_CPU},1@{_CPU}", *vdevs, "--", "--interactive", "--auto-start"),
        *("--total-num-mbufs", "4096", "--rxq", str(QUEUES), "--txq", str(QUEUES)),
        *("--forward-mode", "io", "--port-topology", "loop" if ports == 1 else "paired"),
    ]
    async with Program(command) as program:
        await program.expect(r"^testpmd> ", _BOOT)
        wire = f"vhost-user:{sockets[1]}" if ports > 1 else "reflect"
        yield Ports(f"vhost-user:{sockets[0]}", wire)


@asynccontextmanager
async def open_vswitch(directory: Path, netns: NetNamespace) -> AsyncIterator[Ports]:
    """Open vSwitch with DPDK: a learning bridge of two vhost-user ports."""
    env = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(directory))
    database, sock = directory / "conf.db", f"unix:{directory}/db.sock"
    quiet = ("-vconsole:info", "-vsyslog:off")
    server = [
        *("ovsdb-server", str(database), *quiet),
        *(f"--remote=p{sock}", f"--unixctl={directory}/ovsdb.ctl"),
    ]
    switch = [OVS, sock, *quiet, f"--unixctl={directory}/vswitchd.ctl"]
    eal = f"{' '.join(_EAL)} --legacy-mem -m 512 --file-prefix=pyvnet-foreign-{os.getpid()}"
    settings = (
        ("dpdk-init", "true"), ("dpdk-extra", f'"{eal}"'), ("per-port-memory", "true"),
        ("dpdk-lcore-mask", f"{1 << _CPU:#x}"), ("pmd-cpu-mask", f"{1 << _CPU:#x}"),
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        await _done(["ovsdb-tool", "create", str(database), _SCHEMA], env)
        database_server = Program(server, env=env, netns=netns)
        await stack.enter_async_context(database_server)
        await database_server.expect("Open vSwitch", _BOOT)
        tell = ["ovs-vsctl", f"--db={sock}", "--timeout=100"]
        await _done([*tell, "--no-wait", "init"], env)
        wishes = [f"other_config:{name}={value}" for name, value in settings]
        await _done([*tell, "--no-wait", "set", "Open_vSwitch", ".", *wishes], env)
        program = Program(switch, env=env, netns=netns)
        await stack.enter_async_context(program)
        ports = " ".join(
            f"-- add-port br0 {name} -- set Interface {name} type=dpdkvhostuser"
            for name in ("port0", "port1")
        ).split()
        bridge = ("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        await _done([*tell, *bridge, *ports], env)
        yield Ports(f"vhost-user:{directory}/port0", f"vhost-user:{directory}/port1")


async def _done(command: Sequence[str], env: dict[str, str]) -> None:
    async with Program(command, env=env) as program:
        status = await program.end()
        if status:
            raise program.error(f"ended with {status}")


async def judged(ports: Ports, *words: str) -> dict[str, dict[str, Any]]:
    """Run the command against a back-end; the cases of its report by name."""
    command = [
        *(sys.executable, "-m", "pyvnet", "conformance", ports.target, "--wire", ports.wire),
        *("--json", *words),
    ]
    async with Program(command, ours=True) as program:
        await program.expect(r"^}$", _RUN)
        report = json.loads(program.output[program.output.index("{") :])
    return {case["name"]: case for case in report["cases"]}
