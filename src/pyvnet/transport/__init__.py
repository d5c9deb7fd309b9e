# SPDX-License-Identifier: MIT
"""How a driver reaches the device: in process, and (a later issue) over vhost-user."""
