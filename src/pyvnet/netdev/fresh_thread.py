# SPDX-License-Identifier: MIT
"""Calls in a thread that starts now and ends with the call.

A network namespace belongs to a *thread*, and a new thread starts in that of
its creator.  Two things follow.  A pool of threads that was filled before the
program entered a namespace goes on working in the old one, which is what
``asyncio.to_thread`` would hit upon; a fresh thread is where its caller is.
And a thread may visit another namespace and simply end there: nothing has to
be undone, and no other thread ever notices.

A fresh thread also has no event loop running, whoever asks.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


def call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run ``function`` in a fresh thread and wait for it."""
    with ThreadPoolExecutor(1, thread_name_prefix="pyvnet-call") as pool:
        return pool.submit(function, *args, **kwargs).result()


async def off_loop(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run ``function`` in a fresh thread while the event loop goes on.

    When cancelled it still waits for the function to end: whoever starts a
    thread joins it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="pyvnet-call") as pool:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, partial(function, *args, **kwargs))
