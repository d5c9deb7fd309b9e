# SPDX-License-Identifier: MIT
"""What an interface may be called."""

from __future__ import annotations

from pyvnet.errors import UsageError
from pyvnet.netdev import tun_uapi


def check_name(name: str) -> None:
    """dev_valid_name() of net/core/dev.c; ``%`` would make the kernel choose a number.

    Raises:
        UsageError: no interface can have this name.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        encoded = b""
    if not 0 < len(encoded) <= tun_uapi.IFNAME_MAX:
        raise UsageError(f"{name!r} cannot name an interface: use 1 to {tun_uapi.IFNAME_MAX} bytes")
    if name in {".", ".."} or any(letter in "/:%\0" or letter.isspace() for letter in name):
        raise UsageError(
            f"{name!r} cannot name an interface: no blanks, slashes, colons or percent signs"
        )
