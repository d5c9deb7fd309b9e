# SPDX-License-Identifier: MIT
"""Any driver and any front-end, in any order: the device against a small model.

Invariants, each checked after every step:
    - status, negotiated features, queues and configuration space are what the
      model says;
    - the effects asked for, applied in order, leave a world that matches: rings
      run exactly from DRIVER_OK to reset, under the policy the model predicts;
    - a command answered ERR, or not answered, changes nothing but counters;
    - counters never fall, and nothing but counters and the host's side outlives
      a reset; the configuration generation moves with every change;
    - a taken state, put back through JSON, gives an equal device.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from pyvnet.errors import FrontendError, UsageError
from tests.device.machine import (
    Machine,
    any_features,
    good_features,
    queue_indexes,
    queue_sizes,
)
from tests.device.model import ALL, CVQ, HASH, MRG, NEEDS, OWN_MTU
from tests.device.support import PAIRS, ring


class Driver(Machine):
    """A driver that writes the status itself, and its transport."""

    @rule(value=st.sampled_from([1, 3, 11, 15, 11, 15]))
    def climb(self, value: int) -> None:
        self.do(self.device.write_status(value))
        self.model.write_status(value)

    @rule(value=st.integers(1, 0xFF) | st.integers(256, 2**32))
    def write_any_status(self, value: int) -> None:
        self.do(self.device.write_status(value))
        self.model.write_status(value)

    @rule(bits=good_features)
    def write_good_features(self, bits: int) -> None:
        self.write_features(bits)

    @rule(bits=any_features)
    def write_any_features(self, bits: int) -> None:
        self.write_features(bits)

    def write_features(self, bits: int) -> None:
        self.do(self.device.write_driver_features(bits))
        if not self.model.status & 8:
            self.model.written = bits

    @rule()
    def start_properly(self) -> None:
        """What most drivers do, so that most runs see control commands."""
        self.reset(by_status=True)
        for value in (1, 3):
            self.climb(value)
        self.write_features(ALL)
        self.climb(11)
        for index in range(2 * PAIRS + 1):
            self.configure_queue(index, 256)
        self.climb(15)

    @rule(index=queue_indexes, size=queue_sizes)
    def configure_queue(self, index: int, size: int) -> None:
        self.do(self.device.configure_queue(ring(index, size=size)))
        if index < self.model.queue_count() and not self.model.status & 4:
            self.model.queues[index] = size


class FrontEnd(Machine):
    """A front-end that owns the status and starts rings one by one."""

    @initialize(relaxed=st.booleans())
    def begin(self, relaxed: bool) -> None:
        super().begin(relaxed)
        self.serve_properly(CVQ if relaxed else 0, set())

    @rule(bits=good_features | any_features)
    def negotiate(self, bits: int) -> None:
        if not self.model.acceptable(bits):
            with pytest.raises(FrontendError):
                self.device.negotiate(bits)
            return
        self.do(self.device.negotiate(bits))
        self.model.negotiate(bits)

    @rule(dropped=st.sampled_from([0, CVQ, HASH, MRG]), off=st.sets(st.integers(0, 2 * PAIRS)))
    def serve_properly(self, dropped: int, off: set[int]) -> None:
        """What most front-ends do, so that most runs see rings come and go."""
        self.reset(by_status=False)
        dependent = sum(bit for bit, need in NEEDS.items() if need & dropped)
        self.negotiate(ALL & ~dropped & ~(0 if self.model.relaxed else dependent))
        for index in range(self.model.queue_count()):
            self.start_queue(index, 256, enabled=index not in off)

    def served(self) -> bool:
        """Whether what is set up runs, as it always does under a front-end."""
        return self.world.running.keys() == self.model.queues.keys()

    @precondition(served)
    @rule(index=queue_indexes, size=queue_sizes, enabled=st.booleans())
    def start_queue(self, index: int, size: int, enabled: bool) -> None:
        setup = ring(index, size=size)
        if index in self.model.queues:
            with pytest.raises(UsageError):
                self.device.start_queue(setup, enabled=enabled)
        elif not self.model.status & 8 or not self.model.good_ring(index, size):
            with pytest.raises(FrontendError):
                self.device.start_queue(setup, enabled=enabled)
        else:
            self.do(self.device.start_queue(setup, enabled=enabled))
            self.model.queues[index] = size
            self.model.status |= 4
            if not enabled:
                self.model.off.add(index)

    @precondition(served)
    @rule(index=queue_indexes)
    def stop_queue(self, index: int) -> None:
        self.do(self.device.stop_queue(index))
        self.model.queues.pop(index, None)
        self.model.off.discard(index)

    @precondition(served)
    @rule(index=queue_indexes, enabled=st.booleans())
    def enable_queue(self, index: int, enabled: bool) -> None:
        self.do(self.device.enable_queue(index, enabled=enabled))
        if index in self.model.queues:
            (self.model.off.discard if enabled else self.model.off.add)(index)

    @precondition(served)
    @rule(steps=st.lists(st.tuples(st.integers(0, 2 * PAIRS), st.integers(0, 3)), max_size=12))
    def switch_rings(self, steps: list[tuple[int, int]]) -> None:
        """Several at once, so that most runs see all that rings can do to one another."""
        for index, step in steps:
            if step == 0:
                self.stop_queue(index)
            elif step == 1:
                self.start_queue(index, 256, enabled=index % 2 == 0)
            else:
                self.enable_queue(index, enabled=step == 2)
            self.world_is_what_the_model_says()

    @precondition(served)
    @rule()
    def begin_anew(self) -> None:
        self.do(self.device.begin_anew())
        self.model.begin_anew()

    @rule(mtu=st.integers(0, 0x10000) | st.sampled_from([67, 68, OWN_MTU, OWN_MTU + 1]))
    def set_mtu(self, mtu: int) -> None:
        if not 68 <= mtu <= OWN_MTU:
            with pytest.raises(FrontendError):
                self.device.set_frontend_mtu(mtu)
            return
        self.do(self.device.set_frontend_mtu(mtu))
        self.model.mtu = mtu


# A loaded machine is slow, not unhealthy.
LIMITS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestDriver = Driver.TestCase
TestDriver.settings = LIMITS
TestFrontEnd = FrontEnd.TestCase
TestFrontEnd.settings = LIMITS
