# SPDX-License-Identifier: MIT
"""The other end of the ring: a virtio-net driver without a guest, in plain Python.

An independent second reading of the standard: it shares `pyvnet.spec` with the
device and nothing else, never the device's code and never C.
"""
