# SPDX-License-Identifier: MIT
"""What of a session is neither memory nor rings: features, status, configuration, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.errors import FrontendError, PyvnetError
from pyvnet.spec.features import feature_names
from pyvnet.spec.status import DeviceStatus
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    ConfigSpace,
    ProtocolFeature,
    pack_u64,
    unpack_u64,
)
from pyvnet.transport.vhost_user import rings
from pyvnet.transport.vhost_user.actions import (
    Answer,
    Negotiate,
    OpenBackendChannel,
    ReadConfig,
    ReadStatus,
    ResetDevice,
    SendRarp,
    SetMtu,
    Steps,
    SubSteps,
)

if TYPE_CHECKING:
    from pyvnet.transport.vhost_user.messages import Message
    from pyvnet.transport.vhost_user.state import SessionState

_MAC_SIZE: Final = 6


def get_features(state: SessionState, _message: Message) -> Answer:
    """Feature bits, the protocol's own among them (VIO-FEAT-10)."""
    return pack_u64(state.offer.features | F_PROTOCOL_FEATURES)


def set_features(state: SessionState, message: Message) -> Steps:
    """The set in force from now on.

    It never disables a ring.  It comes again while rings run (one front-end
    sends it per queue pair), and is then nothing new; but with every ring
    disabled it is the only sign that the driver was reset.
    """
    features = unpack_u64(message.payload)
    device_features = features & ~F_PROTOCOL_FEATURES
    if rings.all_disabled(state):
        yield from _forget_rings(state)
    live = not state.suspended
    if live and device_features != state.device_features:
        changed = feature_names(device_features ^ state.device_features)
        raise FrontendError(f"features change while rings run: {', '.join(changed)}")
    yield Negotiate(device_features)
    state.features = features
    yield from rings.activate_all(state)
    return None


def _forget_rings(state: SessionState) -> SubSteps:
    yield from rings.halt_all(state)
    for ring in state.rings.values():
        ring.enabled = None


def get_protocol_features(state: SessionState, _message: Message) -> Answer:
    """Protocol feature bits; usable before bit 30 was taken."""
    return pack_u64(state.offer.protocol_features)


def set_protocol_features(state: SessionState, message: Message) -> Answer:
    """What of them this front-end uses."""
    wanted = unpack_u64(message.payload)
    unknown = wanted & ~int(state.offer.protocol_features)
    if unknown:
        raise FrontendError(f"protocol features {unknown:#x} were not offered")
    state.protocol_features = ProtocolFeature(wanted)
    return None


def set_owner(_state: SessionState, _message: Message) -> Answer:
    """The session begins; there is nobody else it could belong to."""
    return None


def reset_owner(state: SessionState, _message: Message) -> Steps:
    """Deprecated, and read as a stop: rings end, and the driver may have been reset."""
    yield from rings.halt_all(state)
    state.arm_reset()
    return None


def get_queue_num(state: SessionState, _message: Message) -> Answer:
    """Queue pairs, or vrings, as the operator chose (U-47)."""
    return pack_u64(state.offer.queue_num)


def get_config(_state: SessionState, message: Message) -> Steps:
    """Exactly the bytes asked for; beyond the end they are zero."""
    asked = ConfigSpace.unpack(message.payload)
    data = yield ReadConfig(asked.offset, asked.size)
    return ConfigSpace(asked.offset, asked.size, asked.flags, data).pack()


def set_config(_state: SessionState, message: Message) -> Answer:
    """All of a modern network device's configuration space is read-only: the write is ignored."""
    ConfigSpace.unpack(message.payload)
    return None


def set_status(state: SessionState, message: Message) -> Steps:
    """The device status field, kept by the front-end; 0 only arms a reset (U-59)."""
    status = unpack_u64(message.payload)
    if status > 0xFF:
        raise FrontendError(f"device status {status:#x}")
    if status & DeviceStatus.FEATURES_OK and state.features is None:
        raise FrontendError("FEATURES_OK before any SET_FEATURES")
    if not status:
        yield from rings.halt_all(state)
        state.arm_reset()
    before = state.status, state.status_used
    state.status, state.status_used = status, bool(status)
    try:
        yield from rings.activate_all(state)
    except PyvnetError:
        state.status, state.status_used = before
        raise
    return None


def get_status(state: SessionState, _message: Message) -> Steps:
    """What was written, and whether the device needs a reset."""
    device = yield ReadStatus()
    return pack_u64(state.status | (int(device) & DeviceStatus.DEVICE_NEEDS_RESET))


def reset_device(state: SessionState, _message: Message) -> Steps:
    """The one unambiguous reset."""
    yield from _forget_rings(state)
    yield ResetDevice()
    for ring in state.rings.values():
        ring.base = 0
    state.features = None
    state.status, state.status_used = 0, False
    state.arm_reset()
    return None


def net_set_mtu(_state: SessionState, message: Message) -> Steps:
    """The MTU the front-end wants; refused if this device cannot keep to it."""
    yield SetMtu(unpack_u64(message.payload))
    return None


def send_rarp(_state: SessionState, message: Message) -> Steps:
    """Announce a guest that cannot do so itself; the address is in the first 6 bytes."""
    unpack_u64(message.payload)
    yield SendRarp(message.payload[:_MAC_SIZE])
    return None


def set_backend_req_fd(_state: SessionState, message: Message) -> Steps:
    """Where our own requests go."""
    yield OpenBackendChannel(message.fds[0])
    message.fds.clear()
    return None
