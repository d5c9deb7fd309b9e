# SPDX-License-Identifier: MIT
"""Guards of the control path, each taken out of a copy of the package: a named test must fail.

A row is a fragment of a file of ``pyvnet.device``, what it becomes, and the
test that stands on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGE: Final = ROOT / "src/pyvnet"

pytestmark = pytest.mark.plain_build("what is spoilt is Python, run by processes of their own")
RSS: Final = "tests/conformance/test_control_rss.py::"
MQ: Final = "tests/conformance/test_control_multiqueue.py::"
HASH: Final = "tests/conformance/test_control_hash.py::"
FRAMING: Final = "tests/conformance/test_control_framing.py::"
LIFE: Final = "tests/device/test_lifecycle.py::"
DEVICE: Final = "tests/device/test_device.py::"
QUEUE: Final = "tests/device/test_queue.py::"
RINGS: Final = "tests/device/test_rings.py::"
FRONTEND: Final = "tests/device/test_frontend.py::"
MACS: Final = "tests/conformance/test_control_mac.py::"


class Mutant(NamedTuple):
    """A guard taken out, and who misses it."""

    file: str
    fragment: str
    becomes: str
    test: str


MUTANTS: Final = (
    Mutant(
        "steering.py",
        'check_int(f"indirection table entry {position}", queue, 0, max_pairs - 1)',
        "pass",
        RSS + "test_queue_beyond_the_device",
    ),
    Mutant(
        "steering.py",
        'check_int("unclassified queue", self.unclassified_queue, 0, max_pairs - 1)',
        "pass",
        RSS + "test_queue_beyond_the_device",
    ),
    Mutant(
        "steering.py",
        "if not 1 <= length <= MAX_TABLE_LENGTH or length & (length - 1):",
        "if not 1 <= length <= MAX_TABLE_LENGTH:",
        RSS + "test_table_length_that_is_not",
    ),
    Mutant(
        "steering.py",
        "if not 1 <= length <= MAX_TABLE_LENGTH or length & (length - 1):",
        "if length & (length - 1):",
        RSS + "test_table_length_that_is_not",
    ),
    Mutant(
        "steering.py",
        "    steering.check_within(rules.max_pairs)\n",
        "",
        RSS + "test_queue_beyond_the_device",
    ),
    Mutant(
        "steering.py",
        "if unknown and not rules.lenient_hash_types:",
        "if False:",
        RSS + "test_unsupported_hash_type",
    ),
    Mutant(
        "steering.py",
        'check_bytes("hash key", self.key, MAX_KEY_SIZE)',
        "pass",
        RSS + "test_key_longer_than_advertised",
    ),
    Mutant(
        "steering.py",
        "if types and not key:",
        "if False:",
        RSS + "test_no_key_is_taken_only_without_types",
    ),
    Mutant(
        "steering.py",
        'check_int("pairs", pairs, 1, rules.max_pairs)',
        "pass",
        MQ + "test_pairs_out_of_range",
    ),
    Mutant(
        "controlq.py",
        "if not situation.rules.features & command.feature:",
        "if False:",
        FRAMING + "test_command_without_its_feature",
    ),
    Mutant(
        "controlq.py",
        "    if writable < ACK_SIZE:",
        "    if writable < 0:",
        FRAMING + "test_without_room_for_the_answer_nothing_is_executed",
    ),
    Mutant(
        "controlq.py",
        "    if len(request) < CTRL_HDR_SIZE:",
        "    if len(request) < 0:",
        FRAMING + "test_without_class_or_command_there_is_no_answer",
    ),
    Mutant(
        "controlq.py",
        'Feature.HASH_REPORT, "steering", configure_hash, (_rss_governs,)',
        'Feature.HASH_REPORT, "steering", configure_hash',
        HASH + "test_rss_alone_governs_while_it_is_the_mode",
    ),
    Mutant(
        "lifecycle.py",
        "if at_dead_end or rung.requires & ~reached:",
        "if rung.requires & ~reached:",
        LIFE + "test_no_rung_is_granted_after_a_dead_end",
    ),
    Mutant(
        "lifecycle.py",
        "if at_dead_end or rung.requires & ~reached:",
        "if at_dead_end:",
        LIFE + "test_driver_ok_is_not_reached_over_refused_features",
    ),
    Mutant(
        "rings.py",
        "if not 0 <= setup.index < self.queue_count:",
        "if False:",
        QUEUE + "test_queue_beyond_the_last_is_ignored_and_counted",
    ),
    Mutant(
        "rxfilter.py",
        "if left < count * MAC_SIZE:",
        "count = min(count, left // MAC_SIZE)\n    if False:",
        MACS + "test_count_that_promises_more_than_follows",
    ),
    Mutant(
        "rxfilter.py",
        "unicast=() if overflow[0] else unicast,",
        "unicast=unicast[: rules.max_macs],",
        MACS + "test_class_that_overflows_is_received_whole",
    ),
    Mutant(
        "rxfilter.py",
        '    check_int("VLAN id", vid, 0, MAX_VLAN)\n    return',
        "    return",
        "tests/conformance/test_control_vlan.py::test_id_beyond_twelve_bits",
    ),
    Mutant(
        "control.py",
        "check_unicast(self.mac)",
        "pass",
        MACS + "test_own_address_that_is_no_station",
    ),
    Mutant(
        "control.py",
        "beyond = mask & ~int(rules.features & GUEST_OFFLOADS)",
        "beyond = 0",
        "tests/conformance/test_control_offloads.py::test_bit_that_was_not_negotiated",
    ),
    Mutant(
        "frontend.py",
        "highest = self._settings.mtu or MAX_MTU",
        "highest = MAX_MTU",
        FRONTEND + "test_mtu_that_cannot_be_kept_is_refused",
    ),
    Mutant(
        "frontend.py",
        "if not self._driver_has(CAN_ANNOUNCE):",
        "if False:",
        "tests/conformance/test_control_announce.py::test_driver_that_cannot_read_the_request_is_not_asked",
    ),
    Mutant(
        "rings.py",
        "if setup.index in {queue.index for queue in state.queues}:",
        "if False:",
        RINGS + "test_ring_that_runs_is_not_started_again",
    ),
    Mutant(
        "rings.py",
        "if not state.status & DeviceStatus.FEATURES_OK:",
        "if False:",
        RINGS + "test_no_ring_starts_before_features_are_negotiated",
    ),
    Mutant(
        "device.py",
        "return self._transition(state, Deactivate(), SetPolicy(self._policy(state)))\n\n"
        "    def control(",
        "return self._transition(state, Deactivate())\n\n    def control(",
        DEVICE + "test_extra_queues_are_gone_after_reset",
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package by symbolic links, but for ``device``, which is a copy to be spoilt."""
    package = tmp_path_factory.mktemp("mutants") / "pyvnet"
    package.mkdir()
    for entry in PACKAGE.iterdir():
        if entry.name not in {"device", "__pycache__"}:
            (package / entry.name).symlink_to(entry)
    shutil.copytree(
        PACKAGE / "device", package / "device", ignore=shutil.ignore_patterns("__pycache__")
    )
    return package


def run(package: Path, *tests: str) -> subprocess.CompletedProcess[bytes]:
    # No line of C is at stake here: another build of it would only take longer.
    plain = os.environ.keys() - {"PYVNET_NATIVE", "LD_PRELOAD", "PYTHONMALLOC"}
    environment = {name: os.environ[name] for name in plain} | {
        "PYTHONPATH": str(package.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--tb=no")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=110, check=False
    )


def test_the_copy_is_as_good_as_the_original(copy: Path) -> None:
    ended = run(copy, *dict.fromkeys(mutant.test for mutant in MUTANTS))
    assert ended.returncode == 0, ended.stdout.decode()


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=[f"{i}-{m.test.rpartition('::')[2]}" for i, m in enumerate(MUTANTS)]
)
def test_without_its_guard_the_test_fails(copy: Path, mutant: Mutant) -> None:
    original = (PACKAGE / "device" / mutant.file).read_text()
    assert original.count(mutant.fragment) == 1, "the guard has moved: bring the table up to date"
    spoilt = copy / "device" / mutant.file
    spoilt.write_text(original.replace(mutant.fragment, mutant.becomes))
    try:
        ended = run(copy, mutant.test)
    finally:
        spoilt.write_text(original)
    # 1: tests ran and failed; anything else is a fault of this harness.
    assert ended.returncode == 1, ended.stdout.decode()
    assert b"failed" in ended.stdout
