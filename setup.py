# SPDX-License-Identifier: MIT
"""The one C extension: cffi's generated module and every file of the data plane."""

from pathlib import Path

from setuptools import Extension, setup

GENERATED = "src/pyvnet/_native/_ffi.c"


def files(pattern: str) -> list[str]:
    """Return the files of native/ that match, in a stable order."""
    return sorted(map(str, Path("native").glob(pattern)))


setup(
    ext_modules=[
        Extension(
            "pyvnet._native._ffi",
            sources=[GENERATED, *files("src/*.c")],
            depends=files("**/*.h"),
            include_dirs=["native/include", "native/src"],
            extra_compile_args=["-std=gnu11", "-O2", "-g", "-pthread", "-fvisibility=hidden"],
            extra_link_args=["-pthread"],
            py_limited_api=True,
        )
    ]
    if Path(GENERATED).exists()
    else []
)
