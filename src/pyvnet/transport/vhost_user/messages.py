# SPDX-License-Identifier: MIT
"""The table: for each message its handler and what must hold before it is called.

A message that is not in it, or does not meet its row, is refused.  So the table
is also the list of what this back-end speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.spec.vhost_user import (
    MAX_REGIONS,
    Header,
    ProtocolFeature,
    Request,
    request_name,
)
from pyvnet.transport.vhost_user import memory, negotiation, rings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.transport.vhost_user.actions import Answer, Steps
    from pyvnet.transport.vhost_user.fds import Fd
    from pyvnet.transport.vhost_user.state import SessionState


@dataclass(slots=True)
class Message:
    """A whole message; a handler takes out of ``fds`` what it keeps, the rest is closed."""

    header: Header
    payload: bytes
    fds: list[Fd]

    @property
    def name(self) -> str:
        """The protocol's name."""
        return request_name(self.header.request)


class Row(NamedTuple):
    """One message.

    ``answers``: it has a reply of its own, and so never gets an acknowledgement.
    ``fds``: how many may come with it.  ``needs``: the protocol feature it
    belongs to.  ``empty``: it has no payload; others judge their own.
    """

    handler: Callable[[SessionState, Message], Steps | Answer]
    answers: bool = False
    fds: range = range(1)
    needs: ProtocolFeature = ProtocolFeature(0)
    empty: bool = False


_ONE: Final = range(1, 2)
_UP_TO_ONE: Final = range(2)
_P: Final = ProtocolFeature

TABLE: Final[dict[int, Row]] = {
    Request.GET_FEATURES: Row(negotiation.get_features, answers=True, empty=True),
    Request.SET_FEATURES: Row(negotiation.set_features),
    Request.SET_OWNER: Row(negotiation.set_owner, empty=True),
    Request.RESET_OWNER: Row(negotiation.reset_owner, empty=True),
    Request.SET_MEM_TABLE: Row(memory.set_mem_table, fds=range(1, MAX_REGIONS + 1)),
    Request.SET_VRING_NUM: Row(rings.set_vring_num),
    Request.SET_VRING_ADDR: Row(rings.set_vring_addr),
    Request.SET_VRING_BASE: Row(rings.set_vring_base),
    Request.GET_VRING_BASE: Row(rings.get_vring_base, answers=True),
    Request.SET_VRING_KICK: Row(rings.set_vring_kick, fds=_UP_TO_ONE),
    Request.SET_VRING_CALL: Row(rings.set_vring_call, fds=_UP_TO_ONE),
    Request.SET_VRING_ERR: Row(rings.set_vring_err, fds=_UP_TO_ONE),
    Request.GET_PROTOCOL_FEATURES: Row(negotiation.get_protocol_features, answers=True, empty=True),
    Request.SET_PROTOCOL_FEATURES: Row(negotiation.set_protocol_features),
    Request.GET_QUEUE_NUM: Row(negotiation.get_queue_num, answers=True, needs=_P.MQ, empty=True),
    Request.SET_VRING_ENABLE: Row(rings.set_vring_enable),
    Request.SEND_RARP: Row(negotiation.send_rarp, needs=_P.RARP),
    Request.NET_SET_MTU: Row(negotiation.net_set_mtu, needs=_P.NET_MTU),
    Request.SET_BACKEND_REQ_FD: Row(negotiation.set_backend_req_fd, fds=_ONE, needs=_P.BACKEND_REQ),
    Request.GET_CONFIG: Row(negotiation.get_config, answers=True, needs=_P.CONFIG),
    Request.SET_CONFIG: Row(negotiation.set_config, needs=_P.CONFIG),
    Request.RESET_DEVICE: Row(negotiation.reset_device, needs=_P.RESET_DEVICE, empty=True),
    Request.GET_MAX_MEM_SLOTS: Row(
        memory.get_max_mem_slots, answers=True, needs=_P.CONFIGURE_MEM_SLOTS, empty=True
    ),
    Request.ADD_MEM_REG: Row(memory.add_mem_reg, fds=_ONE, needs=_P.CONFIGURE_MEM_SLOTS),
    Request.REM_MEM_REG: Row(memory.rem_mem_reg, fds=_UP_TO_ONE, needs=_P.CONFIGURE_MEM_SLOTS),
    Request.SET_STATUS: Row(negotiation.set_status, needs=_P.STATUS),
    Request.GET_STATUS: Row(negotiation.get_status, answers=True, needs=_P.STATUS, empty=True),
}

# What the messages above come to; LOG_SHMFD, INFLIGHT_SHMFD and DEVICE_STATE are migration's.
PROTOCOL_FEATURES: Final = (
    _P.MQ
    | _P.RARP
    | _P.REPLY_ACK
    | _P.NET_MTU
    | _P.BACKEND_REQ
    | _P.CONFIG
    | _P.RESET_DEVICE
    | _P.CONFIGURE_MEM_SLOTS
    | _P.STATUS
)
