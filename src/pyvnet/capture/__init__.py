# SPDX-License-Identifier: MIT
"""Capture files: pcap and pcapng, reading; pcapng with hash and queue, writing."""

from pyvnet.capture.blocks import PacketFlag, header_flags
from pyvnet.capture.output import Rotation
from pyvnet.capture.reader import read_frames
from pyvnet.capture.source import CapturedFrame, CaptureError
from pyvnet.capture.words import Steering, frame_comment
from pyvnet.capture.writer import Writer

__all__ = [
    "CaptureError",
    "CapturedFrame",
    "PacketFlag",
    "Rotation",
    "Steering",
    "Writer",
    "frame_comment",
    "header_flags",
    "read_frames",
]
