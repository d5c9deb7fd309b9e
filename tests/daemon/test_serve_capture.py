# SPDX-License-Identifier: MIT
"""Captures of a served device: from its start, by the admin socket, and of a front-end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pyvnet import Driver, Feature
from pyvnet.capture import Rotation, Writer, read_frames
from pyvnet.daemon import cli, config
from pyvnet.daemon.admin_client import ask
from pyvnet.daemon.readers import rotation
from pyvnet.errors import UsageError
from tests.daemon.serving import Serving, run

NULL = ("--socket-path", "s", "--port", "null", "--admin", "a", "--name", "vm1", "--queues", "2")
FRAME = bytes.fromhex("0200000000020200000000010806") + bytes(range(46))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def command(**request: str) -> Any:
    return await asyncio.to_thread(ask, "a", request)


async def send(driver: Driver, count: int) -> None:
    for number in range(count):
        await driver.send(FRAME, queue=number % 2)
    await driver.flush()


async def test_a_served_device_is_captured() -> None:
    with (
        Serving(*NULL, "--capture", "first.pcapng", "--capture-snap", "40") as serving,
        Writer("driver.pcapng", name="guest") as writer,
    ):
        async with Driver.connect("vhost-user:s", capture=writer) as driver:
            await driver.negotiate(Feature.MQ | Feature.CTRL_VQ, pairs=2)
            await driver.ctrl.vq_pairs_set(2)
            await send(driver, 4)
            (shown,) = (await command(command="status"))["devices"]
            assert (shown["capture"]["state"], shown["capture"]["frames"]) == ("running", 4)
            with pytest.raises(UsageError, match="captured already"):
                await command(command="capture", file="second.pcapng")
            answer = await command(command="capture", file="none", device="vm1")
            assert (answer["device"], answer["capture"]["state"]) == ("vm1", "stopped")
            await send(driver, 1)
            done = await asyncio.to_thread(run, "admin", "a", "capture", "second.pcapng")
            assert done.returncode == 0
            await send(driver, 3)
            with pytest.raises(UsageError, match="usage: capture FILE"):
                await command(command="capture")
        assert await asyncio.to_thread(serving.end) == 0
    first, second = list(read_frames("first.pcapng")), list(read_frames("second.pcapng"))
    assert sorted(frame.interface_name for frame in first) == ["vm1:tx0"] * 2 + ["vm1:tx1"] * 2
    assert [frame.data for frame in first] == [FRAME[:40]] * 4
    assert len(second) == 3
    by_driver = list(read_frames("driver.pcapng"))
    assert [frame.interface_name for frame in by_driver][:2] == ["guest:tx0", "guest:tx1"]
    assert [frame.data for frame in by_driver] == [FRAME] * 8


def test_a_capture_that_cannot_be_written_keeps_a_device_from_starting() -> None:
    done = run("serve", *NULL, "--capture", "no/such/x.pcapng")
    assert done.returncode == 1
    assert "no/such/x.pcapng: cannot write a capture (No such file or directory)" in done.stderr
    assert not Path("s").exists()


def test_the_same_in_a_file() -> None:
    Path("two.toml").write_text(
        '[[device]]\nname = "a"\nsocket-path = "a.s"\nport = "null"\ncapture = "x"\n'
        'capture-rotate = "1M:3"\ncapture-snap = 96\n'
        '[[device]]\nname = "b"\nsocket-path = "b.s"\nport = "null"\ncapture = "./x"\n'
    )
    with pytest.raises(UsageError, match=r"b: the capture ./x is used by a already"):
        config.load("two.toml")
    text = Path("two.toml").read_text().replace("./x", "./y")
    Path("two.toml").write_text(text)
    a, b = config.load("two.toml").devices
    assert (a.capture_rotate, a.capture_snap) == (Rotation(1 << 20, 3), 96)
    assert (b.capture, b.capture_rotate) == ("./y", None)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("300000", Rotation(300_000)), ("256k:1", Rotation(1 << 18, 1)), ("2G", Rotation(2 << 30))],
)
def test_sizes_of_rotations(text: str, meant: Rotation) -> None:
    assert rotation(text) == meant


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "1M:", "1M:0", "1M:x", "255K", "1M:2:3"])
def test_rotations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number|capture files of"):
        rotation(text)


def test_conformance_keeps_the_frames_of_its_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """Each case's driver is a device of its own in the file, and everything comes out again."""
    only = "queue-is-that-of-the-toeplitz-hash,hash-is-toeplitz-with-the-key-given"
    assert cli.main(["conformance", "builtin", "--only", only, "--capture", "c.pcapng"]) == 0
    names = {frame.interface_name.rpartition(":")[0] for frame in read_frames("c.pcapng")}
    assert names == set(only.split(","))
    capsys.readouterr()
    assert cli.main(["hash", "--json", "c.pcapng"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)
    assert {row["captured"]["agrees"] for row in rows if "captured" in row} == {True}
    assert "none of them" in told.err
