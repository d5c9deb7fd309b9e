# SPDX-License-Identifier: MIT
"""What VIRTIO says: pure values and codecs, no state, no I/O."""
