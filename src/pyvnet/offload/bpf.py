# SPDX-License-Identifier: MIT
"""bpf(2) as far as steering needs it, and what /proc tells of an fd without it.

Source: ``union bpf_attr``, ``struct bpf_prog_info`` and ``struct bpf_map_info`` of
``include/uapi/linux/bpf.h``; attributes are zero-extended, so shorter ones serve
every kernel.

Making maps and loading programs takes privileges; using an fd that somebody
handed over takes none.  `fd_info` reads ``/proc/self/fdinfo`` only, so it
works where a seccomp filter forbids bpf(2) altogether.

All fds returned here are the caller's to close, and are closed on exec.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError
from pyvnet.offload.bpf_call import bpf_call

if TYPE_CHECKING:
    from pyvnet.offload.image import MapSpec

MAP_TYPE_ARRAY: Final = 2
MAP_MMAPABLE: Final = 0x400  # BPF_F_MMAPABLE
PROG_TYPE_SOCKET_FILTER: Final = 1
NAME_MAX: Final = 15  # BPF_OBJ_NAME_LEN without the terminating zero

_MAP_CREATE: Final = 0
_MAP_LOOKUP: Final = 1
_MAP_UPDATE: Final = 2
_PROG_LOAD: Final = 5
_PROG_TEST_RUN: Final = 10
_OBJ_GET_INFO: Final = 15
_ENABLE_STATS: Final = 32

_ATTEMPTS: Final = 4
_LOG_BYTES: Final = 1 << 20
_LOG_LINES: Final = 12
_LOG_STEPS, _LOG_RESULT = 1, 4  # BPF_LOG_LEVEL1, BPF_LOG_STATS
_PROG_INFO_BYTES: Final = 232
_MAP_INFO_BYTES: Final = 80
_MAP_IDS: Final = 64
_ETHERNET: Final = 14

_PRIVILEGE: Final = (
    "run as root or with CAP_BPF and CAP_PERFMON (before Linux 5.8: CAP_SYS_ADMIN), "
    "or let `pyvnet helper` hand the fds over; before Linux 5.11 RLIMIT_MEMLOCK counts too"
)
_CURES: Final = {
    errno.EPERM: _PRIVILEGE,
    errno.ENOSYS: "the kernel lacks CONFIG_BPF_SYSCALL, or a seccomp filter forbids bpf(2): "
    "allow it, or have the fds handed over",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "the whole system is out of open files; raise fs.file-max",
    errno.ENOMEM: "there is not enough memory",
    errno.EBADF: "hand over the fd of what is asked for, open",
}
_LOAD_CURES: Final = _CURES | {
    errno.EACCES: "the verifier refuses the program",
    errno.EINVAL: "this kernel does not take such a program",
    errno.E2BIG: "the program is too large or too complex for this kernel",
    errno.EAGAIN: "the program takes the verifier too long",
}


@dataclass(frozen=True, slots=True)
class FdInfo:
    """What ``/proc/self/fdinfo`` says of an fd.

    Attributes:
        kind: ``program``, ``map`` or "" for anything else.
        link: what the fd is, as the kernel words it.
        values: the lines of fdinfo as they are: ``prog_type``, ``prog_tag``,
            ``map_type``, ``key_size``, ``value_size``, ``max_entries``, ``map_flags``,
            ``map_id`` … ; `number` reads one.
    """

    kind: str
    link: str
    values: dict[str, str]

    def number(self, name: str) -> int | None:
        """A value as a number, whatever its base; None when it is not there."""
        text = self.values.get(name)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """``struct bpf_prog_info`` in part; ``run_time_ns`` counts while statistics are on."""

    type: int
    id: int
    tag: str
    map_ids: tuple[int, ...]
    run_time_ns: int
    run_count: int
    verified_instructions: int


@dataclass(frozen=True, slots=True)
class MapInfo:
    """``struct bpf_map_info`` in part."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Run:
    """``result`` is what the program returned, ``duration_ns`` the mean of one run."""

    result: int
    duration_ns: int


def fd_info(fd: int) -> FdInfo:
    """What an fd is; needs no privilege.

    Raises:
        HostError: it is not open, or /proc is not there.
    """
    try:
        link = str(Path(f"/proc/self/fd/{fd}").readlink())
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    except OSError as error:
        if Path("/proc/self/fd").exists():
            raise HostError(f"file descriptor {fd}", errno.EBADF, _CURES[errno.EBADF]) from error
        raise HostError("cannot look at descriptors", error.errno, "mount /proc") from error
    pairs = (line.partition(":") for line in text.splitlines())
    kinds = {"anon_inode:bpf-prog": "program", "anon_inode:bpf-map": "map"}
    values = {name: value.strip() for name, _, value in pairs}
    return FdInfo(kinds.get(link, ""), link, values)


def map_create(spec: MapSpec) -> int:
    """Make a map; returns its fd.

    Raises:
        HostError: no privilege, no memory, or not a map this kernel makes.
    """
    numbers = (spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    attributes = struct.pack("=7I16s", *numbers, 0, 0, _object_name(spec.name))
    try:
        return bpf_call(_MAP_CREATE, attributes)[0]
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "this kernel does not make such a map")
        raise HostError(f"cannot make the BPF map {spec.name}", error.errno, cure) from error


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Write one element; sizes must be the map's (values of arrays: see `map_lookup`).

    Raises:
        HostError: not a map, no such element, no privilege to write.
    """
    keys, values = (ctypes.create_string_buffer(data, len(data)) for data in (key, value))
    _element(_MAP_UPDATE, fd, keys, values)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes:
    """One element's value.

    Raises:
        HostError: not a map, no such element.
    """
    keys = ctypes.create_string_buffer(key, len(key))
    # The kernel rounds a value up to eight bytes for some types of map.
    values = ctypes.create_string_buffer((value_size + 7) & ~7)
    _element(_MAP_LOOKUP, fd, keys, values)
    return values.raw[:value_size]


def _element(command: int, fd: int, key: ctypes.Array[ctypes.c_char], value: object) -> None:
    address = ctypes.addressof(value)  # type: ignore[arg-type]  # an array of ctypes
    try:
        bpf_call(command, struct.pack("=ixxxxQQQ", fd, ctypes.addressof(key), address, 0))
    except OSError as error:
        verb = "write" if command == _MAP_UPDATE else "read"
        cure = _CURES.get(error.errno or 0, "")
        raise HostError(f"cannot {verb} the BPF map fd {fd}", error.errno, cure) from error


def prog_load(
    code: bytes,
    *,
    name: str,
    license_: str,
    kind: int = PROG_TYPE_SOCKET_FILTER,
    seconds: float | None = None,
) -> int:
    """Load instructions with map fds in place; returns the program's fd.

    Args:
        code: the instructions.
        name: letters, digits and underscores; others are replaced.
        license_: as the kernel is told it.
        kind: ``BPF_PROG_TYPE_*``.
        seconds: after which the verifier gives up, who can be kept busy for long by
            few instructions; None waits.  Otherwise only the main thread may call.

    Raises:
        HostError: no privilege, or the verifier refuses; then the error ends
            with the end of its log.
    """
    said: list[str] = []
    try:
        return _prog_load(code, name, license_, kind, seconds)
    except OSError as error:
        reason = error
    if reason.errno in {errno.EACCES, errno.EINVAL, errno.E2BIG}:
        # Only now: every step written down makes the verifier slow, and after a million of
        # them the last ones tell nothing.
        log = ctypes.create_string_buffer(_LOG_BYTES)
        level = _LOG_RESULT if reason.errno == errno.E2BIG else _LOG_STEPS
        try:
            return _prog_load(code, name, license_, kind, seconds, level, log)
        except OSError as error:
            reason = error if error.errno != errno.ENOSPC else reason
        said = log.value.decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
    cure = _LOAD_CURES.get(reason.errno or 0, "")
    if said:
        cure = "\n  ".join([f"{cure}; the end of its log:", *said])
    raise HostError(f"cannot load the BPF program {name}", reason.errno, cure) from reason


def _prog_load(
    code: bytes,
    name: str,
    license_: str,
    kind: int,
    seconds: float | None,
    level: int = 0,
    log: ctypes.Array[ctypes.c_char] | None = None,
) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(license_.encode())
    size, address = (len(log), ctypes.addressof(log)) if log else (0, 0)
    attributes = struct.pack(
        "=IIQQIIQII16s",
        kind,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        level,
        size,
        address,
        0,
        0,
        _object_name(name),
    )
    return _undisturbed(attributes) if seconds is None else _bounded(attributes, seconds)


def _bounded(attributes: bytes, seconds: float) -> int:
    """BPF_PROG_LOAD, which a timer's signal ends with EAGAIN when it takes too long.

    Timers of CPU time do not do: the kernel sends their signals on the way back to us.
    """
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGALRM})
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return bpf_call(_PROG_LOAD, attributes)[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, interval)  # somebody else's, a little late
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _undisturbed(attributes: bytes) -> int:
    """BPF_PROG_LOAD; the verifier gives up with EAGAIN when a signal comes meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for _ in range(_ATTEMPTS):
            try:
                return bpf_call(_PROG_LOAD, attributes)[0]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
        return bpf_call(_PROG_LOAD, attributes)[0]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_program(fd: int, frame: bytes, repeat: int = 1) -> Run:
    """Run a program over a frame, which it sees from its Ethernet header on, as on a tap.

    BPF_PROG_TEST_RUN takes an Ethernet header off what it is given before it
    runs a socket filter; so an empty one is put in front.  The frame's own would
    have frames refused that end inside the IP header it promises.

    Raises:
        HostError: not a program, or the kernel does not take such a frame.
    """
    frame = bytes(_ETHERNET) + frame
    data = ctypes.create_string_buffer(frame, len(frame))
    address = ctypes.addressof(data)
    attributes = struct.pack("=iIIIQQII", fd, 0, len(frame), 0, address, 0, repeat, 0)
    try:
        _, answer = bpf_call(_PROG_TEST_RUN, attributes)
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "")
        raise HostError(f"cannot try the BPF program fd {fd}", error.errno, cure) from error
    (result,) = struct.unpack_from("=I", answer, 4)
    (duration,) = struct.unpack_from("=I", answer, 36)
    return Run(result, duration)


def program_info(fd: int) -> ProgramInfo:
    """Ask the kernel about a program.

    Raises:
        HostError: not a program, or bpf(2) is not allowed.
    """
    ids = (ctypes.c_uint32 * _MAP_IDS)()
    wanted = bytearray(_PROG_INFO_BYTES)
    struct.pack_into("=IQ", wanted, 52, _MAP_IDS, ctypes.addressof(ids))
    info = _object_info(fd, "program", bytes(wanted))
    kind, number, tag = struct.unpack_from("=II8s", info)
    (count,) = struct.unpack_from("=I", info, 52)
    run_time, run_count = struct.unpack_from("=QQ", info, 192)
    (verified,) = struct.unpack_from("=I", info, 216)
    maps = tuple(ids[: min(count, _MAP_IDS)])
    return ProgramInfo(kind, number, tag.hex(), maps, run_time, run_count, verified)


def map_info(fd: int) -> MapInfo:
    """Ask the kernel about a map.

    Raises:
        HostError: not a map, or bpf(2) is not allowed.
    """
    info = _object_info(fd, "map", bytes(_MAP_INFO_BYTES))
    return MapInfo(*struct.unpack_from("=6I", info))


def _object_info(fd: int, kind: str, wanted: bytes) -> bytes:
    if fd_info(fd).kind != kind:  # the answer does not say which it is
        raise HostError(f"file descriptor {fd} is no BPF {kind}")
    info = ctypes.create_string_buffer(wanted, len(wanted))
    try:
        bpf_call(_OBJ_GET_INFO, struct.pack("=iIQ", fd, len(wanted), ctypes.addressof(info)))
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "")
        raise HostError(f"cannot ask about the BPF {kind}", error.errno, cure) from error
    return info.raw


def enable_stats() -> int:
    """Have the kernel count run times of programs until the returned fd is closed.

    Raises:
        HostError: it takes CAP_SYS_ADMIN.
    """
    try:
        return bpf_call(_ENABLE_STATS, struct.pack("=I", 0))[0]
    except OSError as error:
        cure = "run as root" if error.errno == errno.EPERM else _CURES.get(error.errno or 0, "")
        raise HostError("cannot have BPF programs timed", error.errno, cure) from error


def _object_name(name: str) -> bytes:
    """What the kernel takes in a name: letters, digits, ``_`` and ``.``."""
    allowed = (letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return "".join(allowed).encode()[:NAME_MAX]
