# SPDX-License-Identifier: MIT
"""Seed inputs: what front-ends of tests/vhost_user say, commands of every class, clang's objects.

Run from the root of the repository: python -m tests.fuzz.make_corpus

Other files are left alone: what a fuzzer found wrong begins with ``found-``, what
it found that reaches further than the seeds with ``grown-``.
"""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyvnet.errors import FrontendError
from pyvnet.spec.vhost_user import HEADER
from tests.fuzz.run import CORPUS
from tests.fuzz.session import MESSAGE, MESSAGE_WITH_ACK, RAW
from tests.offload import sources
from tests.vhost_user.support import Conversation, RefusalError
from tests.vhost_user.test_front_ends import Crosvm, Qemu, Uml, VirtioUser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EVENTFD, MEMFD, SOCKET = 0, 1, 3


class Recorder(Conversation):
    """A conversation that becomes an input; fds become what the target makes of their kind."""

    def __init__(self, *, queue_num: int | None = None) -> None:
        super().__init__(queue_num=queue_num)
        self.input = bytearray()

    def raw(self, data: bytes, fds: Sequence[int] = ()) -> bytes:
        request, flags, size = HEADER.unpack_from(data)
        kinds = {5: MEMFD, 37: MEMFD, 21: SOCKET}
        kind = MESSAGE_WITH_ACK if flags & 8 else MESSAGE
        self.input.append(kind | len(fds) << 2)
        self.input += bytes([kinds.get(request, EVENTFD)] * len(fds))
        self.input += struct.pack("<BH", request, size) + data[HEADER.size :]
        return super().raw(data, fds)


def qemu(front: Conversation) -> None:
    """Start, two pairs, pause, reboot."""
    peer = Qemu(front)
    peer.connect()
    peer.start()
    peer.use_pairs(2)
    peer.start(bases=peer.stop())
    peer.stop()


def virtio_user(front: Conversation) -> None:
    """As a server that connects anew."""
    peer = VirtioUser(front)
    peer.stop()
    peer.features()
    peer.start()
    peer.stop()


def uml(front: Conversation) -> None:
    """Two drivers, one after the other."""
    peer = Uml(front)
    peer.probe()
    peer.insmod()
    peer.rmmod()
    peer.insmod()


def crosvm(front: Conversation) -> None:
    """Activated, asleep, awake."""
    peer = Crosvm(front)
    peer.connect()
    peer.activate()
    peer.activate(peer.deactivate())


def sessions() -> Iterator[bytes]:
    """Whole conversations, and each of their messages where it came."""
    stories: dict[Callable[[Conversation], None], int | None] = {
        qemu: None, virtio_user: None, uml: None, crosvm: 5,
    }  # fmt: skip
    for story, queue_num in stories.items():
        with Recorder(queue_num=queue_num) as front:
            story(front)
        yield bytes(front.input)
    for request in range(1, 44):
        for size in (0, 8, 40):
            with Recorder() as front:
                front.ready()
                with suppress(RefusalError, FrontendError):  # which is as good
                    front.send(request, bytes(size), need_reply=True)
            if size == 8 or request in (5, 9, 24, 37):
                yield bytes(front.input)
    yield bytes([RAW]) + struct.pack("<H", 12) + HEADER.pack(1, 1, 0)
    yield bytes([RAW]) + struct.pack("<H", 12) + HEADER.pack(5, 1, 0xFFFFFFFF)


EVERYTHING: Final = bytes(8)  # the mask says what is left out
COMMANDS: Final = (
    *(bytes([0, command, on]) for command in range(6) for on in (0, 1)),
    b"\1\0" + struct.pack("<I6sI6s", 1, b"\2\0\0\0\0\7", 1, b"\1\0\x5e\0\0\1"),
    b"\1\0" + struct.pack("<I", 0xFFFFFFFF),
    b"\1\0" + struct.pack("<I24sI", 4, bytes(24), 0),
    b"\1\1\2\0\0\0\0\x09",
    b"\1\1\1\0\0\0\0\x09",
    b"\2\0" + struct.pack("<H", 7),
    b"\2\1" + struct.pack("<H", 7),
    b"\2\0" + struct.pack("<H", 4096),
    b"\3\0",
    b"\4\0" + struct.pack("<H", 2),
    b"\4\0" + struct.pack("<H", 0x8001),
    b"\4\1" + struct.pack("<IHH4HHB40s", 0x3F, 3, 0, 0, 1, 0, 1, 2, 40, bytes(range(40))),
    b"\4\1" + struct.pack("<IHHHHB", 0, 0, 0, 0, 1, 0),
    b"\4\1" + struct.pack("<IHH", 0x3F, 0xFFFF, 0),
    b"\4\2" + struct.pack("<I4HB40s", 0x3F, 0, 0, 0, 2, 40, bytes(range(40))),
    b"\5\0" + struct.pack("<Q", 1 << 1 | 1 << 7),
    b"\5\0" + struct.pack("<Q", 1 << 46),
    b"\6\0" + bytes(8),
    b"\x08\0",
    b"\xff\xff",
    b"\4",
    b"",
)  # fmt: skip


def step(request: bytes, *, head: int = 0, writable: int = 1) -> bytes:
    """One step of the control target."""
    return struct.pack("<BBH", head, writable, len(request)) + request


def commands() -> Iterator[bytes]:
    """Each command alone, and all of them on several devices."""
    for request in COMMANDS:
        yield b"\0\1" + EVERYTHING + step(request)
    for choice, pairs in ((0, 0), (7, 1), (0x80, 3), (1, 4)):
        heads = range(7)
        steps = [step(request, head=heads[i % 7]) for i, request in enumerate(COMMANDS)]
        yield bytes([choice, pairs]) + EVERYTHING + b"".join(steps)
    for left_out in (1 << 60, 1 << 57, 1 << 22, 1 << 17, 1 << 18 | 1 << 19):
        mask = struct.pack("<Q", left_out)
        yield b"\0\1" + mask + b"".join(step(request, writable=0) for request in COMMANDS[-3:])
        yield b"\0\1" + mask + b"".join(map(step, COMMANDS))


def objects() -> Iterator[bytes]:
    """What clang makes of the sources in tests/offload, whole and spoilt at its ends."""
    both = sources.CONSTANT + sources.READ_MAP.replace("choose", "other")
    for source in (
        sources.CONSTANT,
        sources.TYPED_MAP + sources.READ_MAP,
        sources.LEGACY_MAP + sources.READ_MAP,
        sources.TYPED_MAP + both,
        *sources.UNSUPPORTED,
    ):
        yield sources.compiled(source + sources.LICENSE, "-mcpu=v3")
    data = sources.compiled(sources.TYPED_MAP + sources.READ_MAP + sources.LICENSE, "-mcpu=v1")
    yield data
    yield sources.compiled(sources.LEGACY_MAP + sources.READ_MAP, "-g0")
    for length in (0, 63, 64, len(data) // 2, len(data) - 1):
        yield data[:length]


def main() -> None:
    """Replace what this program made."""
    made = {"session": sessions(), "control": commands(), "object": objects()}
    for name, inputs in made.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for data in inputs:
            digest = hashlib.sha256(data).hexdigest()[:16]
            (folder / f"seed-{digest}").write_bytes(data)


if __name__ == "__main__":
    main()
