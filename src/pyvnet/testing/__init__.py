# SPDX-License-Identifier: MIT
"""What tests of a driver or a device need: frames to send and to expect."""
