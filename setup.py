# SPDX-License-Identifier: MIT
"""The one C extension: cffi's generated module and every file of the data plane."""

from glob import glob
from pathlib import Path

from setuptools import Extension, setup

GENERATED = "src/pyvnet/_native/_ffi.c"

setup(
    ext_modules=[
        Extension(
            "pyvnet._native._ffi",
            sources=[GENERATED, *sorted(glob("native/src/*.c"))],
            depends=sorted(glob("native/**/*.h", recursive=True)),
            include_dirs=["native/include", "native/src"],
            extra_compile_args=["-std=gnu11", "-O2", "-g", "-pthread", "-fvisibility=hidden"],
            extra_link_args=["-pthread"],
            py_limited_api=True,
        )
    ]
    if Path(GENERATED).exists()
    else []
)
