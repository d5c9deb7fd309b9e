# SPDX-License-Identifier: MIT
"""What a device has while it is open, in the order it comes and goes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from pyvnet.datapath.engine import Engine
from pyvnet.runtime.rings import Rings
from pyvnet.runtime.steering import Steering

if TYPE_CHECKING:
    from pyvnet.datapath.config import EngineConfig
    from pyvnet.datapath.native import Native
    from pyvnet.netdev import NetDevice
    from pyvnet.runtime.control import ControlQueue
    from pyvnet.runtime.owners import SteeringRequest


class Plan(NamedTuple):
    """How an open device is to be made: the arguments of ``Device``."""

    netdev: NetDevice
    pairs: int
    workers: int | None
    engine_config: EngineConfig | None
    steering: SteeringRequest
    native: Native


class Parts(NamedTuple):
    """A host port that is open, and who works on it."""

    netdev: NetDevice
    engine: Engine
    rings: Rings
    steering: Steering

    @classmethod
    def open(cls, plan: Plan, control: ControlQueue) -> Self:
        """Open the host port and start the workers; on failure nothing is left behind."""
        netdev = plan.netdev
        with ExitStack() as undo:
            netdev.open()
            undo.callback(netdev.close)
            engine = Engine(
                pairs=plan.pairs,
                port_type=netdev.kind,
                port_fds=netdev.fds,
                workers=plan.workers,
                config=plan.engine_config,
                native=plan.native,
            )
            undo.callback(engine.close)
            steering = Steering(engine, netdev, plan.steering)
            undo.pop_all()
        return cls(netdev, engine, Rings(engine, control), steering)

    def close(self) -> None:
        """Join the workers, let the kernel steer as before, close the host port."""
        self.engine.close()
        self.steering.close()
        self.netdev.close()
