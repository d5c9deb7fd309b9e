# SPDX-License-Identifier: MIT
"""`pyvnet caps`: complete, one JSON document, every no with its reason and its cure."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.daemon.commands import caps
from pyvnet.netdev import host, probe
from pyvnet.netdev.netns import NetNamespace
from pyvnet.offload import bpf_call
from pyvnet.spec.features import Feature, feature_names
from tests.daemon.serving import environment, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NINE = ["ipv4", "tcpv4", "udpv4", "ipv6", "tcpv6", "udpv6", "ip_ex", "tcp_ex", "udp_ex"]
COMMAND = [sys.executable, "-m", "pyvnet", "caps"]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = subprocess.run([*COMMAND, "--json"], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def findings(tree: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every answer of the report, by its path."""
    if isinstance(tree, dict):
        if "available" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from findings(value, f"{path}/{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from findings(value, f"{path}/{index}")


def test_the_document_names_its_schema(report: dict[str, Any]) -> None:
    assert report["schema"] == "pyvnet/1"
    assert report.keys() == {"schema", "version", "host", "engine", "device"}


def test_every_no_has_a_reason_and_a_cure(report: dict[str, Any]) -> None:
    answers = dict(findings(report))
    assert len(answers) > 30
    for path, answer in answers.items():
        if answer["available"]:
            assert set(answer) == {"available"}, path
        else:
            assert answer["reason"], path
            assert answer["cure"], path


def test_the_host_is_described(report: dict[str, Any]) -> None:
    described = report["host"]
    assert described["kernel"]["release"] == os.uname().release
    assert set(described["capabilities"]) >= {"cap_net_admin", "cap_bpf", "cap_perfmon"}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert described["limits"]["nofile"] == {"soft": soft, "hard": hard}
    assert set(described["limits"]["memlock"]) == {"soft", "hard"}
    assert "available" in described["bpf"]["load_steering_program"]


def test_what_the_engine_uses(report: dict[str, Any]) -> None:
    described = report["engine"]
    assert (described["io"], described["poll_us"]) == ("auto", 50)
    kernels = described["hash_kernels"]
    assert {kernels[name]["available"] for name in ("tables", described["hash_kernel"])} == {True}
    # The fastest of those this CPU can run, which come in that order.
    assert described["hash_kernel"] == next(name for name in kernels if kernels[name]["available"])
    assert "available" in described["io_uring"]


def test_what_the_environment_asks_of_the_engine_is_told() -> None:
    values = {"PYVNET_HASH": "tables", "PYVNET_POLL_US": "7", "PYVNET_IO": "plain"}
    done = run("caps", "--json", env=environment(**values))
    engine = json.loads(done.stdout)["engine"]
    assert (engine["io"], engine["poll_us"], engine["hash_kernel"]) == ("plain", 7, "tables")


@pytest.mark.needs_root
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_memory_that_may_not_be_locked_is_why_there_is_no_io_uring(limit: int) -> None:
    """Nothing of the ring may be locked, or the ring but not what frames go through."""
    script = (
        "import ctypes, os, resource, sys;"
        "assert not ctypes.CDLL(None).prctl(24, 14, 0, 0, 0);"  # no CAP_IPC_LOCK from now on
        f"resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}));"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, *COMMAND, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)["engine"]["io_uring"]
    step = "bounce pages cannot be registered" if limit else "io_uring_setup() is refused"
    assert found == {
        "available": False,
        "reason": f"io_uring is not to be had: {step}: Cannot allocate memory",
        "cure": "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a systemd unit)",
    }


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_taps_are_tried_for_real(report: dict[str, Any]) -> None:
    tap = report["host"]["tap"]
    assert {"tap", "no_pi", "vnet_hdr", "multi_queue"} <= set(tap["flags"])
    yes = {"available": True}
    assert all(tap[name] == yes for name in ("device", "create", "private_tap", "multi_queue"))
    assert tap["header_sizes"] == {"10": yes, "12": yes, "20": yes}
    assert set(tap["offloads"]) >= {"csum", "tso4", "tso6", "tso_ecn", "ufo", "uso4", "uso6"}
    assert tap["offloads"]["csum"] == tap["offloads"]["tso4"] == yes
    assert tap["steering_program"] == yes
    assert "available" in tap["kernel_hash"]


@pytest.mark.needs_root
@pytest.mark.needs_netns
def test_it_makes_no_interface_where_it_runs() -> None:
    def index_of_new(name: str) -> int:
        namespace.run(["ip", "link", "add", name, "type", "bridge"])
        return namespace.call(lambda: socket.if_nametoindex(name))

    # A namespace never gives an index twice, so one made in between would leave a gap.
    with NetNamespace() as namespace:
        first = index_of_new("first")
        namespace.run([*COMMAND, "--json"], stdout=subprocess.DEVNULL)
        assert index_of_new("last") == first + 1


def test_what_the_device_offers(report: dict[str, Any]) -> None:
    device = report["device"]
    offered = {entry["name"]: entry["bit"] for entry in device["features"]}
    assert {"rss": 60, "hash_report": 57, "version_1": 32, "ctrl_vq": 17}.items() <= offered.items()
    others = {entry["name"] for entry in device["not_offered"]}
    assert not others & set(offered)
    assert others | set(offered) == set(feature_names(sum(Feature)))
    assert [entry["name"] for entry in device["hash_types"]] == NINE
    assert [entry["bit"] for entry in device["hash_types"]] == list(range(9))
    limits = ("max_key_size", "max_table_length", "max_queue_pairs", "max_queue_size")
    assert [device[name] for name in limits] == [40, 128, 256, 1024]
    assert device["header_sizes"] == [12, 20]


def test_the_limits_are_the_engines(report: dict[str, Any]) -> None:
    from pyvnet._native import lib

    assert report["device"]["max_queue_pairs"] == lib.VNET_MAX_PAIRS
    assert report["device"]["max_queue_size"] <= lib.VNET_MAX_QUEUE_SIZE


def test_steering_owners(report: dict[str, Any]) -> None:
    steering = report["device"]["steering"]
    available = [name for name, answer in steering.items() if answer["available"]]
    assert list(steering) == ["kernel-auto", "software", "ebpf", "kernel-hash", "user-program"]
    assert {"kernel-auto", "software"} <= set(available)
    loads = report["host"]["bpf"]["load_steering_program"]["available"]
    tried = report["host"]["tap"].get("steering_program", {"available": False})
    assert steering["ebpf"]["available"] is (loads and tried["available"])
    assert "the device hashes" in steering["kernel-hash"]["cure"]  # no released kernel has it


def test_text_says_the_same_in_aligned_groups(report: dict[str, Any]) -> None:
    done = subprocess.run(COMMAND, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"pyvnet {report['version']}"
    titles = [line for line in lines if line and not line.startswith(" ")][1:]
    assert titles == [
        *(f"host: {name}" for name in report["host"]),
        "engine",
        "device",
        "device: steering owners",
    ]
    for words in (["rss(60)"], ["max_key_size", "40"], ["software", "yes"]):
        assert any(set(words) <= set(line.split()) for line in lines), words
    flowing = " ".join(done.stdout.split())
    told = {"host": report["host"], "engine": report["engine"]}
    for answer in (answer for _, answer in findings(told) if not answer["available"]):
        assert f" no: {answer['reason']} → {' '.join(answer['cure'].split())}" in flowing
    assert max(map(len, lines)) <= 120


# --- where the host says no -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("import sys; sys.exit('broken at last')", "the probe ended early: broken at last"),
        ("raise SystemExit(3)", "the probe ended early: exit status 3"),
    ],
)
def test_a_probe_that_dies_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, reason: str
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!{sys.executable}\n{outcome}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    assert probe.probe_tap()["device"]["reason"] == reason


def test_a_probe_that_cannot_start_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert probe.probe_tap()["device"]["reason"] == "No such file or directory"


def test_a_report_full_of_refusals_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setattr(host, "CAPABILITIES", dict.fromkeys(host.CAPABILITIES, 63))
    monkeypatch.setattr(bpf_call, "_NUMBERS", {})
    report = caps.make_report()
    assert not report["host"]["tap"]["create"]["available"]
    refusal = report["host"]["bpf"]["load_steering_program"]
    assert "Function not implemented" in refusal["reason"]
    assert report["device"]["steering"]["ebpf"] == refusal
    lines = list(caps._lines(report))
    assert any(line.endswith("  no: CAP_NET_ADMIN is missing") for line in lines)
