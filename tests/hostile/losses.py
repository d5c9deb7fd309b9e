# SPDX-License-Identifier: MIT
"""Faults and who hears of them, each in a process of its own.

``python -m tests.hostile.losses NAME``: exit status 0 means that a loss of guest
memory was survived and reported; death by SIGBUS that a fault was not ours.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.datapath import native
from tests.hostile.attack import RX
from tests.hostile.doomed import Doomed
from tests.hostile.rig import PAGE, Rig, load_hooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.datapath.native import Native


def _lose(rig: Rig) -> None:
    """One region, from start to end."""
    with Doomed(rig, RX, "buffer") as doomed:
        _lose_this(doomed)


def _lose_this(doomed: Doomed) -> None:
    doomed.offer()
    doomed.cut()
    doomed.trigger()
    doomed.expect_lost()


def _fault() -> None:
    """Touch a page of a file that is not there, in a mapping nobody watches."""
    fd = os.memfd_create("elsewhere")
    os.ftruncate(fd, PAGE)
    with mmap.mmap(fd, PAGE) as view:
        os.ftruncate(fd, 0)
        sys.exit(view[0])


def _plain(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    _lose(rig)


def _faulthandler_first(rig: Rig) -> None:
    _lose(rig)


def _faulthandler_later(rig: Rig) -> None:
    faulthandler.disable()
    with Doomed(rig, RX, "buffer") as doomed:
        faulthandler.enable()
        _lose_this(doomed)
    _lose(rig)


def _faulthandler_overtaken(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    faulthandler.enable()
    for _ in range(3):
        _lose(rig)


def _faulthandler_on_and_off(rig: Rig) -> None:
    for _ in range(20):
        faulthandler.disable()
        _lose(rig)
        faulthandler.enable()
        _lose(rig)


def _two_builds(rig: Rig) -> None:
    with Rig(native.DEFAULT) as other:
        for _ in range(3):
            for each in (rig, other):
                with (
                    Doomed(each, RX, "buffer") as one,
                    Doomed(_the_other(each, rig, other), RX, "buffer") as two,
                ):
                    _lose_this(one)
                    _lose_this(two)


def _the_other(each: Rig, one: Rig, two: Rig) -> Rig:
    return two if each is one else one


def _foreign(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    _fault()


def _foreign_faulthandler_first(rig: Rig) -> None:
    _lose(rig)
    _fault()


def _foreign_faulthandler_later(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    faulthandler.enable()
    _fault()


def _foreign_faulthandler_overtaken(rig: Rig) -> None:
    _faulthandler_overtaken(rig)
    _fault()


def _foreign_two_builds(rig: Rig) -> None:
    _two_builds(rig)
    _fault()


def _foreign_thread(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    thread = threading.Thread(target=_fault)
    thread.start()
    thread.join()


def _sent(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    os.kill(os.getpid(), signal.SIGBUS)


def _raised(rig: Rig) -> None:
    faulthandler.disable()
    _lose(rig)
    signal.raise_signal(signal.SIGBUS)


def _ignored(rig: Rig) -> None:
    faulthandler.disable()
    signal.signal(signal.SIGBUS, signal.SIG_IGN)
    _lose(rig)
    os.kill(os.getpid(), signal.SIGBUS)
    _lose(rig)


def _no_memory(rig: Rig) -> None:
    """Not even a page of zeros is to be had: the fault is what it was."""
    faulthandler.disable()
    with Doomed(rig, RX, "buffer") as doomed:
        doomed.offer()
        doomed.cut()
        resource.setrlimit(resource.RLIMIT_DATA, (0, 0))
        doomed.trigger()


class Scenario(NamedTuple):
    run: Callable[[Rig], None]
    status: int = 0


_DIES: Final = -int(signal.SIGBUS)

SCENARIOS: Final[dict[str, Scenario]] = {
    "nobody else": Scenario(_plain),
    "faulthandler first": Scenario(_faulthandler_first),
    "faulthandler later": Scenario(_faulthandler_later),
    "faulthandler overtaken": Scenario(_faulthandler_overtaken),
    "faulthandler on and off": Scenario(_faulthandler_on_and_off),
    "two builds": Scenario(_two_builds),
    "ignored": Scenario(_ignored),
    "foreign": Scenario(_foreign, _DIES),
    "foreign, faulthandler first": Scenario(_foreign_faulthandler_first, _DIES),
    "foreign, faulthandler later": Scenario(_foreign_faulthandler_later, _DIES),
    "foreign, faulthandler overtaken": Scenario(_foreign_faulthandler_overtaken, _DIES),
    "foreign, two builds": Scenario(_foreign_two_builds, _DIES),
    "foreign, in a thread": Scenario(_foreign_thread, _DIES),
    "sent": Scenario(_sent, _DIES),
    "raised": Scenario(_raised, _DIES),
    "no memory": Scenario(_no_memory, _DIES),
}


def main(name: str) -> None:
    """Run one scenario."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    hooks: Native = load_hooks()
    with Rig(hooks) as rig:
        SCENARIOS[name].run(rig)


if __name__ == "__main__":
    main(sys.argv[1])
