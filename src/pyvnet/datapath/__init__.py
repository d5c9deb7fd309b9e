# SPDX-License-Identifier: MIT
"""Python handles on the C engine: one cffi call per verb, one door for its error codes."""
