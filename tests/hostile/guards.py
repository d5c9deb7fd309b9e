# SPDX-License-Identifier: MIT
"""For every guard of the engine, a scenario that fails without it.

``python -m tests.hostile.guards NAME [off]`` runs one scenario in a process of
its own: exit status 0 means that all of it held.
"""

from __future__ import annotations

import faulthandler
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyvnet.datapath.engine import BreakReason
from pyvnet.datapath.filter import Filter
from pyvnet.datapath.memory import GuestMemory
from pyvnet.datapath.policy import Policy
from pyvnet.driver import memory as guest
from pyvnet.errors import DriverError, FrontendError, HostError
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.ring import Desc
from pyvnet.spec.transport import MemoryRegion
from pyvnet.testing import frames as build
from tests.hostile import rig as rigs
from tests.hostile.attack import (
    CTRL,
    FRAME,
    HEAD,
    INDIRECT,
    NEXT,
    RX,
    TX,
    WRITE,
    Attack,
    Case,
    run,
)
from tests.hostile.doomed import Doomed
from tests.hostile.rig import ATTACK_GPA, HDR, PAGE, UNMAPPED, Rig, Ring, frame, load_hooks
from tests.hostile.transmit import transmit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvnet.datapath.native import Native

# A guard that is off may leave a worker going round for ever.
_HANG_SECONDS: Final = 3.0
_FAR_GPA: Final = 0x10_0000_0000


def _chain(role: str, case: Case, hooks: Native) -> None:
    with Rig(hooks) as rig:
        run(rig, role, case, "static", 0)


def _forged(
    number: int, *, flags: int = 0, **fields: int
) -> Callable[[Attack], Mapping[int, Desc]]:
    def forge(attack: Attack) -> Mapping[int, Desc]:
        desc = attack.descs[number]
        return {number: desc._replace(flags=desc.flags ^ flags, **fields)}

    return forge


def _pointer(flags: int = INDIRECT, length: int = 48) -> Callable[[Attack], Mapping[int, Desc]]:
    return lambda attack: {HEAD: Desc(attack.table, length, flags, 0)}


def _beyond(attack: Attack) -> Mapping[int, Desc]:
    return {2: attack.descs[2]._replace(addr=attack.rig.arena.end - attack.descs[2].length + 1)}


def _indexes(hooks: Native, ahead: int, heads: tuple[int, ...], reason: BreakReason) -> None:
    with Rig(hooks) as rig:
        attack = Attack(rig, TX)
        attack.start()
        rig.begin()
        for i, head in enumerate(heads):
            rig.arena.store16(attack.ring.entry(i), head)
        rig.arena.store16(attack.ring.avail_idx, ahead)
        rig.arena.freeze()
        attack.trigger()
        rig.received()
        attack.expect_break(reason)
        attack.finish()


def _huge_chain(hooks: Native) -> None:
    huge = guest.RegionSpec(_FAR_GPA, 5 << 30)
    with Rig(hooks) as rig, guest.GuestMemory([huge]) as far:
        with GuestMemory((*rig.arena.regions, *far.regions), hooks) as table:
            rig.engine.set_memory(table)
        attack = Attack(rig, RX)
        attack.forge(
            {
                0: Desc(huge.gpa, 0xFFFF_FFFF, WRITE | NEXT, 1),
                1: Desc(huge.gpa, 0xFFFF_FFFF, WRITE, 0),
            }
        )
        attack.start()
        rig.begin()
        attack.launch()
        attack.expect_drop()
        attack.finish()


def _ring_address(hooks: Native, **at: int) -> None:
    with Rig(hooks) as rig:
        ring = Ring(rig.arena, **at)
        for part, gpa in at.items():
            setattr(ring, part, gpa)
        _refused(DriverError, lambda: rig.start(ring, 1))


def _refused(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError("it was not refused")


def _region(hooks: Native, shapes: tuple[tuple[int, int, int], ...]) -> None:
    with guest.GuestMemory(4 * PAGE) as memory:
        fd = memory.regions[0].fd
        regions = [MemoryRegion(*shape, fd) for shape in shapes]
        _refused(FrontendError, lambda: GuestMemory(regions, hooks))


def _receive(
    hooks: Native,
    counter: str,
    lengths: tuple[int, ...],
    taken: list[tuple[int, int]],
    *,
    merge: bool = True,
    data: bytes = FRAME,
    port_header: bytes = bytes(HDR),
    mtu: int = 0,
) -> None:
    with Rig(hooks, merge_rx=merge, mtu=mtu) as rig:
        ring = Ring(rig.arena)
        for i, length in enumerate(lengths):
            ring.put(i, Desc(rig.arena.take(length), length, WRITE, 0))
        rig.start(ring, 0)
        rig.begin()
        ring.offer(*range(len(lengths)))
        rig.arena.freeze()
        rig.wire.send(data, header=port_header)
        rig.settle()
        assert getattr(rig.engine.statistics(0), counter) == 1
        assert ring.taken() == taken
        rig.expect_quiet(0)
        rig.engine.stop_queue(0)
        rig.end(ring.used_area)


def _overrun(hooks: Native) -> None:
    """A merged frame that finds one buffer of two waits, and takes both once they are there."""
    with Rig(hooks) as rig:
        ring = Ring(rig.arena)
        for i in range(2):
            ring.put(i, Desc(rig.arena.take(60), 60, WRITE, 0))
        rig.start(ring, 0)
        ring.offer(0)
        rig.wire.send(FRAME)
        rig.settle()
        assert rig.engine.queue_state(0).avail_base == 0
        assert ring.taken() == []
        ring.offer(1)
        rig.notify()
        rig.settle()
        assert ring.taken() == [(0, 60), (1, 12)]


def _absent_queue(hooks: Native) -> None:
    with Rig(hooks, mode="rss", hash_types=0, unclassified_queue=1) as rig:
        rig.wire.send(FRAME)
        rig.settle()
        rig.settle(1)
        assert rig.engine.statistics(0).rx_drop_queue_off == 1


def _malformed(hooks: Native, data: bytes, **policy: Any) -> None:
    with Rig(hooks, **policy) as rig:
        sent = transmit(rig, "static", [(data, ())])
        assert sent.frames == []
        assert sent.malformed == 1


def _long_command(hooks: Native) -> None:
    with Rig(hooks) as rig:
        ring = Ring(rig.arena)
        length = hooks.lib.VNET_CTRL_MAX + 1
        ring.put(0, Desc(rig.arena.take(length), length, 0, 0))
        rig.start(ring, 2 * rig.pairs)
        ring.offer(0)
        _refused(DriverError, rig.engine.ctrl_pop)
        assert ring.taken() == [(0, 0)]


def _policy(hooks: Native, *table: int) -> None:
    def create() -> Policy:
        return Policy.create(
            mode="rss", hash_types=0, key=b"", indirection_table=table, native=hooks
        )

    _refused(HostError, create)


def _lost_memory(hooks: Native) -> None:
    with Rig(hooks) as rig, Doomed(rig, RX, "buffer") as doomed:
        doomed.offer()
        doomed.cut()
        doomed.trigger()
        doomed.expect_lost()


def _no_notifier(hooks: Native) -> None:
    with Rig(hooks) as rig, Path(__file__).open("rb") as file:
        setup = Ring(rig.arena).setup(1, rig.kick, file.fileno(), rig.err)
        _refused(
            FrontendError, lambda: rig.engine.start_queue(setup, event_idx=False, indirect=False)
        )


def _end_of_kicks(hooks: Native) -> None:
    """One look at a kick fd whose far end is closed, and no more."""
    ours, theirs = socket.socketpair()
    with Rig(hooks) as rig, ours:
        setup = Ring(rig.arena).setup(1, ours.fileno(), rig.call, rig.err)
        rig.engine.start_queue(setup, event_idx=False, indirect=False)
        theirs.close()
        for _ in range(10):
            rig.settle()
        assert rig.engine.statistics(0).tx_kicks == 1


def _refused_policy(hooks: Native, **fields: Any) -> None:
    def create() -> Policy:
        return Policy.create(mode="automatic", hash_types=0, key=b"", **fields, native=hooks)

    _refused(HostError, create)


def _segments(**fields: int) -> bytes:
    """A header that asks for segments of the frame below."""
    values = {"flags": 1, "gso_type": 1, "gso_size": 8, "csum_start": 34, "csum_offset": 16}
    return NetHdr(**values | fields).pack()


TCP: Final = bytes(build.build(build.Ipv4(), build.tcp(payload=bytes(64))).data)
_EVERYTHING: Final[dict[str, Any]] = {"host_offloads": Feature.CSUM | Feature.HOST_TSO4}

_BREAK: Final = BreakReason
_LOOP: Final = Case(_forged(2, flags=NEXT, next=0), (_BREAK.DESC_LOOP,))
_TURNED: Final = Case(_forged(0, flags=WRITE))

SCENARIOS: Final[dict[str, Callable[[Native], None]]] = {
    "AVAIL_INDEX": partial(_indexes, ahead=9, heads=(), reason=_BREAK.AVAIL_INDEX),
    "HEAD_RANGE": partial(_indexes, ahead=1, heads=(8,), reason=_BREAK.DESC_INDEX),
    "HEAD_IN_USE": partial(_indexes, ahead=2, heads=(0, 0), reason=_BREAK.HEAD_IN_USE),
    "NEXT_RANGE": partial(_chain, TX, Case(_forged(2, flags=NEXT, next=8), (_BREAK.DESC_INDEX,))),
    "CHAIN_LOOP": partial(_chain, RX, _LOOP),
    "CHAIN_BYTES": _huge_chain,
    "ZERO_LENGTH": partial(_chain, TX, Case(_forged(1, addr=UNMAPPED, length=0))),
    "DIRECTION": partial(_chain, CTRL, _TURNED),
    "INDIRECT_NEGOTIATED": partial(
        _chain, TX, Case(_pointer(), (_BREAK.INDIRECT,), indirect=True, negotiated=False)
    ),
    "INDIRECT_NEXT": partial(
        _chain, TX, Case(_pointer(INDIRECT | NEXT), (_BREAK.INDIRECT,), indirect=True)
    ),
    "INDIRECT_NESTED": partial(
        _chain, TX, Case(_forged(1, flags=INDIRECT), (_BREAK.INDIRECT,), indirect=True)
    ),
    "INDIRECT_LENGTH": partial(
        _chain, TX, Case(_pointer(length=49), (_BREAK.INDIRECT,), indirect=True)
    ),
    "INDIRECT_LOOP": partial(_chain, RX, _LOOP._replace(indirect=True)),
    "INDIRECT_NEXT_RANGE": partial(
        _chain, TX, Case(_forged(2, flags=NEXT, next=3), (_BREAK.DESC_INDEX,), indirect=True)
    ),
    "BUFFER_ADDRESS": partial(_chain, RX, Case(_beyond, (_BREAK.DESC_ADDRESS,))),
    "RING_ADDRESS": partial(_ring_address, used=UNMAPPED),
    "RING_ALIGNMENT": partial(_ring_address, desc=ATTACK_GPA + PAGE + 8),
    "REGION_OVERLAP": partial(
        _region, shapes=((ATTACK_GPA, 2 * PAGE, 0), (ATTACK_GPA + PAGE, PAGE, 0))
    ),
    "REGION_WRAP": partial(_region, shapes=(((1 << 64) - PAGE, 2 * PAGE, 0),)),
    "MEMORY_LOST": _lost_memory,
    "NOTIFY_KIND": _no_notifier,
    "KICK_LOST": _end_of_kicks,
    "REGION_FILE_SIZE": partial(_region, shapes=((ATTACK_GPA, PAGE, 4 * PAGE),)),
    "RX_HEADER_FITS": partial(
        _receive, counter="rx_drop_bad_buffer", lengths=(11, 100), taken=[(0, 0)]
    ),
    "RX_DIRECTION": partial(_chain, RX, _TURNED),
    "RX_NO_MERGE": partial(
        _receive, counter="rx_drop_too_big", lengths=(60, 60), taken=[], merge=False
    ),
    "RX_OVERRUN": _overrun,
    "RX_QUEUE_RUNNING": _absent_queue,
    "RX_PORT_SHORT": partial(
        _receive, counter="rx_drop_port", lengths=(100,), taken=[], data=b"", port_header=bytes(11)
    ),
    "RX_MTU": partial(
        _receive, counter="rx_drop_mtu", lengths=(100,), taken=[], data=FRAME, mtu=45
    ),
    "TX_FRAME_SHORT": partial(_malformed, data=bytes(HDR + 13)),
    "TX_FRAME_LONG": partial(_malformed, data=bytes(HDR) + frame(1, 65558)),
    "TX_DIRECTION": partial(_chain, TX, Case(_forged(2, flags=WRITE))),
    "OFFLOAD_CSUM": partial(_malformed, data=NetHdr(1, csum_start=14).pack() + FRAME),
    "OFFLOAD_RANGE": partial(
        _malformed, data=NetHdr(1, csum_start=len(FRAME) - 1).pack() + FRAME, **_EVERYTHING
    ),
    "OFFLOAD_TYPE": partial(_malformed, data=_segments() + TCP, host_offloads=Feature.CSUM),
    "OFFLOAD_GSO_CSUM": partial(_malformed, data=_segments(flags=0) + TCP, **_EVERYTHING),
    "OFFLOAD_GSO_SIZE": partial(_malformed, data=_segments(gso_size=0) + TCP, **_EVERYTHING),
    "OFFLOAD_GSO_FRAME": partial(_malformed, data=_segments(csum_start=33) + TCP, **_EVERYTHING),
    "CTRL_LENGTH": _long_command,
    "POLICY_QUEUE": lambda hooks: _policy(hooks, 0, 256),
    "POLICY_MASK": lambda hooks: _policy(hooks, 0, 0, 0),
    "POLICY_FILTER": partial(_refused_policy, rx_filter=Filter(modes=512)),
    "POLICY_TABLE": partial(_refused_policy, rx_filter=Filter(0, (bytes(6),) * 4097)),
    "POLICY_OFFLOADS": partial(_refused_policy, guest_offloads=1 << 10),
}


def names(hooks: Native) -> list[str]:
    """The guards compiled into this build."""
    found: list[str] = []
    while (name := hooks.lib.vnet_test_guard_name(len(found))) != hooks.ffi.NULL:
        found.append(hooks.ffi.string(name).decode())
    return found


def main(name: str, *, off: bool) -> None:
    """Run one scenario; an exception is the verdict."""
    faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True, file=2)
    hooks = load_hooks()
    if off:
        assert hooks.lib.vnet_test_guard_off(name.encode()) == 0
    # The rig's own hang guard would replace this shorter one.
    rigs.HANG_SECONDS = _HANG_SECONDS  # type: ignore[misc]
    SCENARIOS[name](hooks)


if __name__ == "__main__":
    main(sys.argv[1], off=sys.argv[2:] == ["off"])
