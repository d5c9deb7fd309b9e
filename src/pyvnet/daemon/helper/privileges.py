# SPDX-License-Identifier: MIT
"""Becoming a user who may do nothing that needs a privilege, now or ever after.

All five capability sets are emptied, the bounding set among them, and
no_new_privs is set: neither a set-user-ID program nor file capabilities bring
anything back.  The kernel's own account of it (/proc/self/status) is then read,
and nothing goes on unless it says so.

Never does: become root; keep a supplementary group that the user has not.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyvnet.errors import HostError, UsageError

CAP_NET_ADMIN: Final = 12
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39

# linux/prctl.h, linux/capability.h
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES_MAX: Final = 64

_NOTHING: Final = frozenset({"0000000000000000"})


@dataclass(frozen=True, slots=True)
class User:
    """Somebody to become; ``home`` is empty where the number has no entry in passwd(5)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


def user(text: str) -> User:
    """``USER`` or ``USER:GROUP``, by name or number.

    Raises:
        UsageError: there is no such user or group, or it is root.
    """
    wanted, colon, group = text.partition(":")
    number = int(wanted) if wanted.isascii() and wanted.isdigit() else None
    try:
        entry = pwd.getpwnam(wanted) if number is None else pwd.getpwuid(number)
    except (KeyError, OverflowError):
        if number is None:
            raise UsageError(f"there is no user {wanted!r}") from None
        found = User(number, number, (), wanted, "")
    else:
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        found = User(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)
    if colon:
        gid = _group(group)
        found = User(found.uid, gid, (gid,), found.name, found.home)
    if found.uid == 0 or not 0 < found.uid < 2**32 - 1:
        raise UsageError(f"{text!r}: name a user other than root")
    return found


def _group(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageError(f"there is no group {text!r}") from None


def become(who: User) -> None:
    """Become that user for good, without a capability in any set, and with no_new_privs.

    Raises:
        HostError: some step was refused, or the kernel's account says otherwise.
    """
    try:
        _limit_capabilities(frozenset())
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
        _set_capabilities(frozenset())
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        cure = "run as root, with CAP_SETUID, CAP_SETGID and CAP_SETPCAP"
        raise HostError(f"cannot become {who.name}", error.errno, cure) from error
    _check(who)


def keep_only(capabilities: frozenset[int]) -> None:
    """Stay who one is, but give away every other capability, for good.

    Raises:
        HostError: the kernel refuses.
    """
    try:
        _limit_capabilities(capabilities)
        _set_capabilities(capabilities)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        cure = "run as root, with CAP_SETPCAP"
        raise HostError("cannot give privileges away", error.errno, cure) from error


def _limit_capabilities(kept: frozenset[int]) -> None:
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_CAPABILITIES_MAX):
        if number in kept:
            continue
        try:
            has = _prctl(_PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno == errno.EINVAL:  # beyond the last one of this kernel
                return
            raise
        if has:
            _prctl(_PR_CAPBSET_DROP, number)


def _set_capabilities(kept: frozenset[int]) -> None:
    """Effective and permitted; what is inheritable is nothing."""
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=6I", low, low, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _check(who: User) -> None:
    status = Path("/proc/self/status").read_text()
    sets = set(re.findall(r"^Cap\w{3}:\s*(\w+)$", status, re.MULTILINE))
    locked = re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)
    ids = {*os.getresuid()}, {*os.getresgid()}
    if sets != _NOTHING or locked is None or ids != ({who.uid}, {who.gid}):
        raise HostError(f"could not become {who.name} without privileges")


def _prctl(option: int, value: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    result = libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
    return int(result)
