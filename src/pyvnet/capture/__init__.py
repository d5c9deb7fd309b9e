# SPDX-License-Identifier: MIT
"""Capture files: pcap and pcapng, reading."""

from pyvnet.capture.reader import read_frames
from pyvnet.capture.source import CapturedFrame, CaptureError

__all__ = ["CaptureError", "CapturedFrame", "read_frames"]
