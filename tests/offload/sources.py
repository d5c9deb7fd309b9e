# SPDX-License-Identifier: MIT
"""Objects for tests: C sources, and the compiler of `make bpf` over them."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

# Just what the sources here need, so that no header has to be installed.
HEADER: Final = """
typedef unsigned int u32;
typedef unsigned long long u64;
struct __sk_buff { u32 len, pkt_type, mark, queue_mapping, protocol; };
#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, type) type *name
static void *(*const lookup)(void *map, const void *key) = (void *)1;
"""
LICENSE: Final = 'char _license[] SEC("license") = "Dual MIT/GPL";\n'
TYPED_MAP: Final = """
typedef u64 const values[3];
struct {
	__uint(type, 2);
	__uint(max_entries, 4);
	__type(key, u32);
	__type(value, values);
	__uint(map_flags, 0x400);
} numbers SEC(".maps");
"""
LEGACY_MAP: Final = """
struct bpf_map_def { u32 type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def numbers SEC("maps") = { 2, 4, 24, 4, 0x400 };
"""
READ_MAP: Final = """
SEC("socket/first") int choose(struct __sk_buff *skb)
{
	u32 key = 1;
	u64 *found = lookup(&numbers, &key);
	return found ? *found : 7;
}
"""
CONSTANT: Final = 'SEC("socket") int choose(struct __sk_buff *skb) { return 3; }\n'


@cache
def compiled(source: str, *flags: str, target: str = "bpf") -> bytes:
    """Return the object clang makes of HEADER and a source."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "object.o"
        command = ["clang", "-target", target, "-O2", "-g", "-Wno-unused", *flags]
        done = subprocess.run(
            [*command, "-x", "c", "-c", "-o", str(made), "-"],
            input=(HEADER + source).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return made.read_bytes()
