# SPDX-License-Identifier: MIT
"""How a run judges, counts and reports, seen with cases made for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pyvnet import Feature
from pyvnet.conformance import report as show
from pyvnet.conformance.builtin import Builtin
from pyvnet.conformance.case import Case, Verdict, case
from pyvnet.conformance.run import Report, Runner, suite
from pyvnet.conformance.trial import complete
from pyvnet.driver import CommandError, DeviceViolation
from pyvnet.driver.errors import RefusedError
from pyvnet.errors import UsageError
from pyvnet.spec.ctrl import Ack
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

WITHIN = 10.0  # a hang guard
FRAME = bytes(build(Ipv4(), udp()))


def made(look: Callable[[Trial], Awaitable[None]], *ids: str, **needs: object) -> Case:
    """A case of the suite that is not in it."""
    options = {"name": "made", "summary": "made for this"} | needs
    return case(*(ids or ("VIO-RST-01",)), **options)(look)  # type: ignore[arg-type]


async def verdict_of(look: Callable[[Trial], Awaitable[None]], **needs: object) -> tuple[str, str]:
    (result,) = await suite(Builtin(), [made(look, **needs)], timeout=WITHIN)
    return result.verdict.value, result.reason


# --- verdicts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (DeviceViolation("used.len is wrong"), "failed", "used.len is wrong"),
        (RefusedError("SET_FEATURES", "it said 1"), "failed", "refused SET_FEATURES: it said 1"),
        (CommandError(4, 1, Ack.ERR), "failed", "ERR to"),
        (TimeoutError("no answer to X"), "failed", "no answer to X"),
        (ConnectionResetError("the back-end is gone"), "failed", "the back-end is gone"),
        (UsageError("4 queue pairs"), "inconclusive", "the case itself broke: UsageError"),
        (KeyError("x"), "inconclusive", "the case itself broke: KeyError"),
    ],
)
async def test_what_a_case_raises_is_its_verdict(
    error: Exception, verdict: str, reason: str
) -> None:
    async def look(_: Trial) -> None:
        raise error

    said = await verdict_of(look)
    assert said[0] == verdict
    assert reason in said[1]


async def test_what_a_case_says_is_its_verdict() -> None:
    async def fine(t: Trial) -> None:
        t.equal(1, 1, "one")
        t.check(t.offered & Feature.VERSION_1, "no VERSION_1")

    async def differs(t: Trial) -> None:
        t.equal(b"\1\2", b"\1\3", "the bytes")

    async def not_owed(t: Trial) -> None:
        t.not_applicable("not here")

    async def unknown(t: Trial) -> None:
        t.inconclusive("too dark")

    assert await verdict_of(fine) == ("passed", "")
    assert await verdict_of(differs) == (
        "failed",
        "the bytes: expected 2 bytes 01 03, seen 2 bytes 01 02",
    )
    assert await verdict_of(not_owed) == ("not-applicable", "not here")
    assert await verdict_of(unknown) == ("inconclusive", "too dark")


async def test_a_case_that_never_ends_is_ended_and_says_what_it_waited_for() -> None:
    async def look(t: Trial) -> None:  # nothing that takes time comes before
        t.doing = "godot"
        await asyncio.Event().wait()

    (result,) = await suite(Builtin(), [made(look)], timeout=0.2)
    assert result.verdict is Verdict.FAILED
    assert result.reason == "not over within 0.2 s, waiting for godot"


async def test_a_step_that_takes_too_long_says_which() -> None:
    async def ready(t: Trial) -> Driver:
        drv = await t.negotiate()
        t._timeout = 0.1  # of the steps that follow; not of getting there
        return drv

    async def receives(t: Trial) -> None:
        await t.receive(await ready(t))

    async def looks_at_the_wire(t: Trial) -> None:
        await ready(t)
        await t.sent()

    async def waits_for_a_change(t: Trial) -> None:
        await t.notified(await ready(t))

    cases = [
        made(look, name=look.__name__) for look in (receives, looks_at_the_wire, waits_for_a_change)
    ]
    results = await suite(Builtin(), cases, timeout=WITHIN)
    words = ("no frame within", "no frame on the wire", "no configuration change")
    for result, said in zip(results, words, strict=True):
        assert result.verdict is Verdict.FAILED
        assert said in result.reason


# --- what applies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        pytest.param({"needs": Feature.STANDBY}, "not offered: standby", id="needs"),
        pytest.param({"hostile": True}, "(--hostile)", id="hostile"),
    ],
)
async def test_what_does_not_apply_is_not_tried(needs: dict[str, object], reason: str) -> None:
    async def look(t: Trial) -> None:
        t.fail("it was tried")

    said = await verdict_of(look, **needs)
    assert said[0] == "not-applicable"
    assert reason in said[1]


async def test_features_that_are_not_offered_make_a_case_not_apply() -> None:
    async def look(t: Trial) -> None:
        await t.negotiate(Feature.HASH_TUNNEL)

    async def too_many(t: Trial) -> None:
        await t.negotiate(pairs=t.pairs + 1)

    assert await verdict_of(look) == ("not-applicable", "not offered: hash_tunnel")
    assert await verdict_of(too_many) == (
        "not-applicable",
        "it takes 5 queue pairs, the device has 4",
    )


async def test_a_control_queue_that_is_said_not_to_be_served() -> None:
    async def look(t: Trial) -> None:
        t.fail("it was tried")

    cases = [made(look, control=True)]
    (result,) = await suite(Builtin(), cases, timeout=WITHIN, control_queue="no")
    assert result.verdict is Verdict.NOT_APPLICABLE


def test_a_choice_is_completed_by_what_it_requires() -> None:
    offered = Feature.VERSION_1 | Feature.CSUM | Feature.HOST_TSO6 | Feature.HOST_ECN
    assert complete(Feature.HOST_ECN, offered) == (
        Feature.HOST_ECN | Feature.HOST_TSO6 | Feature.CSUM
    )
    assert complete(Feature.RSS, offered) == Feature.RSS | Feature.CTRL_VQ


@pytest.mark.parametrize("ids", [(), ("VIO-RST-99",)])
def test_a_case_cites_what_exists(ids: tuple[str, ...]) -> None:
    async def look(_: Trial) -> None:
        """Nothing."""

    with pytest.raises(UsageError, match="ids"):
        case(*ids)(look)


# --- a whole run --------------------------------------------------------------------------


async def test_every_case_has_a_device_of_its_own_and_results_keep_the_order() -> None:
    told: list[str] = []

    async def changes_the_device(t: Trial) -> None:
        drv = await t.negotiate(Feature.CTRL_MAC_ADDR | Feature.MAC)
        t.check(drv.config.mac == t.config.mac or drv.config.mac != b"\2\2\2\2\2\2", "another's")
        await drv.ctrl.mac_addr_set(b"\2\2\2\2\2\2")

    cases = [made(changes_the_device, name=f"made-{i}") for i in range(20)]
    runner = Runner(
        Builtin(), timeout=WITHIN, on_result=lambda result: told.append(result.case.name)
    )
    report = await runner.run(cases)
    names = [case.name for case in cases]
    assert [result.case.name for result in report.results] == names == told
    assert report.count(Verdict.PASSED) == 20
    assert report.exit_status == 0


async def test_what_may_bring_a_back_end_down_comes_last() -> None:
    ran: list[str] = []

    def noting(name: str, **needs: object) -> Case:
        async def look(_: Trial) -> None:
            ran.append(name)

        return made(look, name=name, **needs)

    cases = [noting("rough", hostile=True), noting("plain"), noting("raw", protocol=True)]
    report = await Runner(Builtin(), timeout=WITHIN, hostile=True).run(cases)
    assert ran[-1] == "rough"
    assert [result.case.name for result in report.results] == ["rough", "plain", "raw"]


async def test_the_device_may_be_reached_in_this_process() -> None:
    async def crosses(t: Trial) -> None:
        drv = await t.negotiate()
        await t.inject(FRAME)
        t.equal((await t.receive(drv)).data, FRAME, "the frame")
        t.fail(type(drv.transport).__name__)

    (direct,) = await suite(Builtin(direct=True), [made(crosses)], timeout=WITHIN)
    (over,) = await suite(Builtin(direct=True), [made(crosses, protocol=True)], timeout=WITHIN)
    assert direct.reason == "InProcessTransport"
    assert over.reason == "VhostUserFrontend"


def failing(level: str) -> Case:
    async def look(t: Trial) -> None:
        t.note("seen:\1\x1b[31m\udc80")
        t.fail(f"a {level} \0 is broken <&>")

    return made(look, name=level, level=level)


async def two_broken() -> Report:
    return await Runner(Builtin(), timeout=WITHIN).run([failing("MUST"), failing("SHOULD")])


@pytest.mark.parametrize(
    ("levels", "status"), [(["SHOULD", "DRV", "DECISION"], 0), (["SHOULD", "MUST"], 1)]
)
async def test_only_a_broken_must_is_a_failure(levels: list[str], status: int) -> None:
    report = await Runner(Builtin(), timeout=WITHIN).run([failing(level) for level in levels])
    assert report.count(Verdict.FAILED) == len(levels)
    assert report.exit_status == status


async def test_a_cancelled_run_has_a_report_of_what_was_seen() -> None:
    told: list[str] = []
    hangs = asyncio.Event()

    async def endless(t: Trial) -> None:
        await t.negotiate()
        hangs.set()
        await asyncio.Event().wait()

    async def never(_: Trial) -> None:
        pytest.fail("this case was to be left out")

    async def passes(t: Trial) -> None:
        await t.negotiate()

    looks = {"passes": passes, "endless": endless, "never": never}
    runner = Runner(
        Builtin(),
        timeout=WITHIN,
        concurrency=1,
        on_result=lambda result: told.append(f"{result.case.name} {result.verdict.value}"),
    )
    running = asyncio.ensure_future(runner.run([made(f, name=n) for n, f in looks.items()]))
    await asyncio.wait_for(hangs.wait(), WITHIN)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert runner.report.interrupted
    assert told == ["passes passed", "endless inconclusive", "never inconclusive"]
    assert runner.report.count(Verdict.INCONCLUSIVE) == 2
    assert "interrupted: cases" in "\n".join(show.summary(runner.report))
    assert show.as_json(runner.report)["interrupted"] is True


async def test_what_its_listener_raises_ends_the_run_as_it_is() -> None:
    def gone(_: object) -> None:
        raise BrokenPipeError

    async def passes(_: Trial) -> None:
        """Nothing to look at."""

    with pytest.raises(BrokenPipeError):
        await Runner(Builtin(), timeout=WITHIN, on_result=gone).run([made(passes), made(passes)])


# --- reports --------------------------------------------------------------------------------


async def test_the_table_shows_reason_and_evidence_and_nothing_unprintable() -> None:
    report = await two_broken()
    lines = [line for result in report.results for line in show.lines(result)]
    assert lines[0] == "FAILED   MUST     MUST  [VIO-RST-01 (MUST)]"
    assert any("a MUST   is broken" in line for line in lines)
    assert any("| seen:" in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert "a MUST is broken in 1: MUST" in list(show.summary(report))


async def test_json_has_everything(tmp_path: object) -> None:  # noqa: ARG001
    report = await two_broken()
    told = json.loads(json.dumps(show.as_json(report)))
    assert told["schema"] == "pyvnet/1"
    assert told["must_broken"] == ["MUST"]
    assert told["exit_status"] == 1
    assert (told["pairs"], told["control_queue"]) == (4, True)
    assert {"rss", "version_1"} <= set(told["features"])
    assert "config" in told["protocol_features"]
    first = told["cases"][0]
    assert first["verdict"] == "failed"
    assert first["ids"][0]["id"] == "VIO-RST-01"
    assert "status reads 0" in first["ids"][0]["title"]
    assert first["evidence"] == ["seen:\1\x1b[31m\udc80"]


async def test_junit_is_xml_whatever_a_back_end_says() -> None:
    report = await two_broken()
    text = show.as_junit(report)
    text.encode()
    root = ET.fromstring(text)  # noqa: S314 (our own)
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "2", "0")
    failures = root.findall("testcase/failure")
    assert [failure.get("type") for failure in failures] == ["MUST", "SHOULD"]
    assert "is broken <&>" in (failures[0].get("message") or "")
    assert root.find("testcase/properties/property").get("value") == "VIO-RST-01"  # type: ignore[union-attr]
