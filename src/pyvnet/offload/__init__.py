# SPDX-License-Identifier: MIT
"""Who steers outside our threads: eBPF programs in the kernel, and a kernel that hashes itself.

The modules down to `program` and `check` need nothing of this package but
`errors`, so that a privileged helper can use them without our C.
"""
