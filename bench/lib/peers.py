# SPDX-License-Identifier: MIT
"""The taps that rows measure through, and who else puts a guest behind one.

Each peer gets one core, the back-end's: DPDK's main thread and Open vSwitch's database sleep
there. Their command lines are those of their own documentation for virtio-user and
dpdkvhostuserclient ports.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.lib.needs import TAP, Need, built, hugepages, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room

TAP_NAME: Final = "bench0"
HOST_ADDRESS: Final = "198.51.100.1/24"  # RFC 5737; as in bench/c/jobs.h
GUEST_ADDRESS: Final = "198.51.100.2"
GUEST_MAC: Final = "02:00:00:00:64:02"
# Frames on their way at most: the source loses none, and nobody is measured while overrun.
WINDOW: Final = 256
_VSWITCHD: Final = Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
_SCHEMA: Final = "/usr/share/openvswitch/vswitch.ovsschema"
_MEMORY: Final = 128  # MiB of huge pages for each program with DPDK; bench/c/dpdk_frontend.c too

OWN_NEEDS: Final = (TAP, built("frontend"))
DPDK_FRONTEND: Final = (built("dpdk_frontend"), hugepages(_MEMORY))
PYVNET_NEEDS: Final = (TAP, *DPDK_FRONTEND)
DPDK_NEEDS: Final = (
    TAP,
    program("dpdk-testpmd", "dpdk-dev"),
    built("dpdk_frontend"),
    hugepages(2 * _MEMORY),
)
RAW_NEEDS: Final = (TAP, built("raw_tap"))


def _no_ovs() -> str | None:
    if _VSWITCHD.exists() and all(map(shutil.which, ("ovsdb-server", "ovs-vsctl"))):
        return None
    return "no Open vSwitch with DPDK; apt-get install openvswitch-switch-dpdk"


OVS_NEEDS: Final = (
    TAP,
    Need(_no_ovs),
    built("dpdk_frontend"),
    hugepages(3 * _MEMORY),
)


def quiet(room: Room) -> None:
    """Keep the kernel from speaking on interfaces to come."""
    room.command("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")


def host_side(room: Room, interface: str = TAP_NAME) -> None:
    """Bring the host's end up with an address, and tell it where the guest is."""
    room.command("sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
    room.command("ip", "address", "add", HOST_ADDRESS, "dev", interface)
    room.command("ip", "link", "set", interface, "up")
    words = ("lladdr", GUEST_MAC, "dev", interface, "nud", "permanent")
    room.command("ip", "neighbour", "replace", GUEST_ADDRESS, *words)


def raw_tap(room: Room) -> None:
    """A tap for bench/c/raw_tap.c."""
    room.command("ip", "tuntap", "add", "dev", TAP_NAME, "mode", "tap", "vnet_hdr")
    host_side(room)


@contextmanager
def dpdk_backend(room: Room, mode: str, *, tap: bool = False) -> Iterator[Path]:
    """DPDK's testpmd as a back-end; its socket.

    Args:
        room: where.
        mode: its forwarding engine: io between the guest and a tap, or rxonly, txonly.
        tap: whether there is one.
    """
    path = room.socket()
    cpu = room.cpus.backend
    command = ["dpdk-testpmd", "--in-memory", "--single-file-segments", "-m", str(_MEMORY)]
    command += ["--no-pci", "--no-telemetry", "--file-prefix", f"bench-{os.getpid()}"]
    command += ["--lcores", f"0@{cpu},1@{cpu}", "--vdev", f"net_vhost0,iface={path},queues=1"]
    if tap:
        command += ["--vdev", f"net_tap0,iface={TAP_NAME}"]
    # With statistics its main thread sleeps between them; else it would want a terminal.
    command += ["--", "--total-num-mbufs=8192", "--auto-start", f"--forward-mode={mode}"]
    with room.start([*command, "--stats-period", "60"], cpu=cpu) as process:
        process.until(r"packet forwarding")
        room.until(path.exists, "testpmd's socket")
        if tap:
            host_side(room)
        yield path


@contextmanager
def open_vswitch(room: Room) -> Iterator[Path]:
    """Open vSwitch on DPDK, one guest port and the bridge's own; the socket it connects to.

    The bridge's own port is a tap, called ``bench0``.
    """
    guest, tmp, cpu = room.socket(), room.tmp, room.cpus.backend
    database = f"unix:{tmp}/db"
    env = {"OVS_RUNDIR": str(tmp), "OVS_LOGDIR": str(tmp), "OVS_DBDIR": str(tmp)}
    room.command("ovsdb-tool", "create", f"{tmp}/conf.db", _SCHEMA)
    server = ["ovsdb-server", f"{tmp}/conf.db", f"--remote=p{database}"]
    room.start([*server, f"--unixctl={tmp}/dbctl"], cpu=cpu, env=env)
    room.until((tmp / "db").exists, "the database of Open vSwitch")

    def vsctl(*words: str) -> None:
        room.command("ovs-vsctl", f"--db={database}", "--timeout=20", *words)

    settings = [
        "dpdk-init=true",
        f"dpdk-socket-mem={2 * _MEMORY}",
        'dpdk-extra="--no-pci --single-file-segments --no-telemetry"',
        f"dpdk-lcore-mask={1 << cpu:#x}",
        f"pmd-cpu-mask={1 << cpu:#x}",
        f"vhost-sock-dir={tmp}",
    ]
    vsctl("--no-wait", "init")
    vsctl("--no-wait", "set", "Open_vSwitch", ".", *(f"other_config:{s}" for s in settings))
    switch = [str(_VSWITCHD), database, f"--unixctl={tmp}/ctl", "--log-file=" + str(tmp / "log")]
    room.start(switch, cpu=cpu, env=env)
    vsctl("add-br", TAP_NAME, "--", "set", "bridge", TAP_NAME, "datapath_type=netdev")
    port = ("add-port", TAP_NAME, "guest", "--", "set", "Interface", "guest")
    vsctl(*port, "type=dpdkvhostuserclient", f"options:vhost-server-path={guest}")

    host_side(room)
    yield guest
