# SPDX-License-Identifier: MIT
"""The whole device state as one frozen, versioned value: what is reset, taken and put back.

Nothing a driver can observe lives elsewhere.  Two things in here belong to this
host and do not travel with ``to_dict``: the eventfds of the queues, and whether
an operator's steering program is attached.

``to_dict`` gives plain JSON types.  ``from_dict`` takes untrusted input: every
part checks its own fields as it is built, keys must match exactly, and
``DeviceState.check`` adds what depends on the device it is put into; any of
them raises StateError before anything changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from pyvnet.device import lifecycle, negotiation
from pyvnet.device._checks import U64, StateError, check_bool, check_bytes, check_int, check_tuple
from pyvnet.device.queue import QueueConfig
from pyvnet.device.steering import SteeringMode, SteeringState
from pyvnet.spec.config import MAX_QUEUE_PAIRS
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import HashType
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from pyvnet.device.queue import ActiveQueue
    from pyvnet.device.settings import DeviceSettings

STATE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened on the control side; survives reset, travels with the state (U-49).

    All count events and wrap at 2**64, except ``control_surplus_bytes``, which
    counts bytes.
    """

    resets: int = 0
    status_illegal_writes: int = 0
    features_refused: int = 0  # FEATURES_OK not granted
    feature_writes_ignored: int = 0  # after FEATURES_OK, or beyond any feature bit
    queue_index_out_of_range: int = 0
    queue_setups_ignored: int = 0  # after DRIVER_OK, or a value beyond its field
    queues_invalid: int = 0  # DRIVER_OK with a ring that cannot be started
    rings_broken: int = 0
    ring_events_stale: int = 0  # about rings that are gone
    config_changes: int = 0
    control_commands: int = 0
    control_failures: int = 0  # of those: answered ERR
    control_short: int = 0
    control_surplus_bytes: int = 0
    control_no_ack: int = 0
    control_malformed: int = 0
    control_not_applied: int = 0  # good, but the host could not do it
    control_not_running: int = 0  # came while no control queue runs

    def __post_init__(self) -> None:
        """Refuse what 64 bits do not hold."""
        for entry in fields(self):
            check_int(entry.name, getattr(self, entry.name), 0, U64)

    def add(self, **events: int) -> Counters:
        """The same counters, the named ones higher."""
        return replace(
            self, **{name: (getattr(self, name) + more) & U64 for name, more in events.items()}
        )


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device at one moment; raises StateError for what no device can be in.

    ``max_virtqueue_pairs`` and ``mac`` say which device this is the state of:
    what its driver read there still holds when the state is put back.
    ``driver_features`` is the set as written; it is in force once FEATURES_OK
    is on.  ``queues`` are in order of their index.
    """

    max_virtqueue_pairs: int
    mac: bytes
    status: DeviceStatus = DeviceStatus.RESET
    driver_features: int = 0
    queues: tuple[QueueConfig, ...] = ()
    steering: SteeringState = field(default_factory=SteeringState)
    counters: Counters = field(default_factory=Counters)
    user_program: bool = False
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
        check_bool("user_program", self.user_program)

    @property
    def features(self) -> Feature:
        """The negotiated features: none before FEATURES_OK."""
        frozen = bool(self.status & DeviceStatus.FEATURES_OK)
        return negotiation.negotiated(self.driver_features, frozen=frozen)

    @property
    def receiveqs(self) -> frozenset[int]:
        """Pair numbers of the receive queues that were set up."""
        pairs = negotiation.pairs_in_layout(self.max_virtqueue_pairs, self.features)
        indexes = (queue.index for queue in self.queues)
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
            self._check_steering()
        elif self.steering != SteeringState():
            raise StateError("steering was configured before DRIVER_OK")

    def _check_steering(self) -> None:
        """Whether the negotiated commands can have led to this steering state."""
        steering, features = self.steering, self.features
        steering.check_within(self.max_virtqueue_pairs)
        needs = (
            (steering.mode is SteeringMode.RSS, Feature.RSS, "RSS mode"),
            (steering.pairs != 1, Feature.MQ, "a number of pairs"),
            (bool(steering.hash_types), Feature.RSS | Feature.HASH_REPORT, "hash types"),
            (any(steering.key), Feature.RSS | Feature.HASH_REPORT, "a hash key"),
        )
        for present, wanted, what in needs:
            if present and not (features & wanted and features & Feature.CTRL_VQ):
                raise StateError(f"{what} without the feature that sets it")
        if self.user_program and steering.mode is SteeringMode.RSS:
            raise StateError("RSS is active while the operator's steering program is attached")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; bytes as hex."""
        steering = self.steering
        return {
            "version": self.version,
            "max_virtqueue_pairs": self.max_virtqueue_pairs,
            "mac": self.mac.hex(),
            "status": int(self.status),
            "driver_features": self.driver_features,
            "queues": [{name: getattr(queue, name) for name in _QUEUE} for queue in self.queues],
            "steering": {
                "mode": str(steering.mode),
                "hash_types": int(steering.hash_types),
                "key": steering.key.hex(),
                "indirection_table": list(steering.indirection_table),
                "unclassified_queue": steering.unclassified_queue,
                "max_tx_vq": steering.max_tx_vq,
                "pairs": steering.pairs,
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
        steering = _exactly("steering", top["steering"], _STEERING)
        check_int("status", top["status"], 0, 0xFF)
        check_int("hash_types", steering["hash_types"], 0, 0x1FF)
        return cls(
            top["max_virtqueue_pairs"],
            _unhex("mac", top["mac"]),
            DeviceStatus(top["status"]),
            top["driver_features"],
            tuple(
                QueueConfig(**_exactly("queue", queue, _QUEUE))
                for queue in _list("queues", top["queues"])
            ),
            SteeringState(
                _mode(steering["mode"]),
                HashType(steering["hash_types"]),
                _unhex("key", steering["key"]),
                tuple(_list("indirection_table", steering["indirection_table"])),
                steering["unclassified_queue"],
                steering["max_tx_vq"],
                steering["pairs"],
            ),
            Counters(**_exactly("counters", top["counters"], _COUNTERS)),
        )


def _names(of: type, *host_only: str) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(of) if entry.name not in host_only)


_STATE: Final = _names(DeviceState, "user_program")
_QUEUE: Final = _names(QueueConfig, "fds")
_STEERING: Final = _names(SteeringState)
_COUNTERS: Final = _names(Counters)


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
