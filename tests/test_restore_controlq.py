# SPDX-License-Identifier: MIT
"""A restored device finds its control queue where the *restored* features put it.

Without MQ and RSS the controlq is virtqueue 2, in a device that offers RSS
virtqueue 2N: what counts is what was negotiated.
"""

from __future__ import annotations

import pyvnet
from pyvnet.device.queue import QueueFds
from pyvnet.driver.driver import Driver
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import VERIFICATION_KEY, HashConfig, HashType
from pyvnet.transport.inproc import InProcessTransport

MAC = bytes.fromhex("020000000007")
CONFIG = HashConfig(HashType.UDPV4, VERIFICATION_KEY)


async def test_control_commands_go_on_in_the_device_a_state_was_put_into() -> None:
    async with (
        pyvnet.Device(netdev=pyvnet.Pair(queues=4), mac=MAC) as first,
        pyvnet.Device(netdev=pyvnet.Pair(queues=4), mac=MAC) as second,
        Driver(InProcessTransport(first)) as driver,
    ):
        await driver.negotiate(Feature.CTRL_VQ | Feature.HASH_REPORT)
        assert driver.controlq is not None
        assert driver.controlq.index == 2
        assert await driver.ctrl.hash_config(CONFIG) == Ack.OK

        state = first.pause()
        second.set_memory(driver.memory.regions)
        fds = {
            queue.index: QueueFds(queue.setup().kick_fd, queue.setup().call_fd)
            for queue in driver.queues
        }
        second.restore(state, fds)

        assert await driver.ctrl.hash_config(CONFIG) == Ack.OK
        assert second.device.state.counters.control_commands == 2
        second.pause()
