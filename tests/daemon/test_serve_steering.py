# SPDX-License-Identifier: MIT
"""`pyvnet serve --steering …`: who steers, what it says of it, and programs of the operator's."""

from __future__ import annotations

import json
import os
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Driver, RssConfig
from pyvnet.driver.errors import CommandError
from pyvnet.netdev.netns import NetNamespace
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from tests.daemon.serving import Serving, run
from tests.offload.sources import CONSTANT, LICENSE, compiled
from tests.system import support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("folder"),
]

CONFIG = RssConfig(ALL_HASH_TYPES, tuple(i % 4 for i in range(128)), VERIFICATION_KEY)
# A root that may make taps and may not load programs.
WITHOUT_BPF = ("setpriv", "--inh-caps=-all", "--bounding-set=-bpf,-sys_admin,-perfmon")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets go: the working directory, because their addresses must be short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    with NetNamespace() as made:
        yield made


def words(netns: NetNamespace, *more: str) -> tuple[str, ...]:
    there = f"/proc/{os.getpid()}/fd/{netns.fileno()}"
    return ("--socket-path", "s", "--tap", "vnet0", "--netns", there, "--admin", "a", *more)


def steering() -> dict[str, Any]:
    """What status says of it."""
    done = run("status", "a", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout)["devices"][0]["steering"])


def program(queue: int, name: str = "own.o") -> str:
    """An object whose program puts every frame on one queue."""
    source = CONSTANT.replace("3", str(queue))
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(compiled(LICENSE + source))
    return name


@pytest.mark.needs_program("setpriv")
@pytest.mark.requirement("U-45", "PF-F-11")
@pytest.mark.parametrize(("asked", "level"), [("auto", " info "), ("ebpf", " warning ")])
@pytest.mark.one_loop("the other loop asks the same of the kernel")
async def test_without_the_right_to_load_it_serves_with_software_and_says_so(
    netns: NetNamespace, asked: str, level: str
) -> None:
    own = ("--socket-path", "s", "--tap", "vnet0", "--admin", "a", "--steering", asked)
    with Serving(*own, netns=netns, prefix=WITHOUT_BPF) as serving:
        (line,) = [line for line in serving.log.splitlines() if "instead of ebpf" in line]
        assert level in line
        assert "Operation not permitted" in line
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate()
            await driver.ctrl.rss_config(CONFIG)
            shown = steering()
            assert (shown["owner"], shown["asked"]) == ("software", asked)
            assert "Operation not permitted" in shown["owners"]["ebpf"]["reason"]
        text = run("status", "a").stdout
        assert "ebpf: no: " in text
        assert "software: yes" in text
        assert serving.end() == 0


@pytest.mark.needs_program("clang")
@pytest.mark.requirement("U-45")
@pytest.mark.one_loop("the other loop asks the same of the kernel")
async def test_a_program_comes_and_goes_by_the_admin_socket(netns: NetNamespace) -> None:
    own = program(2)
    with Serving(*words(netns)) as serving:
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate()
            await driver.ctrl.rss_config(CONFIG)
            assert steering()["owner"] == "ebpf"
            refused = run("admin", "a", f"steering-program {own}")
            assert refused.returncode == 2
            assert "while the driver uses RSS: Device or resource busy" in refused.stderr
            await driver.ctrl.vq_pairs_set(4)
            taken = run("admin", "a", "steering-program", own, "--json")
            assert json.loads(taken.stdout) == {"device": "net0", "steering": "user-program"}
            assert steering()["program"] == "own.o:choose"
            with pytest.raises(CommandError):
                await driver.ctrl.rss_config(CONFIG)
            again = run("admin", "a", "steering-program", own, "net0")
            assert "is attached: Device or resource busy; detach it first" in again.stderr
            given = run("admin", "a", "steering-program", "none").stdout
            assert "steering: kernel-auto" in given
            await driver.ctrl.rss_config(CONFIG)
            assert steering()["owner"] == "ebpf"
        assert serving.end() == 0
    assert "the operator's steering program is attached" in serving.log


@pytest.mark.needs_program("clang")
@pytest.mark.requirement("U-45")
@pytest.mark.one_loop("the other loop asks the same of the kernel")
async def test_a_program_from_the_start(netns: NetNamespace) -> None:
    with Serving(*words(netns, "--steering-program", program(1))) as serving:
        assert steering()["owner"] == "user-program"
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate()
            await driver.ctrl.vq_pairs_set(4)
            support.addresses(netns, "vnet0", "198.18.9.1", ["198.18.9.2"])
            for _, _ in product(range(4), range(2)):
                with support.udp_socket(netns, "198.18.9.1") as source:
                    source.sendto(b"to queue 1", ("198.18.9.2", 7))
                    frame = await support.receive_udp(driver, source.getsockname()[1])
                    assert frame.queue == 1
        assert serving.end() == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [("none.o", "none.o: cannot be read: No such file"), ("s.txt", "s.txt: not an ELF object")],
)
def test_a_program_that_is_none_fails_the_start(
    netns: NetNamespace, folder: Path, given: str, says: str
) -> None:
    (folder / "s.txt").write_text("no program")
    done = run("serve", *words(netns, "--steering-program", given))
    assert done.returncode == 2
    assert says in done.stderr
    assert "vnet0" not in netns.run(["ip", "link"], capture_output=True, text=True).stdout
    assert {path.name for path in folder.iterdir()} == {"s.txt"}
