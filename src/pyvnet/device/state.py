# SPDX-License-Identifier: MIT
"""The whole device state as one frozen, versioned value: what is reset, taken and put back.

Nothing a driver can observe lives elsewhere.  Two things in here belong to this
host and do not travel with ``to_dict``: the eventfds of the queues, and
``HostSide``.

``to_dict`` gives plain JSON types.  ``from_dict`` takes untrusted input: every
part checks its own fields as it is built, keys must match exactly, and
``DeviceState.check`` adds what depends on the device it is put into; any of
them raises StateError before anything changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from pyvnet.device import lifecycle, negotiation
from pyvnet.device._checks import StateError, check_bool, check_bytes, check_int, check_tuple
from pyvnet.device.control import ControlState
from pyvnet.device.counters import Counters
from pyvnet.device.queue import QueueConfig
from pyvnet.device.rxfilter import MODES, RxFilter
from pyvnet.device.steering import SteeringMode, SteeringState
from pyvnet.spec.config import MAX_MTU, MAX_QUEUE_PAIRS, MIN_MTU
from pyvnet.spec.ctrl import MAX_VLAN
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.rss import HashType
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from pyvnet.device.queue import ActiveQueue
    from pyvnet.device.settings import DeviceSettings

STATE_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class HostSide:
    """What the operator, the link and the front-end said; no driver's reset touches it.

    ``frontend_mtu``: the MTU the front-end told (NET_SET_MTU), None if none did.
    """

    user_program: bool = False
    link_up: bool = True
    frontend_mtu: int | None = None

    def __post_init__(self) -> None:
        """Check each field by itself."""
        check_bool("user_program", self.user_program)
        check_bool("link_up", self.link_up)
        if self.frontend_mtu is not None:
            check_int("MTU", self.frontend_mtu, MIN_MTU, MAX_MTU)


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device at one moment; raises StateError for what no device can be in.

    ``max_virtqueue_pairs`` and ``mac`` say which device this is the state of:
    what its driver read there still holds when the state is put back.  The MAC
    the driver may have chosen instead is in ``control``.
    ``driver_features`` is the set as written; it is in force once FEATURES_OK
    is on.  ``queues`` are in order of their index.
    """

    max_virtqueue_pairs: int
    mac: bytes
    control: ControlState
    status: DeviceStatus = DeviceStatus.RESET
    driver_features: int = 0
    queues: tuple[QueueConfig, ...] = ()
    counters: Counters = field(default_factory=Counters)
    host: HostSide = field(default_factory=HostSide)
    version: int = STATE_VERSION

    def __post_init__(self) -> None:
        """Check each field by itself; ``check`` does the rest."""
        check_int("version", self.version, STATE_VERSION, STATE_VERSION)
        check_int("max_virtqueue_pairs", self.max_virtqueue_pairs, 1, MAX_QUEUE_PAIRS)
        check_bytes("mac", self.mac, 6)
        check_int("status", self.status, 0, 0xFF)
        if not lifecycle.is_reachable(int(self.status)):
            raise StateError(f"no device has status {int(self.status):#x}")
        check_int("driver_features", self.driver_features, 0, 2**negotiation.FEATURE_BITS - 1)
        check_tuple("queues", self.queues, QueueConfig)
        indexes = [queue.index for queue in self.queues]
        if indexes != sorted(set(indexes)):
            raise StateError("queues are not in order, or one occurs twice")

    @classmethod
    def initial(cls, settings: DeviceSettings, counters: Counters, host: HostSide) -> DeviceState:
        """As after a device reset (VIO-RST-01)."""
        mac = settings.mac
        control = ControlState.initial(mac, NO_FEATURES)
        return cls(settings.max_virtqueue_pairs, mac, control, counters=counters, host=host)

    @property
    def steering(self) -> SteeringState:
        """What the MQ class of commands set."""
        return self.control.steering

    @property
    def features(self) -> Feature:
        """The negotiated features: none before FEATURES_OK."""
        frozen = bool(self.status & DeviceStatus.FEATURES_OK)
        return negotiation.negotiated(self.driver_features, frozen=frozen)

    @property
    def receiveqs(self) -> frozenset[int]:
        """Pair numbers of the receive queues that were set up and are enabled."""
        pairs = negotiation.pairs_in_layout(self.max_virtqueue_pairs, self.features)
        indexes = (queue.index for queue in self.queues if queue.enabled)
        return frozenset(index // 2 for index in indexes if index % 2 == 0 and index < 2 * pairs)

    def active_queues(self, settings: DeviceSettings) -> tuple[ActiveQueue, ...]:
        """Activate every queue; raises StateError for one that cannot run."""
        count = negotiation.queue_count(self.max_virtqueue_pairs, self.features)
        return tuple(
            queue.activate(queue_count=count, max_queue_size=settings.max_queue_size)
            for queue in self.queues
        )

    def check(self, settings: DeviceSettings) -> None:
        """Refuse, with StateError, a state a device with these settings cannot be in."""
        if (self.max_virtqueue_pairs, self.mac) != (settings.max_virtqueue_pairs, settings.mac):
            raise StateError(
                f"the state is of a device with {self.max_virtqueue_pairs} queue pairs and MAC "
                f"{self.mac.hex(':')}, this one has {settings.max_virtqueue_pairs} and "
                f"{settings.mac.hex(':')}"
            )
        if self.status & DeviceStatus.FEATURES_OK:
            reason = negotiation.refusal(settings, self.driver_features)
            if reason is not None:
                raise StateError(f"negotiated features: {reason}")
        count = negotiation.queue_count(self.max_virtqueue_pairs, settings.offered)
        if self.queues and self.queues[-1].index >= count:
            raise StateError(f"queue {self.queues[-1].index} does not exist, there are {count}")
        if self.status & DeviceStatus.DRIVER_OK:
            if not self.status & DeviceStatus.DEVICE_NEEDS_RESET:
                self.active_queues(settings)
            self.control.check(
                settings.mac, self.features, settings.max_virtqueue_pairs, settings.max_macs
            )
            if self.host.user_program and self.steering.mode is SteeringMode.RSS:
                raise StateError("RSS is active while the operator's steering program is attached")
        elif self.control != ControlState.initial(settings.mac, self.features):
            raise StateError("something was commanded before DRIVER_OK")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; bytes as hex."""
        control, steering, rx_filter = self.control, self.steering, self.control.rx_filter
        return {
            "version": self.version,
            "max_virtqueue_pairs": self.max_virtqueue_pairs,
            "mac": self.mac.hex(),
            "status": int(self.status),
            "driver_features": self.driver_features,
            "queues": [{name: getattr(queue, name) for name in _QUEUE} for queue in self.queues],
            "control": {
                "mac": control.mac.hex(),
                "guest_offloads": control.guest_offloads,
                "announce": control.announce,
                "rx_filter": {
                    **{name: getattr(rx_filter, name) for name in _FLAGS},
                    "unicast": [address.hex() for address in rx_filter.unicast],
                    "multicast": [address.hex() for address in rx_filter.multicast],
                    "vlans": sorted(rx_filter.vlans),
                },
                "steering": {
                    "mode": str(steering.mode),
                    "hash_types": int(steering.hash_types),
                    "key": steering.key.hex(),
                    "indirection_table": list(steering.indirection_table),
                    "unclassified_queue": steering.unclassified_queue,
                    "max_tx_vq": steering.max_tx_vq,
                    "pairs": steering.pairs,
                },
            },
            "counters": {name: getattr(self.counters, name) for name in _COUNTERS},
        }

    @classmethod
    def from_dict(cls, value: object) -> DeviceState:
        """Rebuild a state from untrusted input; raises StateError saying what is wrong with it.

        The version is looked at first, so that a newer state is refused for
        what it is and not for its fields.
        """
        if not isinstance(value, dict) or "version" not in value:
            raise StateError("not a device state")
        check_int("version", value["version"], STATE_VERSION, STATE_VERSION)
        top = _exactly("device state", value, _STATE)
        check_int("status", top["status"], 0, 0xFF)
        return cls(
            top["max_virtqueue_pairs"],
            _unhex("mac", top["mac"]),
            _control(_exactly("control", top["control"], _CONTROL)),
            DeviceStatus(top["status"]),
            top["driver_features"],
            tuple(
                QueueConfig(**_exactly("queue", queue, _QUEUE))
                for queue in _list("queues", top["queues"])
            ),
            Counters(**_exactly("counters", top["counters"], _COUNTERS)),
        )


def _names(of: type, *host_only: str) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(of) if entry.name not in host_only)


_STATE: Final = _names(DeviceState, "host")
_CONTROL: Final = _names(ControlState)
_FILTER: Final = _names(RxFilter)
_FLAGS: Final = (*MODES, "unicast_overflow", "multicast_overflow")
_QUEUE: Final = _names(QueueConfig, "fds")
_STEERING: Final = _names(SteeringState)
_COUNTERS: Final = _names(Counters)


def _control(value: dict[str, Any]) -> ControlState:
    return ControlState(
        _unhex("mac", value["mac"]),
        value["guest_offloads"],
        value["announce"],
        _rx_filter(_exactly("rx_filter", value["rx_filter"], _FILTER)),
        _steering(_exactly("steering", value["steering"], _STEERING)),
    )


def _rx_filter(value: dict[str, Any]) -> RxFilter:
    vlans = _list("vlans", value["vlans"])
    for vid in vlans:
        check_int("VLAN id", vid, 0, MAX_VLAN)
    if vlans != sorted(set(vlans)):
        raise StateError("VLAN ids are not in order, or one occurs twice")
    tables: dict[str, Any] = {
        name: tuple(_unhex(f"{name} address", entry) for entry in _list(name, value[name]))
        for name in ("unicast", "multicast")
    }
    flags: dict[str, Any] = {name: value[name] for name in _FLAGS}
    return RxFilter(**flags, **tables, vlans=frozenset(vlans))


def _steering(value: dict[str, Any]) -> SteeringState:
    check_int("hash_types", value["hash_types"], 0, 0x1FF)
    return SteeringState(
        _mode(value["mode"]),
        HashType(value["hash_types"]),
        _unhex("key", value["key"]),
        tuple(_list("indirection_table", value["indirection_table"])),
        value["unclassified_queue"],
        value["max_tx_vq"],
        value["pairs"],
    )


def _exactly(what: str, value: object, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StateError(f"{what} is {type(value).__name__}, not a table")
    odd = sorted(str(name) for name in value.keys() ^ set(names))
    if odd:
        raise StateError(f"{what}: missing or unknown: {', '.join(odd)}")
    return value


def _list(what: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise StateError(f"{what} is {type(value).__name__}, not a list")
    return value


def _unhex(what: str, value: object) -> bytes:
    if isinstance(value, str):
        try:
            data = bytes.fromhex(value)
        except ValueError:
            pass
        else:
            if data.hex() == value:
                return data
    raise StateError(f"{what} is not hex digits")


def _mode(value: object) -> SteeringMode:
    if isinstance(value, str) and value in list(SteeringMode):
        return SteeringMode(value)
    raise StateError(f"steering mode {value!r} is unknown")
