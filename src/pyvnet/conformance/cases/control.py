# SPDX-License-Identifier: MIT
"""The controlq as such: answers, framing, order, and commands that are not carried out.

What a command has done is looked at where every device shows it: MAC_ADDR_SET in
configuration space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._commands import (
    ALL,
    STATION,
    all_commands,
    commands,
    consistent,
    stations,
)
from pyvnet.driver import Buffer, CtrlLayout
from pyvnet.spec.ctrl import Ack, CtrlClass, MacCommand, MqCommand, RxCommand
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import VERIFICATION_KEY, RssConfig

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

_LAYOUTS = {
    "as Linux cuts them": CtrlLayout((2, 8, 256, 3)),
    "in one piece": CtrlLayout((), indirect=False),
    "byte by byte": CtrlLayout((1,) * 60, indirect=False),
    "class and command apart": CtrlLayout((1, 1), indirect=False),
    "cut inside a field": CtrlLayout((3,), indirect=False),
}
_INDIRECT = {
    "in an indirect table": CtrlLayout((2,), indirect=True),
    "byte by byte in an indirect table": CtrlLayout((1,) * 60, indirect=True),
    "half before an indirect table": CtrlLayout((1, 2), indirect=True, direct_prefix=1),
}
_ADDRESS = (Feature.MAC | Feature.CTRL_MAC_ADDR, CtrlClass.MAC, MacCommand.ADDR_SET)


@case("NET-CVQ-01", control=True)
async def commands_are_acknowledged(t: Trial) -> None:
    """Each good command of each negotiated feature is answered OK in the first writable byte."""
    drv, known = await all_commands(t)
    for command in known:
        for room in (1, 64):
            answer = await drv.ctrl.exchange(command.request, room)
            t.equal(answer.ack, Ack.OK, f"ack of {command.name} with room for {room} bytes")


@case("NET-CVQ-01", control=True)
async def failures_are_answered_with_1(t: Trial) -> None:
    """A command that cannot be carried out is answered ERR in the first writable byte."""
    drv, known = await all_commands(t)
    for ctrl_class in sorted({command.ctrl_class for command in known}):
        answer = await drv.ctrl.exchange(bytes([ctrl_class, 0xFF]), 8)
        t.equal(answer.ack, Ack.ERR, f"ack of command 255 of class {ctrl_class}")


@case("NET-CVQ-03", "VIO-SPL-01", control=True)
async def commands_may_be_cut_anywhere(t: Trial) -> None:
    """Requests in any number of descriptors are read alike, and MAC_ADDR_SET wholly."""
    drv, known = await all_commands(t)
    for number, (name, layout) in enumerate(_LAYOUTS.items()):
        for command in known[number % 3 :: 3]:
            ack = await drv.ctrl.raw(*command[:2], command.payload, layout=layout, check=False)
            t.equal(ack, Ack.OK, f"ack of {command.name} {name}")
    await _addresses_arrive(t, drv, _LAYOUTS)


@case("NET-CVQ-03", "VIO-SPL-06", needs=Feature.INDIRECT_DESC, control=True)
async def commands_may_be_indirect(t: Trial) -> None:
    """The same with indirect descriptors, also behind ordinary ones."""
    drv = await t.negotiate(consistent(t) | Feature.INDIRECT_DESC, pairs=1, rx_buffers=8)
    for number, (name, layout) in enumerate(_INDIRECT.items()):
        for command in commands(drv)[number::3]:
            ack = await drv.ctrl.raw(*command[:2], command.payload, layout=layout, check=False)
            t.equal(ack, Ack.OK, f"ack of {command.name} {name}")
    await _addresses_arrive(t, drv, _INDIRECT)


async def _addresses_arrive(t: Trial, drv: Driver, layouts: dict[str, CtrlLayout]) -> None:
    features, *command = _ADDRESS
    if drv.features & features != features:
        return
    for address, (name, layout) in zip(stations(len(layouts)), layouts.items(), strict=True):
        await drv.ctrl.raw(command[0], command[1], address, layout=layout)
        mac = (await drv.read_config()).mac
        t.equal(mac.hex(":"), address.hex(":"), f"mac after MAC_ADDR_SET {name}")


@case("OUR-CVQ-08", needs=Feature.MAC | Feature.CTRL_MAC_ADDR, control=True)
async def commands_are_carried_out_in_order(t: Trial) -> None:
    """Several commands made available at once: all answered OK, the last address stays."""
    drv = await t.negotiate(Feature.MAC | Feature.CTRL_MAC_ADDR, pairs=1, rx_buffers=8)
    queue, memory = drv.queues[-1], drv.memory  # the controlq is the last
    addresses = stations(8)
    answers = []
    for address in addresses[:-1]:
        request = bytes([CtrlClass.MAC, MacCommand.ADDR_SET]) + address
        at, answer = memory.alloc(len(request)), memory.alloc(1)
        memory.write(at, request)
        memory.write(answer, b"\xee")
        queue.ring.add([Buffer(at, len(request)), Buffer(answer, 1, writable=True)], address)
        answers.append(answer)
    await drv.ctrl.mac_addr_set(addresses[-1])
    acks = [memory.read(answer, 1)[0] for answer in answers]
    t.equal(acks, [Ack.OK] * len(acks), "acks of the commands before the last")
    t.equal([used.chain.token for used in queue.others], addresses[:-1], "order of completion")
    t.equal((await drv.read_config()).mac.hex(":"), addresses[-1].hex(":"), "mac after the last")


@case("NET-CVQ-01", needs=Feature.CTRL_VQ, control=True)
async def controlq_follows_the_pairs_negotiated(t: Trial) -> None:
    """Without MQ and RSS the controlq is virtqueue 2, whatever max_virtqueue_pairs says."""
    drv = await t.negotiate(consistent(t, Feature.MQ, Feature.RSS) | Feature.CTRL_VQ)
    t.equal(drv.queues[-1].index, 2, "index the driver gave the controlq")
    answer = await drv.ctrl.exchange(bytes([CtrlClass.RX, 0xFF]))
    t.equal(answer.ack, Ack.ERR, "answer to an unknown command on virtqueue 2")


@case("OUR-CVQ-05", "U-40", control=True)
async def unknown_commands_are_refused(t: Trial) -> None:
    """No class or command byte without a meaning is answered OK, whatever bytes follow."""
    drv, _ = await all_commands(t)
    known = {command[:2] for command in ALL}
    tried = [(c, n) for c in range(12) for n in range(8)]
    tried += [(c, 0) for c in (12, 31, 64, 127, 128, 254, 255)] + [(c, 255) for c in range(12)]
    for ctrl_class, number in tried:
        if (ctrl_class, number) in known or ctrl_class in (6, 7, 8, 9):
            continue
        ack = await drv.ctrl.raw(ctrl_class, number, bytes(64), check=False)
        t.equal(ack, Ack.ERR, f"answer to command {number} of class {ctrl_class}")


@case("OUR-CVQ-04", "U-65", control=True)
async def commands_need_their_feature(t: Trial) -> None:
    """A command whose feature was offered but not accepted is refused, the others are taken."""
    features = sorted({command.feature for command in ALL if consistent(t) & command.feature})
    if not features:
        t.not_applicable("the device offers no feature that brings a command")
    drv = await t.negotiate(Feature.CTRL_VQ, pairs=1, rx_buffers=8)
    for left_out in (features[::2], features[1::2], features):
        await drv.negotiate(consistent(t, *left_out) | Feature.CTRL_VQ, pairs=1, rx_buffers=8)
        for command in ALL:
            if not command.feature & t.offered:
                continue
            expected = Ack.OK if drv.features & command.feature else Ack.ERR
            if expected is Ack.OK and not command.always:
                continue
            ack = await drv.ctrl.raw(*command[:2], command.payload, check=False)
            without = "" if expected is Ack.OK else f" without {command.feature.name}"
            t.equal(ack, expected, f"answer to {command.name}{without}")


@case("OUR-CVQ-06", "U-04", control=True)
async def commands_cut_short_are_refused(t: Trial) -> None:
    """Commands cut short, in the first bytes of their data and before the last, are refused."""
    drv, known = await all_commands(t)
    for command in known:
        size = len(command.payload)
        for length in sorted({*range(min(size, 9)), *range(size - 1, 0, -11)}):
            ack = await drv.ctrl.raw(*command[:2], command.payload[:length], check=False)
            t.equal(ack, Ack.ERR, f"answer to {command.name} with {length} bytes of data")


@case("OUR-CVQ-06", "U-04", needs=Feature.MAC | Feature.CTRL_MAC_ADDR, control=True)
async def a_short_address_changes_nothing(t: Trial) -> None:
    """MAC_ADDR_SET with less than 6 bytes leaves the address as it was."""
    drv = await t.negotiate(Feature.MAC | Feature.CTRL_MAC_ADDR, pairs=1, rx_buffers=8)
    await drv.ctrl.mac_addr_set(STATION)
    for length in range(6):
        other = bytes.fromhex("0a1122334455")[:length]
        ack = await drv.ctrl.mac_addr_set(other, check=False)
        t.equal(ack, Ack.ERR, f"answer to MAC_ADDR_SET with {length} bytes")
        t.equal((await drv.read_config()).mac.hex(":"), STATION.hex(":"), "mac afterwards")


@case("U-06", control=True)
async def bytes_behind_a_command_do_no_harm(t: Trial) -> None:
    """Surplus bytes, as drivers with padded structures send them, are tolerated."""
    drv, known = await all_commands(t)
    for command in known:
        for surplus in (1, 3, 64):
            payload = command.payload + b"\xff" * surplus
            ack = await drv.ctrl.raw(*command[:2], payload, check=False)
            t.equal(ack, Ack.OK, f"answer to {command.name} with {surplus} bytes too many")


@case("OUR-CVQ-07", "U-05", needs=Feature.MAC | Feature.CTRL_MAC_ADDR, control=True)
async def without_room_for_the_ack_nothing_happens(t: Trial) -> None:
    """A command without a writable byte comes back with length 0 and is not carried out."""
    drv = await t.negotiate(Feature.MAC | Feature.CTRL_MAC_ADDR, pairs=1, rx_buffers=8)
    await drv.ctrl.mac_addr_set(STATION)
    request = bytes([CtrlClass.MAC, MacCommand.ADDR_SET]) + stations(1)[0]
    t.equal((await drv.ctrl.exchange(request, 0)).length, 0, "length of what came back")
    t.equal((await drv.read_config()).mac.hex(":"), STATION.hex(":"), "mac afterwards")
    t.equal(await drv.ctrl.mac_addr_set(stations(2)[1]), Ack.OK, "answer to the next command")


@case("OUR-CVQ-07", "U-05", control=True)
async def half_a_header_is_given_back(t: Trial) -> None:
    """A request without class or command comes back with length 0, and the queue goes on."""
    drv, known = await all_commands(t)
    for request in (b"", b"\4"):
        for room in (1, 16):
            answer = await drv.ctrl.exchange(request, room)
            t.equal(answer.length, 0, f"length of the answer to {len(request)} bytes")
    for command in known[:1]:
        t.equal(await drv.ctrl.raw(*command[:2], command.payload), Ack.OK, "the next answer")


@case("OUR-CVQ-10", needs=Feature.CTRL_RX, control=True)
async def huge_counts_do_not_wrap(t: Trial) -> None:
    """MAC_TABLE_SET whose count times 6 fits only where it is cut to 32 bits is refused."""
    drv = await t.negotiate(Feature.CTRL_RX, pairs=1, rx_buffers=8)
    for count in (0x2AAAAAAB, 0x55555556, 0xAAAAAAAB, 0xFFFFFFFF):
        for body in (bytes(4), bytes(6) + bytes(4), bytes(60)):
            payload = count.to_bytes(4, "little") + body
            ack = await drv.ctrl.raw(CtrlClass.MAC, MacCommand.TABLE_SET, payload, check=False)
            t.equal(ack, Ack.ERR, f"answer to a table of {count:#x} with {len(body)} bytes")
            payload = bytes(4) + payload
            ack = await drv.ctrl.raw(CtrlClass.MAC, MacCommand.TABLE_SET, payload, check=False)
            t.equal(ack, Ack.ERR, f"answer to a second table of {count:#x}")
    ack = await drv.ctrl.raw(CtrlClass.RX, RxCommand.PROMISC, b"\1")
    t.equal(ack, Ack.OK, "the next answer")


@case("OUR-CVQ-10", "U-09", needs=Feature.RSS, control=True)
async def huge_tables_do_not_wrap(t: Trial) -> None:
    """RSS_CONFIG with mask 0xffff is refused, with and without that many entries."""
    drv = await t.negotiate(Feature.RSS, pairs=1, rx_buffers=8)
    for present in (0, 1, 128, 4096):
        config = RssConfig(1, (0,) * present, VERIFICATION_KEY, indirection_table_mask=0xFFFF)
        ack = await drv.ctrl.raw(CtrlClass.MQ, MqCommand.RSS_CONFIG, config.pack(), check=False)
        t.equal(ack, Ack.ERR, f"answer to mask 0xffff with {present} entries")
