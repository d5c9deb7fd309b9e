# SPDX-License-Identifier: MIT
"""pyvnet: a userspace, tap-backed virtio-net device."""
