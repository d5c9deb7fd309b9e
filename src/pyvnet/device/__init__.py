# SPDX-License-Identifier: MIT
"""What the device does: sans-IO, bytes in, answers and effects out.

Reading order: ``device`` (how it is used), ``state`` (everything it is),
``lifecycle`` and ``negotiation`` (how a driver starts it), ``queue``,
``controlq`` and ``steering`` (what a driver tells it), ``effects`` (what it
asks for).
"""
