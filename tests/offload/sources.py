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
_NO_FOLDER: Final = "-fdebug-compilation-dir=."  # of this machine, in what is made
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

# Sources that need what is not supported → what is said of them.
UNSUPPORTED: Final = {
    'int counter; SEC("socket") int f(struct __sk_buff *s) { return counter++; }': (
        r"global data \(counter\)"
    ),
    "static volatile int limit = 3;"
    'SEC("socket") int f(struct __sk_buff *s) { return limit; }': "global data",
    "static const volatile u32 table[4] = {1, 2, 3, 4};"
    'SEC("socket") int f(struct __sk_buff *s) { return table[s->len & 3]; }': "global data",
    "__attribute__((noinline)) int g(int x) { return x * x; }"
    'SEC("socket") int f(struct __sk_buff *s) { return g(s->len); }': (
        "g is called.*always_inline"
    ),
    'static __attribute__((noinline, section("socket"))) int g(int x) { return x * x; }'
    'SEC("socket") int f(struct __sk_buff *s) { return g(s->len); }': "is called.*always_inline",
    'int unknown(int x); SEC("socket") int f(struct __sk_buff *s) { return unknown(s->len); }': (
        "unknown is defined nowhere"
    ),
    TYPED_MAP.replace("__uint(max_entries, 4);", "__uint(pinning, 1);") + READ_MAP: (
        "the map numbers has 'pinning'"
    ),
    TYPED_MAP.replace("__uint(max_entries, 4);", "") + READ_MAP: (
        "the map numbers does not say its max_entries"
    ),
    TYPED_MAP.replace("__uint(type, 2);", "int type;") + READ_MAP: "the map numbers has 'type'",
    'int numbers SEC(".maps");' + READ_MAP: "the map numbers is not described by a struct",
    LEGACY_MAP.replace("map_flags;", "map_flags, inner;").replace("0x400 }", "0x400, 3 }")
    + READ_MAP: "the map numbers says more",
}


@cache
def compiled(source: str, *flags: str, target: str = "bpf") -> bytes:
    """Return the object clang makes of HEADER and a source."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "object.o"
        command = ["clang", "-target", target, "-O2", "-g", "-Wno-unused", _NO_FOLDER, *flags]
        done = subprocess.run(
            [*command, "-x", "c", "-c", "-o", str(made), "-"],
            input=(HEADER + source).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return made.read_bytes()
