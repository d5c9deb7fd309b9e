# SPDX-License-Identifier: MIT
"""Who steers a device: owners in turn, and software in the place of each that fails."""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Device, HostError, Pair, Tap, UsageError
from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.device.queue import QueueFds
from pyvnet.driver.errors import CommandError
from pyvnet.netdev import tun_uapi
from pyvnet.netdev.netns import NetNamespace
from pyvnet.offload import bpf, bpf_call, program
from pyvnet.runtime.owners import SteeringRequest, choose
from tests.deprived import run
from tests.steered import CONFIG, QUEUES, RSS, exchange, over, receive, send, steered
from tests.system.support import DRIVER_MAC, attached, tap_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("who steers is decided without an event loop"),
]

# enum vnet_fail_site of native/src/test_hooks.h
FAIL_ALLOC, FAIL_PORT_ATTACH, FAIL_SETTLE = 0, 6, 11


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    """A namespace whose kernel says nothing of its own."""
    with NetNamespace() as made:
        switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        made.call(lambda: switch.write_text("1"))
        yield made


@pytest.fixture
def hooks(native_hooks: tuple[Any, Any]) -> Iterator[Native]:
    native = Native(*native_hooks)
    yield native
    for site in (FAIL_ALLOC, FAIL_PORT_ATTACH, FAIL_SETTLE):
        native.lib.vnet_test_fail(site, 0)


class Always:
    """A program that puts every frame on one tap queue."""

    name = "always"

    def __init__(self, queue: int) -> None:
        self._code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, queue, 0x95, 0, 0, 0)

    def load(self) -> int:
        return bpf.prog_load(self._code, name=self.name, license_="MIT")


def why_not(device: Device, owner: str = "ebpf") -> str:
    """The reason status gives."""
    finding = device.status()["steering"]["owners"][owner]
    assert not finding["available"]
    assert finding["cure"]
    return str(finding["reason"])


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what the log says of owners."""
    said = [(r.levelname, r.getMessage()) for r in caplog.records]
    return [(level, text) for level, text in said if text.startswith("steering by software")]


# --- owners in turn -----------------------------------------------------------------------


@pytest.mark.requirement("U-45", "NET-MQ-04", "NET-RSS-01")
@pytest.mark.parametrize("asked", ["auto", "ebpf"])
async def test_the_owner_follows_the_drivers_last_command(
    netns: NetNamespace, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with steered(netns, steering=asked) as (device, driver):
        assert device.steering_owner == "kernel-auto"
        for _ in range(2):
            await driver.ctrl.rss_config(CONFIG)
            assert device.steering_owner == "ebpf"
            await exchange(netns, driver)
            await driver.ctrl.vq_pairs_set(QUEUES)
            assert device.steering_owner == "kernel-auto"
            send(netns)
            assert len(await receive(driver)) > QUEUES
        shown = device.status()["steering"]
        assert (shown["owner"], shown["asked"]) == ("kernel-auto", asked)
        assert shown["owners"]["ebpf"] == {"available": True}
        assert device.statistics().rx_resteered == 0
        await driver.aclose()
        assert device.steering_owner == "kernel-auto"
    assert told(caplog) == []


@pytest.mark.requirement("U-45")
async def test_who_asks_for_software_gets_it(
    netns: NetNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    async with steered(netns, steering="software") as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        assert device.steering_owner == "software"
        assert why_not(device) == "software was asked for"
        await exchange(netns, driver)
        assert device.statistics().rx_resteered > 0
    assert told(caplog) == []


@pytest.mark.requirement("U-57")
async def test_a_command_about_something_else_leaves_the_steerer_alone(
    netns: NetNamespace, hooks: Native
) -> None:
    async with steered(netns, native=hooks) as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        hooks.lib.vnet_test_fail(FAIL_SETTLE, 1)  # so many publications would need it
        for on in [False, True] * 12:
            await driver.ctrl.rx_allmulti(on=on)
            await driver.ctrl.rss_config(CONFIG)
        assert device.steering_owner == "ebpf"
        await exchange(netns, driver)
        assert device.statistics().rx_resteered == 0


# --- a program that was handed over -------------------------------------------------------


async def test_a_program_that_was_handed_over_steers_and_stays_whose_it_was(
    netns: NetNamespace,
) -> None:
    with program.load() as fds:
        async with steered(netns, bpf_fds=(fds.program, fds.map)) as (device, driver):
            await driver.ctrl.rss_config(CONFIG)
            assert device.steering_owner == "ebpf"
            await exchange(netns, driver)
            assert device.statistics().rx_resteered == 0
        program.check(fds.program, fds.map)


def _swapped(fds: program.SteeringFds) -> tuple[int, int]:
    return fds.map, fds.program


def _closed(fds: program.SteeringFds) -> tuple[int, int]:
    return fds.program, os.dup(fds.map) + 1000


def _other_version(fds: program.SteeringFds) -> tuple[int, int]:
    size = program.image().maps[0].value_size
    value = bytearray(bpf.map_lookup(fds.map, bytes(4), size))
    value[8] ^= 1
    bpf.map_update(fds.map, bytes(4), bytes(value))
    return fds.program, fds.map


@pytest.mark.may_leak("the fd that is closed is found by opening another")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_swapped, "is no BPF program"),
        (_closed, "Bad file descriptor"),
        (_other_version, "was made for another steering program"),
    ],
)
async def test_fds_that_do_not_fit_are_refused_and_software_steers(
    netns: NetNamespace,
    spoil: Callable[[program.SteeringFds], tuple[int, int]],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    with program.load() as fds:
        async with steered(netns, bpf_fds=spoil(fds)) as (device, driver):
            await driver.ctrl.rss_config(CONFIG)
            assert device.steering_owner == "software"
            assert says in why_not(device)
            await exchange(netns, driver)
    ((level, text),) = told(caplog)
    assert (level, says in text) == ("INFO", True)


# --- the host lacks something, at open ----------------------------------------------------


@pytest.mark.requirement("PF-F-11", "U-45")
@pytest.mark.parametrize(("asked", "level"), [("auto", "INFO"), ("ebpf", "WARNING")])
async def test_a_program_the_verifier_refuses(
    netns: NetNamespace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: str,
    level: str,
) -> None:
    caplog.set_level("INFO")
    image = program.image()
    endless = replace(image, instructions=image.instructions[:-8] + bytes(8))
    monkeypatch.setattr(program, "image", lambda: endless)
    async with steered(netns, steering=asked) as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        assert device.steering_owner == "software"
        assert "cannot load the BPF program" in why_not(device)
        await exchange(netns, driver)
    assert [seen for seen, _ in told(caplog)] == [level]


def test_no_file_descriptors_left(netns: NetNamespace) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tap_in(netns, queues=2) as tap:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
        try:
            chosen = choose(SteeringRequest(), tap, DEFAULT)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert chosen.steerer is None
    assert os.strerror(errno.EMFILE) in chosen.findings["ebpf"].reason


@pytest.mark.parametrize("asked", ["auto", "ebpf", "kernel-hash"])
@pytest.mark.parametrize("port", [lambda: Pair(4), lambda: Tap("vnet0", queues=1)])
async def test_where_there_is_nothing_to_choose(
    netns: NetNamespace,
    asked: str,
    port: Callable[[], Pair | Tap],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    made = port()
    if made.kind == "tap":
        made = tap_in(netns, queues=1)
    async with steered(made, steering=asked) as (device, driver):
        await driver.ctrl.rss_config(over(0))
        assert device.steering_owner == "software"
        assert ("one queue" if made.kind == "tap" else "pair port") in why_not(
            device, "ebpf" if asked == "auto" else asked
        )
    assert [level for level, _ in told(caplog)] == ([] if asked == "auto" else ["WARNING"])


def test_what_nobody_can_ask_for() -> None:
    for wrong in (
        {"steering": "luck"},
        {"steering": "ebpf", "steering_program": "x.o"},
        {"steering": "software", "bpf_fds": (3, 4)},
        {"bpf_fds": (3,)},
    ):
        with pytest.raises(UsageError):
            Device(netdev=Pair(2), **wrong)


# --- the host lacks something: real causes, in a child ------------------------------------

CHILD = """
import asyncio, logging
from pathlib import Path
from pyvnet import Tap
from pyvnet.netdev import tun_uapi
from tests.steered import CONFIG, exchange, over, steered
from tests.system.support import attached

class Here:  # this process's own namespace
    def call(self, work): return work()

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
logging.getLogger("asyncio").setLevel("ERROR")  # its debug mode speaks of slow callbacks
Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")

def serve(before=lambda: None, after=lambda: None, commands=()):
    async def run():
        tap = Tap("vnet0", queues=4)
        before()
        async with steered(tap) as (device, driver):
            after()
            await driver.ctrl.rss_config(CONFIG)
            await exchange(Here(), driver)
            for config in commands:
                await driver.ctrl.rss_config(config)
                await exchange(Here(), driver, config)
            shown = device.status()["steering"]
            print(shown["owner"], shown["owners"]["ebpf"].get("reason"))
            assert not device.statistics().rx_drops
    asyncio.run(run())
"""


@pytest.mark.requirement("PF-F-11", "U-45")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("serve(before=lambda: forbid('bpf'))", "Function not implemented"),
        (
            "serve(after=lambda: forbid('ioctl', errno.ENOTTY, TUNSETSTEERINGEBPF))",
            "Inappropriate ioctl for device",
        ),
        (
            "serve(after=lambda: forbid('membarrier'), commands=[over(0, 1), CONFIG])",
            "Function not implemented",
        ),
    ],
    ids=["no bpf(2)", "no ioctl", "no membarrier"],
)
def test_software_takes_over_with_one_line_and_traffic_goes_on(script: str, reason: str) -> None:
    *lines, last = run(CHILD + script)
    (line,) = [line for line in lines if "steering by software instead of ebpf" in line]
    assert line.startswith("INFO")
    assert reason in line
    assert last.startswith("software ")
    assert last.endswith(reason)


# --- changes that fail half way -----------------------------------------------------------


@pytest.mark.requirement("U-07", "U-62")
@pytest.mark.parametrize("countdown", [1, 2])
async def test_queues_that_cannot_come_leave_everything_as_it_was(
    netns: NetNamespace, hooks: Native, countdown: int
) -> None:
    few = over(1, 0)
    async with steered(netns, native=hooks) as (device, driver):
        await driver.ctrl.rss_config(few)
        hooks.lib.vnet_test_fail(FAIL_PORT_ATTACH, countdown)
        with pytest.raises(CommandError):
            await driver.ctrl.rss_config(CONFIG)
        assert attached(netns) == 2
        assert device.steering_owner == "ebpf"
        await exchange(netns, driver, few)
        await driver.ctrl.rss_config(CONFIG)
        await exchange(netns, driver)
        assert device.statistics().rx_resteered == 0


@pytest.mark.requirement("U-62")
async def test_a_steerer_that_cannot_be_waited_for_is_let_go_and_the_command_holds(
    netns: NetNamespace, hooks: Native
) -> None:
    few = over(1, 0)
    async with steered(netns, native=hooks) as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        hooks.lib.vnet_test_fail(FAIL_SETTLE, 1)
        await driver.ctrl.rss_config(few)
        assert attached(netns) == 2
        assert device.steering_owner == "software"
        assert "membarrier" in why_not(device)
        await exchange(netns, driver, few)
        await driver.ctrl.rss_config(CONFIG)
        assert device.steering_owner == "software"
        await exchange(netns, driver)


@pytest.mark.requirement("U-62")
async def test_a_reset_waits_for_nobody(netns: NetNamespace, hooks: Native) -> None:
    async with steered(netns, native=hooks) as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        hooks.lib.vnet_test_fail(FAIL_SETTLE, 1)
        await driver.aclose()
        assert attached(netns) == 1
        assert device.status()["steering"]["owners"]["ebpf"] == {"available": True}


@pytest.mark.requirement("U-07", "U-62")
@pytest.mark.parametrize("countdown", [1, 2, 3])
async def test_no_memory_for_a_change_changes_nothing(
    netns: NetNamespace, hooks: Native, countdown: int
) -> None:
    async with steered(netns, native=hooks) as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        hooks.lib.vnet_test_fail(FAIL_ALLOC, countdown)
        with pytest.raises(CommandError):
            await driver.ctrl.vq_pairs_set(1)
        assert attached(netns) == QUEUES
        assert device.steering_owner == "ebpf"
        await exchange(netns, driver)
        assert device.statistics().rx_resteered == 0


def test_a_signal_does_not_keep_a_program_from_being_loaded() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    stop, here = threading.Event(), threading.get_ident()

    def disturb() -> None:
        while not stop.wait(0.002):  # the verifier takes longer
            signal.pthread_kill(here, signal.SIGUSR1)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        program.load().close()
    finally:
        stop.set()
        disturber.join()
        signal.signal(signal.SIGUSR1, before)


# --- a state that moves -------------------------------------------------------------------


async def test_a_device_goes_on_where_there_is_no_ebpf(
    netns: NetNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with steered(netns) as (first, driver):
        await driver.ctrl.rss_config(CONFIG)
        await exchange(netns, driver)
        assert first.steering_owner == "ebpf"
        fds = {q.index: QueueFds(q.kick_fd, q.call_fd, q.err_fd) for q in driver.queues}
        state = first.pause()
        first.close()
        monkeypatch.setattr(bpf_call, "_NUMBERS", {})
        async with Device(netdev=tap_in(netns, queues=QUEUES), mac=DRIVER_MAC) as second:
            second.set_memory(driver.memory.regions)
            second.restore(state, fds)
            assert second.steering_owner == "software"
            assert "Function not implemented" in why_not(second)
            assert second.device.state.steering == state.steering
            await exchange(netns, driver)
            few = over(2, 1)
            await driver.ctrl.rss_config(few)  # the control queue moved too
            await exchange(netns, driver, few)
            assert second.statistics().rx_resteered > 0


# --- a program of the operator's ----------------------------------------------------------


@pytest.mark.requirement("U-45")
async def test_while_a_program_of_the_operators_steers_rss_is_refused(
    netns: NetNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with steered(netns, steering_program=Always(2)) as (device, driver):
        assert device.steering_owner == "user-program"
        await driver.ctrl.vq_pairs_set(QUEUES)
        with pytest.raises(CommandError):
            await driver.ctrl.rss_config(CONFIG)
        assert "the operator's steering program is attached" in caplog.text
        send(netns)
        assert set(await receive(driver)) == {2}
        with pytest.raises(HostError, match="always is attached") as second:
            device.attach_steering_program(Always(1))
        assert second.value.errno == errno.EBUSY
        shown = device.status()["steering"]
        assert (shown["owner"], shown["program"]) == ("user-program", "always")
        device.detach_steering_program()
        assert device.steering_owner == "kernel-auto"
        await driver.ctrl.rss_config(CONFIG)
        assert device.steering_owner == "ebpf"
        await exchange(netns, driver)


@pytest.mark.requirement("U-45")
async def test_while_rss_is_active_no_program_is_taken(netns: NetNamespace) -> None:
    async with steered(netns) as (device, driver):
        await driver.ctrl.rss_config(CONFIG)
        with pytest.raises(HostError, match="while the driver uses RSS") as refused:
            device.attach_steering_program(Always(0))
        assert refused.value.errno == errno.EBUSY
        assert device.steering_owner == "ebpf"
        await exchange(netns, driver)
        assert device.statistics().rx_resteered == 0
        await driver.ctrl.vq_pairs_set(QUEUES)
        device.attach_steering_program(Always(3))
        send(netns)
        assert set(await receive(driver)) == {3}


@pytest.mark.requirement("U-45")
async def test_a_program_outlives_a_driver_and_not_the_device(netns: NetNamespace) -> None:
    netns.run(["ip", "tuntap", "add", "vnet0", "mode", "tap", "multi_queue"])
    device = Device(netdev=tap_in(netns, queues=QUEUES), mac=DRIVER_MAC)
    async with device, device.driver() as driver:
        await driver.negotiate(RSS)
        device.attach_steering_program(Always(1))
        await driver.aclose()
        assert device.steering_owner == "user-program"
    async with device, device.driver() as driver:
        await driver.negotiate(RSS)
        await driver.ctrl.rss_config(CONFIG)
        await driver.ctrl.vq_pairs_set(QUEUES)
        send(netns)
        assert len(set(await receive(driver))) > 1


@pytest.mark.requirement("U-45")
async def test_a_program_left_on_a_tap_is_taken_off(netns: NetNamespace) -> None:
    netns.run(["ip", "tuntap", "add", "vnet0", "mode", "tap", "multi_queue"])
    async with steered(netns) as (device, driver):
        fd = Always(1).load()
        tun_uapi.set_steering_program(device.netdev.fds[0], fd)  # behind its back
        os.close(fd)
        await driver.aclose()
    async with steered(netns) as (_, driver):
        await driver.ctrl.vq_pairs_set(QUEUES)
        send(netns)
        assert len(set(await receive(driver))) > 1


async def test_a_program_that_is_none_fails_the_start_and_leaves_nothing(
    netns: NetNamespace, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.o"
    wrong.write_bytes(b"\x7fELF" + bytes(100))
    for given, error in (
        (str(tmp_path / "none.o"), UsageError),
        (str(wrong), UsageError),
    ):
        tap = tap_in(netns, queues=QUEUES)
        with pytest.raises(error):
            async with Device(netdev=tap, steering_program=given):
                pass
        assert tap.fds == ()
    with pytest.raises(HostError, match="pair port"):
        async with Device(netdev=Pair(2), steering_program=Always(0)):
            pass
