# SPDX-License-Identifier: MIT
"""A steering program of the user's own, from an object of ``clang -target bpf``.

It is a socket filter: it sees the frame from its Ethernet header on, and what it
returns, modulo the number of queues in use, is the tap queue.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.errors import UsageError
from pyvnet.offload import bpf
from pyvnet.offload.elf import FILE_MAX, read_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.offload.image import Image

# Types of map that four numbers and flags are enough to make (enum bpf_map_type).
_MAP_TYPES: Final = {
    "hash": 1,
    "array": 2,
    "percpu_hash": 5,
    "percpu_array": 6,
    "lru_hash": 9,
    "lru_percpu_hash": 10,
    "lpm_trie": 11,
}
_SECTIONS: Final = ("socket", "steering")


class UserProgram:
    """The program in an object file, ready to be loaded.

    The one in a section whose name begins with ``socket`` or ``steering``; in an
    object without such a section its only one.

    Raises:
        UsageError: the file cannot be read, is no such object, holds no program
            or several, or needs what is not supported.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._image = _choose(read_object(_read(self._path)).programs)
            _check_maps(self._image)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    @property
    def name(self) -> str:
        """The file and the function."""
        return f"{self._path.name}:{self._image.name}"

    def load(self) -> int:
        """Make its maps and load it; returns its fd, the caller's to close.

        The maps live as long as the program does.

        Raises:
            HostError: no privilege, a map this kernel does not make, or the
                verifier refuses; then with the end of its log.
        """
        image = self._image
        with ExitStack() as made:
            maps: dict[str, int] = {}
            for spec in image.maps:
                maps[spec.name] = bpf.map_create(spec)
                made.callback(os.close, maps[spec.name])
            return bpf.prog_load(image.relocated(maps), name=image.name, license_=image.license)


def _read(path: Path) -> bytes:
    try:
        # Without waiting for the other end of a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot be read: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError("not a file")
        return os.read(fd, FILE_MAX + 1)
    finally:
        os.close(fd)


def _choose(programs: Sequence[Image]) -> Image:
    meant = [image for image in programs if image.section.startswith(_SECTIONS)] or programs
    if not meant:
        raise UsageError('no program in it: mark the function SEC("socket")')
    if len(meant) > 1:
        names = ", ".join(f"{image.name} in {image.section}" for image in meant)
        raise UsageError(f'several programs ({names}): leave one marked SEC("socket")')
    return meant[0]


def _check_maps(image: Image) -> None:
    for spec in image.maps:
        if spec.type not in _MAP_TYPES.values():
            raise UsageError(
                f"the map {spec.name} is of type {spec.type}; those that can be made are "
                f"{', '.join(_MAP_TYPES)}"
            )
