# SPDX-License-Identifier: MIT
"""The program ``pyvnet``: arguments, commands and what they print."""
