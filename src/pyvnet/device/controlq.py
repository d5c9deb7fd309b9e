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

from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.device._checks import StateError
from pyvnet.device.steering import (
    Outcome,
    Rules,
    SteeringMode,
    SteeringState,
    configure_hash,
    configure_rss,
    set_vq_pairs,
)
from pyvnet.spec.ctrl import ACK_SIZE, CTRL_HDR_SIZE, CtrlClass, MqCommand, command_name
from pyvnet.spec.features import Feature, feature_names
from pyvnet.spec.rss import ShortPayloadError

if TYPE_CHECKING:
    from collections.abc import Callable


class Situation(NamedTuple):
    """All a command is judged by besides its own bytes."""

    features: Feature
    steering: SteeringState
    user_program: bool  # the operator's steering program is attached
    rules: Rules


def _program_steers(situation: Situation) -> str | None:
    """U-45: one owner of steering at a time."""
    return "the operator's steering program is attached" if situation.user_program else None


def _rss_governs(situation: Situation) -> str | None:
    """U-17: while RSS is the mode, types and key come from MQ_RSS_CONFIG alone."""
    rss = situation.steering.mode is SteeringMode.RSS
    return "RSS is active and governs types and key" if rss else None


class Command(NamedTuple):
    """One row: what the command needs and who executes it.

    A precondition returns why the command cannot be executed now, or None.
    """

    feature: Feature
    preconditions: tuple[Callable[[Situation], str | None], ...]
    handler: Callable[[SteeringState, bytes, Rules], Outcome]


COMMANDS: Final[dict[tuple[int, int], Command]] = {
    (CtrlClass.MQ, MqCommand.VQ_PAIRS_SET): Command(Feature.MQ, (), set_vq_pairs),
    (CtrlClass.MQ, MqCommand.RSS_CONFIG): Command(Feature.RSS, (_program_steers,), configure_rss),
    (CtrlClass.MQ, MqCommand.HASH_CONFIG): Command(
        Feature.HASH_REPORT, (_rss_governs,), configure_hash
    ),
}


class Executed(NamedTuple):
    """The command is good: the state to commit, surplus bytes, remarks."""

    steering: SteeringState
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
    if not situation.features & command.feature:
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
        outcome = command.handler(situation.steering, request[CTRL_HDR_SIZE:], situation.rules)
    except ShortPayloadError as error:
        return Refused(f"{name}: cut short: {error}", short=True)
    except (StateError, NotNowError) as error:
        return Refused(f"{name}: {error}")
    note = f"{name}: {'; '.join(outcome.remarks)}" if outcome.remarks else None
    return Executed(outcome.steering, outcome.surplus, note)
