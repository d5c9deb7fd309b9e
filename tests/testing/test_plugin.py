# SPDX-License-Identifier: MIT
"""The pytest plugin as its users meet it: where it runs, what it gives, what it keeps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyvnet.capture import read_frames
from tests.testing.suites import Suite

pytest_plugins = ("pytester",)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Suite:
    return Suite(pytester)


# --- where it runs ------------------------------------------------------------------------


def test_loading_the_plugin_loads_nothing_else() -> None:
    code = "import sys, pytest; import pyvnet.testing.plugin; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(out.stdout.split())
    ours = {name for name in loaded if name.startswith("pyvnet")}
    assert ours == {"pyvnet", "pyvnet.testing", "pyvnet.testing.plugin"}
    assert not loaded & {"scapy", "cffi", "uvloop", "pyroute2", "asyncio", "_cffi_backend"}


def test_a_suite_without_devices_loads_none_and_keeps_nothing(run: Suite) -> None:
    body = """
    import sys

    def test_loaded():
        assert not {"pyvnet.runtime", "pyvnet._native", "pyvnet.testing.script"} & set(sys.modules)

    def test_fails():
        assert False
    """
    result = run(body, child=True, head="")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*vnet: kept*")


BOTH_WAYS = """
    async def test_both_ways(vnet):
        await vnet.steer()
        vnet.inject(FRAME, OTHER)
        await vnet.expect(OTHER, report=HashReport.UDPV6)
        await vnet.expect(FRAME, **vnet.predict(FRAME))
        await vnet.expect_nothing()
        await vnet.send(OTHER, queue=1)
        await vnet.expect_sent(OTHER)
        await vnet.expect_nothing_sent(within=0.05)
"""


def test_a_scenario_in_auto_mode(run: Suite) -> None:
    run(BOTH_WAYS).assert_outcomes(passed=1)


def test_a_scenario_in_strict_mode_on_both_loops(run: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        import asyncio, uvloop

        def pytest_asyncio_loop_factories(config, item):
            return {"stock": asyncio.SelectorEventLoop, "uv": uvloop.new_event_loop}
    """)
    marked = BOTH_WAYS.replace("async def", "@pytest.mark.asyncio\n    async def", 1)
    run(marked, mode="strict").assert_outcomes(passed=2)


def test_without_pytest_asyncio_plain_calls_are_left(run: Suite) -> None:
    body = """
    def test_plain(vnet_plain):
        vnet_plain.steer(table=(0, 1))
        vnet_plain.inject(FRAME)
        vnet_plain.expect(FRAME, **vnet_plain.predict(FRAME))
        vnet_plain.expect_nothing()
        vnet_plain.send(FRAME)
        vnet_plain.expect_sent(FRAME, queue=0)
        vnet_plain.expect_nothing_sent()
        assert vnet_plain.counters()["tx_packets"] == 1

    def test_coroutine(vnet):
        pass
    """
    result = run(body, "-p", "no:asyncio", mode="")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*needs pytest-asyncio*pip install pyvnet?testing?*"])


# --- what it gives --------------------------------------------------------------------------


def test_everything_can_be_overridden(run: Suite) -> None:
    body = """
    @pytest.fixture
    def vnet_queues():
        return 2

    MINE = Feature.CTRL_VQ | Feature.MQ | Feature.MTU

    @pytest.fixture
    def vnet_features():
        return MINE

    @pytest.fixture
    def vnet_options():
        return {"mtu": 1400, "offered": MINE | Feature.VERSION_1}

    async def test_own(vnet, vnet_device, vnet_driver, wire):
        assert (vnet.device, vnet.driver, vnet.wire) == (vnet_device, vnet_driver, wire)
        assert vnet_driver.features == MINE | Feature.VERSION_1
        assert (vnet_driver.pairs, vnet_driver.config.mtu, wire.queues) == (2, 1400, 2)

    def test_plain(vnet_plain):
        assert vnet_plain.script.driver.config.mtu == 1400
        assert not vnet_plain.script.device.device.offered & Feature.RSS

    async def test_more_devices(vnet_device_factory):
        one, two = await vnet_device_factory(), await vnet_device_factory(queues=3)
        assert (one.pairs, two.pairs) == (2, 3)
        driver = await vnet_device_factory.driver(two, Feature.CTRL_VQ)
        vnet_device_factory.wire(two).send(bytes(FRAME))
        assert (await driver.receive(5)).data == bytes(FRAME)
    """
    run(body).assert_outcomes(passed=3)


def test_a_fixture_of_the_users_may_have_one_of_the_names(run: Suite) -> None:
    body = """
    @pytest.fixture
    def wire():
        return "copper"

    async def test_it(vnet, wire):
        vnet.inject(FRAME)
        await vnet.expect(FRAME)
        assert wire == "copper"
    """
    run(body).assert_outcomes(passed=1)


TAP = """
    @pytest.mark.vnet_tap
    async def test_on_a_tap(vnet):
        assert vnet.device.netdev.kind == "tap"
        vnet.inject(FRAME, build(Ipv4(), tcp(), vlans=[Vlan(7)]))
        await vnet.expect(FRAME)
        await vnet.expect(where=lambda frame: frame.data[12:14] == b"\\x81\\x00")
        await vnet.expect_nothing(within=0.05)
        tagged = build(Ipv4(), udp(), vlans=[Vlan(7, pcp=3)])
        await vnet.send(tagged)
        await vnet.expect_sent(tagged)
"""


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_the_marker_puts_a_tap_in_the_place_of_the_pair(run: Suite) -> None:
    run(TAP).assert_outcomes(passed=1)


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_taps_of_the_same_name_side_by_side(run: Suite) -> None:
    """As in processes of pytest-xdist: each is in a namespace of its own."""
    body = """
    async def test_two(vnet_device_factory):
        one, two = [await vnet_device_factory(port="tap") for _ in range(2)]
        assert one.netdev.name == two.netdev.name
        driver = await vnet_device_factory.driver(two)
        vnet_device_factory.wire(one).send(bytes(OTHER))
        vnet_device_factory.wire(two).send(bytes(FRAME))
        assert (await driver.receive(10)).data == bytes(FRAME)
    """
    run(body).assert_outcomes(passed=1)


@pytest.mark.needs_root
def test_where_no_tap_can_be_made(run: Suite) -> None:
    """Without the right to it the test is skipped, or fails, and says what is missing."""
    body = """
    @pytest.fixture(params=["skip", "fail"], autouse=True)
    def both_settings(request):
        request.config.option.vnet_missing = request.param
    """
    lost = ("setpriv", "--bounding-set=-sys_admin,-net_admin")
    result = run(body + TAP, "-rs", before=lost)
    result.assert_outcomes(skipped=1, errors=1)
    result.stdout.fnmatch_lines(["SKIP*no tap: cannot make a network namespace*CAP_SYS_ADMIN*"])
    result.stdout.fnmatch_lines(["no tap: cannot make a network namespace*CAP_SYS_ADMIN*"])


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_what_its_documentation_says(run: Suite) -> None:
    text = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    result = run("\n".join(blocks), "--vnet-missing=fail", mode="strict", head="")
    result.assert_outcomes(passed=8)


# --- what it keeps --------------------------------------------------------------------------

KEPT = """
    async def test_good(vnet):
        vnet.inject(FRAME)
        await vnet.expect(FRAME)

    async def test_bad(vnet, tmp_path):
        await vnet.steer()
        vnet.inject(FRAME, OTHER)
        await vnet.send(OTHER, queue=1)
        await vnet.expect(OTHER)
        await vnet.expect_sent(OTHER)
        assert False
"""


def kept(result: pytest.RunResult) -> list[Path]:
    return [Path(line) for line in result.outlines if line.endswith((".pcapng", ".json"))]


@pytest.mark.parametrize(
    ("option", "tests"), [("never", []), ("failed", ["bad"]), ("always", ["good", "bad"])]
)
def test_frames_and_counters_are_kept(run: Suite, option: str, tests: list[str]) -> None:
    result = run(KEPT, f"--vnet-keep={option}", "-rA")
    result.assert_outcomes(passed=1, failed=1)
    files = [(path.parent.name, path.name) for path in kept(result)]
    names = ["vnet.pcapng", "vnet-counters.json"]
    assert sorted(files) == sorted((f"test_{test}0", name) for test in tests for name in names)


def test_what_is_kept_tells_what_passed(run: Suite, tmp_path: Path) -> None:
    frames, counters = kept(run(KEPT, "-k", "bad", f"--junitxml={tmp_path / 'junit.xml'}"))
    assert (tmp_path / "junit.xml").read_text().count('<property name="vnet_kept"') == 2
    seen = list(read_frames(frames))
    ways = ["wire:in0", "wire:in0", "vnet:tx1", "vnet:rx", "vnet:rx", "wire:out1"]
    assert [(frame.interface_name or "").rstrip("0123" if i in {3, 4} else "") for i, frame in
            enumerate(seen)] == ways  # fmt: skip
    assert all(frame.hash_value for frame in seen if "rx" in (frame.interface_name or ""))
    assert [frame.queue is None for frame in seen] == [way.startswith("wire") for way in ways]
    document = json.loads(counters.read_text())
    assert document["moved"]["rx_packets"] == 2
    assert document["device"]["steering"]["mode"] == "rss"


def test_counters_are_kept_of_devices_without_a_script(run: Suite) -> None:
    body = """
    async def test_bad(vnet_device, vnet_device_factory):
        await vnet_device_factory(port="pair", queues=1)
        assert False
    """
    one, two = kept(run(body))
    assert (one.name, two.name) == ("device-counters.json", "device1-counters.json")
    assert len(json.loads(two.read_text())["device"]["queues"]) == 1


def test_what_cannot_be_kept_does_not_hide_the_failure(run: Suite) -> None:
    body = """
    async def test_bad(vnet, tmp_path):
        tmp_path.rmdir()
        tmp_path.write_text("in the way")
        assert False, "the failure itself"
    """
    result = run(body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the failure itself*", "not kept: *"])
