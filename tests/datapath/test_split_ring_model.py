# SPDX-License-Identifier: MIT
"""The C ring and the driver's ring in lockstep with a model, compared after every step.

The rings meet in the control queue, whose device end is held by software
(`ctrl_pop`, `ctrl_complete`), so that every interleaving is a plain sequence of
calls and can be shrunk.  The model knows nothing of rings: it is lists of
commands and counters, and the standard's rules for notifications written as
"was the index that was asked for among those that became visible".
"""

from __future__ import annotations

import os
import random
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pyvnet.datapath.engine import BreakReason, Engine
from pyvnet.datapath.memory import GuestMemory as MappedMemory
from pyvnet.driver.memory import GuestMemory, RegionSpec
from pyvnet.driver.misbehave import Forger
from pyvnet.driver.ring_split import Buffer, SplitRing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONTROLQ = 2  # of an engine with one pair
SENTINEL = 0xA5
BORDER = 0x5000_0000
AROUND_BORDER = Buffer(BORDER - 24, 48)
WRAP = 1 << 16

promises = pytest.mark.requirement(
    "VIO-SPL-01", "VIO-SPL-03", "VIO-SPL-06", "VIO-SPL-07", "VIO-SPL-08", "VIO-SPL-09",
    "VIO-SPL-10", "VIO-SPL-12", "VIO-SPL-13", "VIO-SPL-14",
)  # fmt: skip


class Layout(NamedTuple):
    """How a command is cut: lengths of its pieces, how many are writable, where they are listed."""

    lengths: tuple[int, ...]
    writable: int
    indirect: bool = False
    direct_prefix: int = 0
    jumble: int = 0  # seed for the order of the table's entries, 0: one after the other

    @property
    def descriptors(self) -> int:
        if self.indirect and self.jumble:
            return 1
        return self.direct_prefix + 1 if self.indirect else len(self.lengths)


@dataclass(eq=False)
class Command:
    """One command on its way: what the device must read, and what it answered."""

    buffers: list[Buffer]
    request: bytes
    writable: int
    answer: bytes = b""


@dataclass
class Model:
    """What must be true, in lists and counters; indexes count up and are never wrapped."""

    staged: list[Command] = field(default_factory=list)
    visible: deque[Command] = field(default_factory=deque)
    in_hand: Command | None = None
    done: deque[Command] = field(default_factory=deque)
    shown: int = 0  # avail.idx
    taken: int = 0  # next entry the device takes
    used: int = 0  # used.idx
    polled: int = 0  # next element the driver takes
    avail_event: int = 0
    used_event: int = 0
    silenced: bool = False  # avail.flags

    @property
    def outstanding(self) -> int:
        held = self.in_hand is not None
        return len(self.staged) + len(self.visible) + held + len(self.done)


class Lockstep:
    """Driver's ring, C ring and model; every verb acts on all three and compares.

    Guest memory is two regions that touch, in reverse order in the file, so a
    buffer across the border is one piece for the driver and two for the device.
    """

    def __init__(self, size: int, *, event_idx: bool, indirect: bool, start: int = 0) -> None:
        self.event_idx, self.indirect, self.size = event_idx, indirect, size
        self._undo = ExitStack()
        low = RegionSpec(BORDER - 0x10000, 0x10000, 8 << 20)
        self.memory = self._undo.enter_context(GuestMemory([low, RegionSpec(BORDER, 8 << 20, 0)]))
        self.memory.alloc(0x10000, region=0)
        self.memory.alloc(4096, region=1)
        self.border_free = True
        self.ring = SplitRing(
            self.memory, size, event_idx=event_idx, indirect=indirect, start=start
        )
        self.forger = Forger(self.ring)
        self.avail = self.memory.words(self.ring.avail_ring, 3 + size)
        self.used = self.memory.words(self.ring.used_ring, 3 + 4 * size)
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(4)]
        for fd in self.fds:
            self._undo.callback(os.close, fd)
        *queue_fds, port_fd = self.fds
        self.call_fd, self.err_fd = queue_fds[1:]
        self.engine = Engine(pairs=1, workers=1, port_type="null", port_fds=[port_fd])
        self._undo.callback(self.engine.close)
        self.swap_memory()
        self.setup = self.ring.setup(CONTROLQ, *queue_fds)
        self.model = Model(shown=start, taken=start, used=start, polled=start)
        self._start(start, start)
        self.serial = 0

    def close(self) -> None:
        self._undo.close()

    # --- the driver's verbs -------------------------------------------------------------

    def add(self, layout: Layout, *, across_border: bool = False) -> None:
        first = len(layout.lengths) - layout.writable
        buffers = [
            Buffer(self.memory.alloc(length, align=1), length, i >= first)
            for i, length in enumerate(layout.lengths)
        ]
        if across_border and self.border_free:
            self.border_free = False
            self.memory.free(buffers[-1].gpa)
            buffers[-1] = AROUND_BORDER._replace(writable=buffers[-1].writable)
        request = b""
        for buffer in buffers:
            self.serial += 1
            data = bytes([SENTINEL]) * buffer.length
            if not buffer.writable:
                data = (self.serial.to_bytes(4, "big") * buffer.length)[: buffer.length]
                request += data
            self.memory.write(buffer.gpa, data)
        command = Command(buffers, request, sum(b.length for b in buffers if b.writable))
        if layout.indirect and layout.jumble:
            rest = list(range(1, len(buffers)))
            random.Random(layout.jumble).shuffle(rest)
            self.forger.indirect_in_order(buffers, [0, *rest], command)
        else:
            self.ring.add(
                buffers, command, indirect=layout.indirect, direct_prefix=layout.direct_prefix
            )
        self.model.staged.append(command)

    def publish(self) -> None:
        model = self.model
        before, model.shown = model.shown, model.shown + len(model.staged)
        model.visible.extend(model.staged)
        model.staged.clear()
        kick_due = among(model.avail_event, before, model.shown)
        if not self.event_idx:
            kick_due = model.shown > before  # the device never asks for silence here
        assert self.ring.publish() == kick_due

    def poll(self) -> None:
        item = self.ring.poll()
        if not self.model.done:
            assert item is None
            return
        assert item is not None
        command = self.model.done.popleft()
        self.model.polled += 1
        assert item.chain.token is command
        assert item.length == len(command.answer)
        expected = command.answer.ljust(command.writable, bytes([SENTINEL]))
        writable = [b for b in command.buffers if b.writable]
        assert b"".join(self.memory.read(b.gpa, b.length) for b in writable) == expected
        readable = [b for b in command.buffers if not b.writable]
        assert b"".join(self.memory.read(b.gpa, b.length) for b in readable) == command.request
        for buffer in command.buffers:
            if buffer.gpa == AROUND_BORDER.gpa:
                self.border_free = True
            else:
                self.memory.free(buffer.gpa)

    def arm(self, later: int) -> None:
        waiting = len(self.model.done)
        if self.event_idx:
            self.model.used_event = self.model.polled + later
            assert self.ring.arm(later) == (waiting > later)
        else:
            self.model.silenced = False
            assert self.ring.arm(later) == (waiting > 0)

    def disarm(self) -> None:
        self.ring.disarm()
        self.model.silenced = True

    # --- the device's verbs -------------------------------------------------------------

    def pop(self) -> None:
        model = self.model
        if not model.visible:
            assert self.engine.ctrl_pop() is None
            model.avail_event = model.taken
            return
        model.in_hand = model.visible.popleft()
        model.taken += 1
        assert self.engine.ctrl_pop() == (model.in_hand.request, model.in_hand.writable)

    def complete(self, length: int) -> None:
        model, command = self.model, self.model.in_hand
        assert command is not None
        answer = os.urandom(length)
        command.answer = answer[: command.writable]
        table = self.descriptors()
        self.engine.ctrl_complete(answer)
        assert self.descriptors() == table
        model.in_hand = None
        model.done.append(command)
        before, model.used = model.used, model.used + 1
        wanted = among(model.used_event, before, model.used)
        if not self.event_idx:
            wanted = not model.silenced
        assert drain(self.call_fd) == wanted

    def descriptors(self) -> bytes:
        return self.memory.read(self.ring.desc_table, 16 * self.size)

    def restart(self) -> None:
        """Stop and resume; a command in hand is taken again."""
        model = self.model
        state = self.engine.stop_queue(CONTROLQ)
        if model.in_hand is not None:
            model.visible.appendleft(model.in_hand)
            model.in_hand = None
            model.taken -= 1
        assert (state.avail_base, state.used_base) == (model.taken % WRAP, model.used % WRAP)
        self._start(state.avail_base, state.used_base)

    def _start(self, avail_base: int, used_base: int) -> None:
        """Start at these bases; who ran the ring before may have left without a word."""
        setup = replace(self.setup, avail_base=avail_base, used_base=used_base)
        self.engine.start_queue(setup, event_idx=self.event_idx, indirect=self.indirect)
        assert drain(self.call_fd) == 1

    def swap_memory(self) -> None:
        with MappedMemory(self.memory.regions) as mapped:
            self.engine.set_memory(mapped)

    # --- comparison ---------------------------------------------------------------------

    def check(self) -> None:
        """Everything both sides show, against the model."""
        model = self.model
        state = self.engine.queue_state(CONTROLQ)
        assert (state.running, state.broken) == (True, BreakReason.NONE)
        assert (state.avail_base, state.used_base) == (model.taken % WRAP, model.used % WRAP)
        assert (self.avail[1], self.used[1]) == (model.shown % WRAP, model.used % WRAP)
        assert self.used[0] == 0
        if self.event_idx:
            assert self.avail[0] == 0
            assert self.avail[2 + self.size] == model.used_event % WRAP
            assert self.used[2 + 4 * self.size] == model.avail_event % WRAP
        else:
            assert self.avail[0] == model.silenced
        assert self.ring.outstanding == model.outstanding
        assert drain(self.call_fd) == drain(self.err_fd) == 0

    def finish(self) -> None:
        """Bring everything home: nothing may be lost, no descriptor either."""
        self.publish()
        while self.model.outstanding:
            if self.model.in_hand is None:
                self.pop()
            if self.model.in_hand is not None:
                self.complete(1)
            self.poll()
            self.check()
        assert self.ring.free_descriptors == self.size


def among(index: int, before: int, after: int) -> bool:
    """Was entry ``index``, modulo 2^16, one of those that became visible?"""
    return any(entry % WRAP == index % WRAP for entry in range(before, after))


def drain(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


# --- searched by hypothesis -------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    writable = draw(st.integers(0, len(lengths)))
    prefix = draw(st.integers(0, len(lengths) - 1))
    jumble = draw(st.integers(0, 5))
    return Layout(tuple(lengths), writable, draw(st.booleans()), prefix, jumble)


class RingMachine(RuleBasedStateMachine):
    """Any sequence of verbs, on any ring."""

    steps: Lockstep

    @initialize(
        size=st.sampled_from([1, 2, 4, 8, 256]),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        start=st.sampled_from([0, 1, WRAP - 3, WRAP - 1]),
    )
    def begin(self, **options: Any) -> None:
        self.steps = Lockstep(options.pop("size"), **options)

    def teardown(self) -> None:
        if hasattr(self, "steps"):
            try:
                self.steps.finish()
            finally:
                self.steps.close()

    @rule(layout=layouts(), across_border=st.booleans())
    def add(self, layout: Layout, across_border: bool) -> None:
        fits = layout.descriptors <= self.steps.ring.free_descriptors
        assume(fits and (self.steps.indirect or not layout.indirect))
        self.steps.add(layout, across_border=across_border)

    @rule()
    def publish(self) -> None:
        self.steps.publish()

    @precondition(lambda self: self.steps.model.in_hand is None)
    @rule()
    def pop(self) -> None:
        self.steps.pop()

    @precondition(lambda self: self.steps.model.in_hand is not None)
    @rule(length=st.integers(0, 200))
    def complete(self, length: int) -> None:
        self.steps.complete(length)

    @rule()
    def poll(self) -> None:
        self.steps.poll()

    @rule(later=st.integers(0, 3))
    def arm(self, later: int) -> None:
        self.steps.arm(later)

    @rule()
    def disarm(self) -> None:
        self.steps.disarm()

    @rule()
    def restart(self) -> None:
        self.steps.restart()

    @rule()
    def swap_memory(self) -> None:
        self.steps.swap_memory()

    @invariant()
    def same(self) -> None:
        if hasattr(self, "steps"):
            self.steps.check()


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestRingMachine.pytestmark = [promises]  # type: ignore[attr-defined]


# --- walked at random, long enough to wrap ----------------------------------------------


def random_layout(rng: random.Random, *, most: int, indirect: bool) -> Layout:
    indirect = indirect and rng.random() < 0.6
    prefix = rng.randint(0, most - 1) if indirect and rng.random() < 0.3 else 0
    count = prefix + rng.randint(1, 40) if indirect else rng.randint(1, min(most, 12))
    lengths = tuple(rng.randint(1, 40) for _ in range(count))
    jumble = 0 if prefix else rng.randint(0, 3)
    return Layout(lengths, rng.randint(0, count), indirect, prefix, jumble)


def random_step(rng: random.Random, steps: Lockstep) -> None:
    free = steps.ring.free_descriptors
    choices: Sequence[tuple[float, Callable[[], None]]] = (
        (
            4 if free else 0,
            lambda: steps.add(
                random_layout(rng, most=free, indirect=steps.indirect),
                across_border=rng.random() < 0.2,
            ),
        ),
        (2, steps.publish),
        (4 if steps.model.in_hand is None else 0, steps.pop),
        (4 if steps.model.in_hand is not None else 0, lambda: steps.complete(rng.randint(0, 80))),
        (3, steps.poll),
        (1, lambda: steps.arm(rng.randint(0, 4))),
        (1, steps.disarm),
        (0.05, steps.restart),
        (0.05, steps.swap_memory),
    )
    (step,) = rng.choices([verb for _, verb in choices], [weight for weight, _ in choices])
    step()


@promises
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32, 64, 128, 256])
def test_random_walks_over_the_index_wrap(
    size: int, event_idx: bool, indirect: bool, vnet_random: random.Random
) -> None:
    """Invariant: after every step both rings stand where the model stands."""
    rng = vnet_random
    steps = Lockstep(size, event_idx=event_idx, indirect=indirect, start=WRAP - 40)
    try:
        while steps.model.polled < WRAP + 60:
            random_step(rng, steps)
            steps.check()
        steps.finish()
    finally:
        steps.close()


@promises
@pytest.mark.parametrize(("size", "event_idx"), [(64, True), (16, False)])
def test_once_round_all_65536_indexes(
    size: int, event_idx: bool, vnet_random: random.Random
) -> None:
    """Invariant: no index value is special, for batches of any size and any used_event in them."""
    steps = Lockstep(size, event_idx=event_idx, indirect=False)
    layout = Layout((2, 1), 1)
    rng = vnet_random
    try:
        while steps.model.polled < WRAP + size:
            batch = rng.randint(1, size // layout.descriptors)
            for _ in range(batch):
                steps.add(layout)
            steps.publish()
            steps.arm(rng.randint(0, batch))
            for _ in range(batch):
                steps.pop()
                steps.complete(1)
            steps.pop()
            steps.check()
            for _ in range(batch):
                steps.poll()
        steps.finish()
    finally:
        steps.close()
