# SPDX-License-Identifier: MIT
"""Sends frames into an interface for as long as it may: a program, so that it has a CPU of its own.

Arguments: interface, seed, microseconds from frame to frame, fd of the
shared words, fd of an eventfd.  Standard input: a line per flow, its frame in
hexadecimal.

Each frame is of a flow chosen at random and ends with its serial number, the
epoch and the flow, in network order (``STAMP``).  The epoch is read before a
frame is sent, so what carries it was sent after it was written.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import socket
import struct
import sys

STAMP = struct.Struct(">IIH")
# The words, 64 bits each.  Its own are the first two: frames begun, frames handed over.
BEGUN, SENT, ALLOWED, EPOCH = range(4)
WORDS = 4
NO_MORE = (1 << 64) - 1  # as ALLOWED: end


def main() -> None:
    """Send until told to end."""
    name, seed, pace, words_fd, wake_fd = sys.argv[1], *map(int, sys.argv[2:])
    words = memoryview(mmap.mmap(words_fd, 8 * WORDS)).cast("Q")
    frames = [bytearray.fromhex(line) for line in sys.stdin]
    choose = random.Random(seed).choices
    indices = range(len(frames))
    stamp = STAMP.pack_into
    if pace:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, pace / 1_000_000, pace / 1_000_000)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((name, 0))
        serial = 0
        while True:
            while serial >= words[ALLOWED]:
                os.eventfd_read(wake_fd)
            if words[ALLOWED] == NO_MORE:
                break
            for flow in choose(indices, k=min(words[ALLOWED] - serial, 256)):
                frame = frames[flow]
                words[BEGUN] = serial + 1
                stamp(frame, len(frame) - STAMP.size, serial, words[EPOCH], flow)
                wire.send(frame)
                serial += 1
                words[SENT] = serial
                if pace:
                    signal.sigwait({signal.SIGALRM})


if __name__ == "__main__":
    main()
