# SPDX-License-Identifier: MIT
"""What one served device can be told: one table for the command line and the file.

Each option has one reader (``readers``), from text to value.  A configuration file writes the
same options as TOML keys; a number or a list there is turned into the text that
the command line would take, once its type is right.  ``problems()`` judges what
no option can judge on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from pyvnet.daemon import readers
from pyvnet.datapath.config import (
    DEFAULT_POLL_US,
    IO_METHODS,
    POLL_US_MAX,
    EngineConfig,
    forbidden_cpus,
)
from pyvnet.device.settings import COMPAT_SWITCHES
from pyvnet.spec.features import NO_FEATURES, Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyvnet.capture.output import Rotation
    from pyvnet.daemon.readers import Port

MAX_PAIRS: Final = 127  # as many as vhost-user can number
DEFAULT_PAIRS: Final = 4
STEERING: Final = ("auto", "software", "ebpf", "kernel-hash")
# Asked for by name (``named_fds``), their numbers not known yet.
NAMED_FD: Final = -1
NAMED_FDS: Final[tuple[int, ...]] = ()
_MTU_MIN: Final = 68  # VIRTIO_NET_F_MTU: the least a device may offer
_MTU_MAX: Final = 65521  # the most a tap takes


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """One device as it was asked for; names are those of the options."""

    name: str = "net0"
    socket_path: str | None = None
    socket_mode: int | None = None
    socket_group: str | None = None
    fd: int | None = None
    connect: str | None = None
    tap: str | None = None
    tap_persist: bool = False
    tap_fds: tuple[int, ...] | None = None
    helper: str | None = None
    netns: str | None = None
    bridge: str | None = None
    port: Port | None = None
    queues: int | None = None
    mac: bytes | None = None
    mtu: int | None = None
    features: Feature | None = None
    no_features: Feature = NO_FEATURES
    steering: str = "auto"
    steering_program: str | None = None
    bpf_fds: tuple[int, ...] | None = None
    queue_num_unit: Literal["pairs", "vrings"] = "pairs"
    compat: tuple[str, ...] = ()
    capture: str | None = None
    capture_rotate: Rotation | None = None
    capture_snap: int = 0
    workers: int | None = None
    worker_cpus: tuple[int, ...] = ()
    poll_us: int | None = None
    io: Literal["auto", "plain", "uring"] | None = None
    pin_guest_memory: bool = False

    @property
    def pairs(self) -> int:
        """Queue pairs offered."""
        if self.queues is not None:
            return self.queues
        return len(self.port_fds) or DEFAULT_PAIRS

    @property
    def engine_config(self) -> EngineConfig:
        """How the engine is to work; what was not said is left to it."""
        said = {
            key: getattr(self, key) for key in ("io", "poll_us") if getattr(self, key) is not None
        }
        return EngineConfig(
            worker_cpus=self.worker_cpus, pin_guest_memory=self.pin_guest_memory, **said
        )

    @property
    def port_fds(self) -> tuple[int, ...]:
        """File descriptors the host port was handed."""
        return self.tap_fds or (self.port.fds if self.port else ())

    def problems(self) -> list[str]:
        """What cannot go together, one sentence each."""
        return [sentence for wrong, sentence in self._rules() if wrong]

    def _rules(self) -> Iterable[tuple[bool, str]]:
        sockets = sum(x is not None for x in (self.socket_path, self.fd, self.connect))
        yield sockets == 0, "one of socket-path, fd and connect is needed"
        yield sockets > 1, "socket-path, fd and connect exclude each other"
        for key in ("socket_mode", "socket_group"):
            given = getattr(self, key) is not None
            yield given and self.socket_path is None, f"{_dashed(key)} is for a socket-path"
        own = [key for key in _TAP_KEYS if getattr(self, key) not in {None, False}]
        for key in own:
            other = self.port is not None and self.port.kind != "tap"
            yield other, f"{_dashed(key)} is for the host port tap"
            clash = self.tap_fds is not None and key != "tap_fds"
            yield clash, f"{_dashed(key)} and tap-fds exclude each other"
        yield from self._helper_rules()
        yield from self._steering_rules()
        if self.port_fds:
            few = len(self.port_fds) > self.pairs
            yield few, f"{len(self.port_fds)} file descriptors for {self.pairs} queue pairs"
        if self.workers is not None:
            yield self.workers > self.pairs, f"{self.workers} workers for {self.pairs} queue pairs"
        unusable = forbidden_cpus(self.worker_cpus)
        yield bool(unusable), unusable

    def _helper_rules(self) -> Iterable[tuple[bool, str]]:
        """A broker works in one namespace, and takes what it made back when its client goes."""
        if self.helper is None:
            return
        for key in ("netns", "tap_persist", "bpf_fds", "steering_program"):
            given = getattr(self, key) not in {None, False}
            yield given, f"{_dashed(key)} and helper exclude each other"

    def _steering_rules(self) -> Iterable[tuple[bool, str]]:
        """One owner at a time, so two that were asked for are a contradiction (U-45)."""
        other = self.port is not None and self.port.kind != "tap"
        for key in ("steering_program", "bpf_fds"):
            given = getattr(self, key) is not None
            yield given and other, f"{_dashed(key)} is for the host port tap"
        program = self.steering_program is not None
        named = f"steering {self.steering}"
        yield (
            program and self.steering != "auto",
            f"{named} and steering-program exclude each other",
        )
        handed = self.bpf_fds is not None
        without = self.steering not in {"auto", "ebpf"}
        yield handed and without, f"{named} has no use for bpf-fds"


_TAP_KEYS: Final = ("tap", "tap_persist", "tap_fds", "netns", "bridge", "helper")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, and how to read it.

    ``read`` raises ValueError saying what is wrong.  ``types`` is what a TOML
    value may be; a list's elements are of ``elements``.
    """

    key: str
    read: Callable[[str], Any]
    metavar: str
    help: str
    types: tuple[type, ...] = (str,)
    elements: type | None = None
    flag: bool = False

    @property
    def field(self) -> str:
        """The attribute that holds it."""
        return self.key.replace("-", "_")

    def from_toml(self, value: object) -> Any:
        """Read a TOML value; raises ValueError saying what is wrong."""
        if type(value) not in self.types and not (
            isinstance(value, list)
            and self.elements is not None
            and all(type(item) is self.elements for item in value)
        ):
            raise ValueError(f"{_toml(value)} is not {self._wanted()}")
        if self.flag:
            return value
        return self.read(
            ",".join(map(str, value)) if isinstance(value, list) else str(value),
        )

    def _wanted(self) -> str:
        names = [_TYPE_NAMES[kind] for kind in self.types]
        if self.elements is not None:
            names.append(f"a list of {_TYPE_NAMES[self.elements].partition(' ')[2]}s")
        return " or ".join(names)


_TYPE_NAMES: Final = {str: "a string", int: "a number", bool: "true or false"}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return repr(value)


_flag: Final = bool

SOCKETS: Final = (
    Option("socket-path", readers.some_text, "PATH", "listen here for a front-end"),
    Option(
        *("fd", readers.or_named(readers.fd, NAMED_FD), "N"),
        "serve on this socket, listening or connected; named: handed over by name",
        (int, str),
    ),
    Option(
        "connect",
        readers.some_text,
        "PATH",
        "connect to a front-end that listens here, again and again",
    ),
    Option("socket-mode", readers.octal, "OCTAL", "mode of the socket file"),
    Option("socket-group", readers.some_text, "NAME", "group of the socket file"),
)
HOST_PORT: Final = (
    Option(
        "tap", readers.interface, "NAME", "attach to this tap if it exists and fits, else create it"
    ),
    Option(
        *("tap-persist", _flag, "", "a tap created here stays at exit"), types=(bool,), flag=True
    ),
    Option(
        *("tap-fds", readers.or_named(readers.fds, NAMED_FDS), "N,N…"),
        "tap queues that are open already; named: handed over by name (LISTEN_FDNAMES)",
        elements=int,
    ),
    Option(
        *("helper", readers.some_text, "PATH"),
        "have `pyvnet helper --serve PATH` make the tap, and a steering program",
    ),
    Option("netns", readers.some_text, "NAME", "network namespace the tap is in"),
    Option("bridge", readers.interface, "NAME", "make the tap a port of this bridge"),
    Option("port", readers.port, "KIND", "tap (default), pair:FD,FD…, null or null:endless"),
)
DEVICE: Final = (
    Option("name", readers.some_text, "NAME", "what logs and status call the device (net0)"),
    Option(
        "queues", readers.number(1, MAX_PAIRS), "N", "queue pairs (4); advised: 2 × vCPU", (int,)
    ),
    Option("mac", readers.mac, "MAC", "the device's address (default: random)"),
    Option(
        "mtu", readers.number(_MTU_MIN, _MTU_MAX), "N", "MTU of tap and device, in bytes", (int,)
    ),
    Option("features", readers.features, "LIST", "offer these and no others", elements=str),
    Option("no-features", readers.features, "LIST", "do not offer these", elements=str),
    Option(
        *("steering", readers.choice(*STEERING), "OWNER"),
        "who puts frames on their receive queue under RSS: auto, software, ebpf or kernel-hash",
    ),
    Option(
        "steering-program",
        readers.some_text,
        "OBJ",
        "a program of your own steers; RSS is refused then",
    ),
    Option(
        *(
            "bpf-fds",
            readers.or_named(readers.two_fds, NAMED_FDS),
            "P,M",
            "the steering program and its map, loaded by somebody else; named: as tap-fds",
        ),
        elements=int,
    ),
    Option(
        *("queue-num-unit", readers.choice("pairs", "vrings"), "UNIT"),
        "what the front-end counts queues in: pairs (QEMU, DPDK) or vrings (crosvm, rust-vmm)",
    ),
    Option("compat", readers.compat, "LIST", ", ".join(sorted(COMPAT_SWITCHES)), elements=str),
)
CAPTURE: Final = (
    Option("capture", readers.some_text, "FILE", "write every frame to this pcapng file"),
    Option(
        *("capture-rotate", readers.rotation, "SIZE[:FILES]"),
        "begin another file at so many bytes (K, M, G), keep the last FILES of them (all)",
    ),
    Option(
        *("capture-snap", readers.number(0, 2**20), "N", "bytes kept of each frame (all)", (int,)),
    ),
)
ENGINE: Final = (
    Option("workers", readers.number(1, MAX_PAIRS), "N", "threads (default: one per pair)", (int,)),
    Option(
        *("worker-cpus", readers.cpus, "LIST", "CPUs they run on, round robin, such as 2,3 or 2-5"),
        types=(int, str),
        elements=int,
    ),
    Option(
        *("poll-us", readers.number(0, POLL_US_MAX), "N"),
        f"look for work so long before sleeping ({DEFAULT_POLL_US}); a large number is busy"
        " polling, a core for each worker",
        (int,),
    ),
    Option(
        *("io", readers.choice(*IO_METHODS), "METHOD"),
        "read and write frames by plain calls, in batches by uring, or auto (default)",
    ),
    Option(
        *(
            "pin-guest-memory",
            _flag,
            "",
            "spare a copy by pinning (refused: time a frame 0.95 for 1514 bytes, 1.02 for 64)",
        ),
        types=(bool,),
        flag=True,
    ),
)
ALL: Final = {option.key: option for option in (*SOCKETS, *HOST_PORT, *DEVICE, *CAPTURE, *ENGINE)}


def _dashed(field: str) -> str:
    return field.replace("_", "-")


assert {option.field for option in ALL.values()} == {f.name for f in fields(DeviceOptions)}  # noqa: S101
