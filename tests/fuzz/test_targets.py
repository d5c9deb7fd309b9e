# SPDX-License-Identifier: MIT
"""The fuzz targets hold what they say over their corpora, and can tell when it does not hold."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.device import controlq
from pyvnet.device.device import VirtioNetDevice
from pyvnet.offload import elf
from pyvnet.transport.vhost_user import fds, memory
from tests.fuzz import control, session
from tests.fuzz import object as object_
from tests.fuzz.make_corpus import step
from tests.fuzz.run import CORPUS, TARGETS, replay

if TYPE_CHECKING:
    from pathlib import Path


def seeds(name: str) -> list[Path]:
    return sorted((CORPUS / name).glob("seed-*"))


@pytest.mark.requirement("PF-A-08", "OUR-CVQ-05", "OUR-CVQ-06")
def test_every_input_of_the_corpora() -> None:
    replay()


@pytest.mark.parametrize("name", TARGETS)
def test_a_corpus_is_there(name: str) -> None:
    assert len(seeds(name)) >= 20


@pytest.mark.may_leak("it is what the target is to notice")
def test_an_fd_left_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(fds.Fd, "close", lambda fd: left.append(fd.take()))
    with pytest.raises(AssertionError, match="fds outlive"):
        session.check(seeds("session")[0].read_bytes())
    for number in {number for number in left if number >= 0}:
        os.close(number)


def test_memory_that_overlaps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_check", lambda _regions: None)
    data = bytes([session.MESSAGE, 16, 8, 0]) + (0x8000).to_bytes(8, "little")
    for size in (0x1000, 0x2000):
        data += bytes([session.MESSAGE | 1 << 2, 1, 37, 40, 0]) + region(size)
    with pytest.raises(AssertionError, match="regions overlap"):
        session.check(data)


def region(size: int) -> bytes:
    numbers = (0, 0x1000, size, 0x1000, 0)
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def test_a_refused_command_that_changes_something_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = VirtioNetDevice._refused

    def spoilt(device: Any, note: str, **events: int) -> Any:
        transition = real(device, note, **events)
        ctrl = replace(transition.state.control, announce=not transition.state.control.announce)
        return replace(transition, state=replace(transition.state, control=ctrl))

    monkeypatch.setattr(VirtioNetDevice, "_refused", spoilt)
    unknown = bytes(10) + step(b"\xff\xff")
    with pytest.raises(AssertionError, match="a refused command changed it"):
        control.check(unknown)


def test_a_command_that_leads_nowhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlq, "_admit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        control.check(seeds("control")[0].read_bytes())


def test_another_error_than_a_usage_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    (cut,) = [path for path in seeds("object") if path.stat().st_size == 63]
    object_.check(cut.read_bytes())
    monkeypatch.setattr(elf, "UsageError", KeyError)
    with pytest.raises(KeyError):
        object_.check(cut.read_bytes())
