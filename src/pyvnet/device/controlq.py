# SPDX-License-Identifier: MIT
"""The control queue: one table from (class, command) to what is done about it.

A request is taken apart in this order, and the first thing wrong decides:

    no room for the ack byte, or no class and command   no answer at all (U-05)
    class and command not in the table                  ERR (U-40, OUR-CVQ-05)
    feature of the row not negotiated                   ERR (OUR-CVQ-04)
    a precondition of the row does not hold             ERR
    payload ends early                                  ERR, counted (U-04)
    payload says what no device may do                  ERR
    payload longer than needed                          OK, counted (U-06)

An ERR leaves nothing behind but counters (OUR-CVQ-06).  Bytes come as one
string, so how the driver cut its chain is not visible here (NET-CVQ-03).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.device._checks import StateError
from pyvnet.device.control import acknowledge, set_guest_offloads, set_mac
from pyvnet.device.rxfilter import add_vlan, delete_vlan, set_mac_table, set_mode
from pyvnet.device.steering import SteeringMode, configure_hash, configure_rss, set_vq_pairs
from pyvnet.spec.ctrl import (
    ACK_SIZE,
    CTRL_HDR_SIZE,
    AnnounceCommand,
    CtrlClass,
    GuestOffloadsCommand,
    MacCommand,
    MqCommand,
    RxCommand,
    VlanCommand,
    command_name,
)
from pyvnet.spec.features import Feature, feature_names
from pyvnet.spec.rss import ShortPayloadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.device.command import Outcome, Rules
    from pyvnet.device.control import ControlState


class Situation(NamedTuple):
    """All a command is judged by besides its own bytes."""

    control: ControlState
    user_program: bool  # the operator's steering program is attached
    rules: Rules


def _program_steers(situation: Situation) -> str | None:
    """U-45: one owner of steering at a time."""
    return "the operator's steering program is attached" if situation.user_program else None


def _rss_governs(situation: Situation) -> str | None:
    """U-17: while RSS is the mode, types and key come from MQ_RSS_CONFIG alone."""
    rss = situation.control.steering.mode is SteeringMode.RSS
    return "RSS is active and governs types and key" if rss else None


class Command(NamedTuple):
    """One row: what the command needs, which part of ``ControlState`` it replaces, and who does.

    A precondition returns why the command cannot be executed now, or None.
    """

    feature: Feature
    part: str
    handler: Callable[[Any, bytes, Rules], Outcome[Any]]
    preconditions: tuple[Callable[[Situation], str | None], ...] = ()


COMMANDS: Final[dict[tuple[int, int], Command]] = {
    (CtrlClass.RX, RxCommand.PROMISC): Command(Feature.CTRL_RX, "rx_filter", set_mode("promisc")),
    (CtrlClass.RX, RxCommand.ALLMULTI): Command(Feature.CTRL_RX, "rx_filter", set_mode("allmulti")),
    (CtrlClass.RX, RxCommand.ALLUNI): Command(
        Feature.CTRL_RX_EXTRA, "rx_filter", set_mode("alluni")
    ),
    (CtrlClass.RX, RxCommand.NOMULTI): Command(
        Feature.CTRL_RX_EXTRA, "rx_filter", set_mode("nomulti")
    ),
    (CtrlClass.RX, RxCommand.NOUNI): Command(Feature.CTRL_RX_EXTRA, "rx_filter", set_mode("nouni")),
    (CtrlClass.RX, RxCommand.NOBCAST): Command(
        Feature.CTRL_RX_EXTRA, "rx_filter", set_mode("nobcast")
    ),
    (CtrlClass.MAC, MacCommand.TABLE_SET): Command(Feature.CTRL_RX, "rx_filter", set_mac_table),
    (CtrlClass.MAC, MacCommand.ADDR_SET): Command(Feature.CTRL_MAC_ADDR, "mac", set_mac),
    (CtrlClass.VLAN, VlanCommand.ADD): Command(Feature.CTRL_VLAN, "rx_filter", add_vlan),
    (CtrlClass.VLAN, VlanCommand.DEL): Command(Feature.CTRL_VLAN, "rx_filter", delete_vlan),
    (CtrlClass.ANNOUNCE, AnnounceCommand.ACK): Command(
        Feature.GUEST_ANNOUNCE, "announce", acknowledge
    ),
    (CtrlClass.MQ, MqCommand.VQ_PAIRS_SET): Command(Feature.MQ, "steering", set_vq_pairs),
    (CtrlClass.MQ, MqCommand.RSS_CONFIG): Command(
        Feature.RSS, "steering", configure_rss, (_program_steers,)
    ),
    (CtrlClass.MQ, MqCommand.HASH_CONFIG): Command(
        Feature.HASH_REPORT, "steering", configure_hash, (_rss_governs,)
    ),
    (CtrlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET): Command(
        Feature.CTRL_GUEST_OFFLOADS, "guest_offloads", set_guest_offloads
    ),
}


class Executed(NamedTuple):
    """The command is good: the state to commit, surplus bytes, remarks."""

    control: ControlState
    surplus: int
    note: str | None


class Refused(NamedTuple):
    """The command is answered ERR; ``short`` when bytes are missing."""

    note: str
    short: bool = False


class Unanswerable(NamedTuple):
    """The buffer goes back with length 0; ``malformed`` when even class and command are missing."""

    note: str
    malformed: bool


class NotNowError(Exception):
    """The table, or a precondition in it, does not let the command through."""


def _admit(situation: Situation, ctrl_class: int, code: int) -> Command:
    command = COMMANDS.get((ctrl_class, code))
    if command is None:
        raise NotNowError("not supported")
    if not situation.rules.features & command.feature:
        raise NotNowError(f"{feature_names(command.feature)[0]} was not negotiated")
    for precondition in command.preconditions:
        reason = precondition(situation)
        if reason is not None:
            raise NotNowError(reason)
    return command


def execute(
    situation: Situation, request: bytes, writable: int
) -> Executed | Refused | Unanswerable:
    """Judge one request of the driver; total: any bytes have an answer.

    Args:
        situation: what is in force now; not changed.
        request: all device-readable bytes of the chain.
        writable: device-writable bytes of the chain.
    """
    if len(request) < CTRL_HDR_SIZE:
        return Unanswerable(f"control command of {len(request)} bytes", malformed=True)
    name = command_name(request[0], request[1])
    if writable < ACK_SIZE:
        return Unanswerable(f"{name}: no room for the answer", malformed=False)
    try:
        command = _admit(situation, request[0], request[1])
        current = getattr(situation.control, command.part)
        outcome = command.handler(current, request[CTRL_HDR_SIZE:], situation.rules)
        control = replace(situation.control, **{command.part: outcome.value})
    except ShortPayloadError as error:
        return Refused(f"{name}: cut short: {error}", short=True)
    except (StateError, NotNowError) as error:
        return Refused(f"{name}: {error}")
    note = f"{name}: {'; '.join(outcome.remarks)}" if outcome.remarks else None
    return Executed(control, outcome.surplus, note)
