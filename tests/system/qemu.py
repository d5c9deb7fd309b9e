# SPDX-License-Identifier: MIT
"""QEMU with a vhost-user netdev, and a Linux guest that does what it is told over a serial line.

The guest is Debian's cloud kernel (``make test-needs``) and an initramfs of
busybox, the virtio modules and an agent.  Its first serial port is the agent's:
a line comes in, the shell runs it, what it printed goes out, then its status.
The second one is the kernel's console, kept for failures.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tests.system.program import TIMEOUT, Program, ProgramError

if TYPE_CHECKING:
    from collections.abc import Iterable

KERNEL: Final = Path(__file__).parents[2] / "build/guest"
GUEST_MAC: Final = "02:00:00:00:65:01"
_MONITOR_PROMPT: Final = b"(qemu) "
# In the order they are loaded.
_MODULES: Final = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_INIT: Final = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
stty -F /dev/ttyS0 raw -echo
exec </dev/ttyS0 >/dev/ttyS0
for module in {modules}; do insmod /$module.ko; done
ip link set lo up
# Not in this process: it inherits what is left in the background, whose ends would interrupt read.
(
	echo "agent ready"
	while read -r line; do
		eval "$line" 2>&1
		echo "status $?"
	done
)
"""
_BOOT: Final = (
    "console=ttyS1 quiet mitigations=off panic=-1 net.ifnames=0"
    " tsc=reliable no_timer_check cryptomgr.notests"
)


def make_initramfs(directory: Path) -> Path:
    """Build the guest's root; needs ``make test-needs``."""
    found = shutil.which("busybox")
    busybox = Path(found).read_bytes() if found else b""
    if not busybox or b"/lib64/ld-linux" in busybox or not (KERNEL / "vmlinuz").exists():
        raise ProgramError("no guest kernel or no static busybox: make test-needs")
    files = [("init", 0o100755, _INIT.format(modules=" ".join(_MODULES)).encode())]
    ethtool = _with_libraries("ethtool")
    folders = {str(folder) for name, *_ in ethtool for folder in Path(name).parents} - {"."}
    folders |= {"bin", "dev", "proc", "sys", "tmp"}
    files += [(name, 0o040755, b"") for name in sorted(folders)]
    files += [("bin/busybox", 0o100755, busybox), *ethtool]
    files += [(f"{name}.ko", 0o100644, (KERNEL / f"{name}.ko").read_bytes()) for name in _MODULES]
    made = directory / "initramfs"
    made.write_bytes(gzip.compress(_cpio(files), 1))
    return made


def _with_libraries(program: str) -> list[tuple[str, int, bytes]]:
    """A program and its libraries, where it looks for them."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise ProgramError(f"no {program}: make test-needs")
    # Without the caller's variables: a preloaded sanitizer is no library of the program's.
    done = subprocess.run(["ldd", found], env={"PATH": _PATH}, check=True, capture_output=True)
    libraries = re.findall(r"(/\S+) \(0x", done.stdout.decode())
    files = {f"bin/{program}": found} | {name.lstrip("/"): name for name in libraries}
    return [(name, 0o100755, Path(source).read_bytes()) for name, source in files.items()]


def _cpio(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive in the "newc" format (kernel: driver-api/early-userspace/buffer-format)."""
    out = bytearray()
    for inode, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


class Guest:
    """``async with Guest(socket, …)``: a guest whose agent answers.

    Args:
        initramfs: what ``make_initramfs()`` made.
        directory: for the console's log.
        netdev: of ``-netdev``; it is given the id ``net0``.
        device: more of virtio-net-pci's properties.
        chardev: of ``-chardev`` for ``netdev``.
        cpus: virtual CPUs.
    """

    def __init__(
        self,
        initramfs: Path,
        directory: Path,
        *,
        chardev: str,
        netdev: str = "vhost-user,chardev=front",
        device: str = "",
        cpus: int = 1,
    ) -> None:
        self._console = directory / "console.log"
        self._monitor = directory / "monitor.sock"
        # vectors=0: this QEMU ends in a segmentation fault with MSI-X over vhost-user under TCG.
        nic = f"virtio-net-pci,netdev=net0,mac={GUEST_MAC},vectors=0,romfile="
        self.program = Program(
            [
                # Its own words go to the console's log, the agent's alone are read.
                *("sh", "-c", 'exec "$@" 2>>"$0"', str(self._console)),
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
                *("-machine", "pc,accel=tcg,memory-backend=ram", "-no-reboot"),
                *("-cpu", "qemu64", "-smp", str(cpus), "-m", "128"),
                *("-object", "memory-backend-memfd,id=ram,size=128M,share=on"),
                *("-kernel", str(KERNEL / "vmlinuz"), "-initrd", str(initramfs), "-append", _BOOT),
                *("-chardev", "stdio,id=agent,signal=off", "-serial", "chardev:agent"),
                *("-chardev", f"file,id=console,path={self._console},append=on"),
                *("-serial", "chardev:console"),
                *("-chardev", f"socket,id=monitor,path={self._monitor},server=on,wait=off"),
                *("-mon", "chardev=monitor"),
                *(("-chardev", chardev) if chardev else ()),
                *("-netdev", f"{netdev},id=net0"),
                *("-device", f"{nic},{device}" if device else nic),
            ],
            log=self._console,
        )

    async def __aenter__(self) -> Self:
        """Boot, and wait for the agent."""
        self.program.start()
        await self.program.expect("^agent ready\n")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Pull the plug."""
        self.program.close()

    async def run(self, command: str, timeout: float = TIMEOUT) -> str:  # noqa: ASYNC109
        """Run a line in the guest's shell; raises ProgramError unless its status is 0."""
        before = len(self.program.output)
        self.program.send(command)
        status = await self.program.expect(r"^status (\d+)\n", timeout)
        if status[1] != "0":
            raise self.program.error(f"guest: {command!r} ended with status {status[1]}")
        return re.sub(r"status \d+\n?$", "", self.program.output[before:])

    async def monitor(self, command: str) -> None:
        """Give QEMU itself a command, such as ``stop``; returns once it is carried out."""
        reader, writer = await asyncio.open_unix_connection(str(self._monitor))
        try:
            async with asyncio.timeout(TIMEOUT):
                await reader.readuntil(_MONITOR_PROMPT)
                writer.write(command.encode() + b"\n")
                await reader.readuntil(b"\n")  # it echoes
                await reader.readuntil(_MONITOR_PROMPT)
        finally:
            writer.close()
            await writer.wait_closed()
