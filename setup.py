# SPDX-License-Identifier: MIT
"""The one C extension: cffi's generated module and every file of the data plane."""

import os
from pathlib import Path

from setuptools import Extension, setup

# The other builds of the Makefile: sanitizers, test hooks, no optimisation.
VARIANT = os.environ.get("PYVNET_CFLAGS", "").split()


def files(pattern: str) -> list[str]:
    """Return the files of native/ that match, in a stable order."""
    return sorted(map(str, Path("native").glob(pattern)))


setup(
    ext_modules=[
        Extension(
            "pyvnet._native._ffi",
            sources=["src/pyvnet/_native/_ffi.c", *files("src/*.c")],
            depends=files("**/*.h"),
            include_dirs=["native/include", "native/src"],
            extra_compile_args=[
                "-std=gnu11",
                "-O2",
                "-g",
                "-pthread",
                "-fvisibility=hidden",
                *VARIANT,
            ],
            extra_link_args=["-pthread", *VARIANT],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
