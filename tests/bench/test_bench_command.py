# SPDX-License-Identifier: MIT
"""`pyvnet bench` as users run it, its processes, and the record made from a run."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.lib.main import chosen, rows, run
from bench.lib.process import BenchError, Process
from bench.lib.record import markdown, read
from bench.lib.row import Figure, Row, Variant
from pyvnet.errors import UsageError
from tests.daemon import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs/performance.json"
NOT_GIVEN = dict.fromkeys(("rows", "list", "plot", "record", "replay"))
OPTIONS: dict[str, object] = NOT_GIVEN | {"quick": True, "rounds": 1, "json": True}


@contextmanager
def one(_: Room) -> Iterator[Measure]:
    yield lambda: {"mpps": 1.0}


@contextmanager
def fails(room: Room) -> Iterator[Measure]:
    room.start(["sh", "-c", "echo out of order >&2; exit 1"], private=False).wait()
    yield dict


def a_row(number: int = 1, setup: object = one) -> Row:
    variant = Variant("pyvnet", setup, ours=True)  # type: ignore[arg-type]
    return Row(number, "how many?", "what you get", (Figure("mpps", "Mpps"),), (variant,))


def test_every_row_of_the_checkout_is_sound() -> None:
    every = rows()
    assert [row.number for row in every] == sorted({row.number for row in every})
    assert all(row.question and row.meaning and row.variants for row in every)


def test_rows_are_chosen_by_number() -> None:
    every = [a_row(number) for number in (1, 2, 3, 5)]
    assert [row.number for row in chosen(every, "1,3, 5")] == [1, 3, 5]
    assert [row.number for row in chosen(every, "1-3")] == [1, 2, 3]
    assert chosen(every, None) == every


@pytest.mark.parametrize("words", ["99999", "one", "1-", "", "1-4"])
def test_rows_that_are_not_there_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="--list shows them"):
        chosen([a_row(number) for number in (1, 2, 4)], words)


def test_wrong_rows_are_wrong_usage() -> None:
    answer = serving.run("bench", "--rows", "9999")
    assert answer.returncode == 2
    assert "--list shows them" in answer.stderr


def test_the_questions_are_listed() -> None:
    answer = serving.run("bench", "--list", "--json")
    assert answer.returncode == 0, answer.stderr
    assert [row["row"] for row in json.loads(answer.stdout)] == [row.number for row in rows()]


def test_without_a_checkout_it_says_where_to_find_one(tmp_path: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__", "*.c")
    shutil.copytree(ROOT / "src/pyvnet", tmp_path / "site/pyvnet", ignore=unwanted)
    environment = serving.environment(PYTHONPATH=str(tmp_path / "site"))
    answer = serving.run("bench", "--list", env=environment, cwd=tmp_path)
    assert answer.returncode == 1
    assert "make bench" in answer.stderr


def test_a_run_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Namespace(**OPTIONS), [a_row()]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"kernel", "cpu", "commit", "load", "packages", "mitigations"} <= set(
        document["machine"]
    )
    assert document["rows"][0]["variants"][0]["rounds"] == [{"mpps": 1.0}]


def test_only_our_own_failure_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Namespace(**OPTIONS), [a_row(setup=fails)]) == 1
    assert "pyvnet bench: row 1: pyvnet was not measured: sh failed" in capsys.readouterr().err


@pytest.mark.may_leak("matplotlib keeps the fonts it found open")
def test_a_run_can_be_recorded_drawn_and_told_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "performance.json"
    run(Namespace(**OPTIONS | {"record": record}), [a_row()])
    told = json.loads(capsys.readouterr().out)
    assert json.loads(record.read_text()) == told
    assert "| **pyvnet** | 1 | 1 – 1 | 1 |" in record.with_suffix(".md").read_text()
    assert record.with_suffix(".svg").stat().st_size > 1000
    picture = tmp_path / "again.png"
    run(Namespace(**OPTIONS | {"replay": record, "plot": picture}), [a_row()])
    assert json.loads(capsys.readouterr().out) == told
    assert picture.stat().st_size > 1000


@pytest.mark.may_leak("matplotlib keeps the fonts it found open")
def test_rows_asked_for_by_number_leave_the_rest_of_a_record_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "performance.json"
    every = [a_row(1), a_row(2), a_row(3)]
    run(Namespace(**OPTIONS | {"record": record}), every)
    before = json.loads(record.read_text())
    run(Namespace(**OPTIONS | {"record": record, "rows": "2", "rounds": 2}), every)
    capsys.readouterr()
    after = json.loads(record.read_text())
    assert after["machine"] == before["machine"]
    assert [after["rows"][at] for at in (0, 2)] == [before["rows"][at] for at in (0, 2)]
    again = after["rows"][1]
    assert again["variants"][0]["rounds"] == [{"mpps": 1.0}] * 2
    assert again["machine"]["commit"] == before["machine"]["commit"]
    told = record.with_suffix(".md").read_text()
    assert told.count("Of a run of its own") == 1
    run(Namespace(**OPTIONS | {"replay": record, "json": False}), every)
    said = capsys.readouterr().out  # the minute may have changed in between
    assert sum(map(said.count, {again["machine"]["date"], before["machine"]["date"]})) == 2


def test_a_record_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    record = tmp_path / "performance.json"
    record.write_text("{}")
    with pytest.raises(UsageError, match="not a record"):
        run(Namespace(**OPTIONS | {"record": record, "rows": "1"}), [a_row()])
    assert record.read_text() == "{}"


def test_the_document_is_what_the_record_says() -> None:
    """No figure of docs/performance.md is written by hand."""
    told = RECORD.with_suffix(".md")
    assert told.exists() == RECORD.exists()
    if RECORD.exists():
        assert told.read_text() == markdown(read(RECORD), RECORD.stem)


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_a_question_is_answered() -> None:
    subprocess.run(["make", "-s", "build/bench/wakeups"], cwd=ROOT, check=True)
    words = ("bench", "--quick", "--rows", "5", "--rounds", "1", "--json")
    answer = serving.run(*words, timeout=4 * serving.DEADLINE)
    assert answer.returncode == 0, answer.stderr
    (row,) = json.loads(answer.stdout)["rows"]
    for variant in row["variants"]:
        assert variant["rounds"], answer.stderr
        assert variant["summary"], answer.stderr
    assert {goal["why"] for goal in row["goals"]} == {None}


# Processes.


def test_a_program_answers_with_one_json_object() -> None:
    with Process(["echo", '{"mpps": 1.5}']) as process:
        assert process.result() == {"mpps": 1.5}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo '{}'; echo '{}'", "one JSON object"),
        ("echo load the module >&2; exit 1", "status 1: load the module"),
    ],
)
def test_anything_else_is_an_error(script: str, said: str) -> None:
    with Process(["sh", "-c", script]) as process, pytest.raises(BenchError, match=said):
        process.result()


def test_a_process_is_waited_for_until_it_speaks() -> None:
    with Process(["sh", "-c", "echo ready >&2; exec sleep 1000"]) as process:
        process.until(r"^ready$")
        with pytest.raises(BenchError, match="did not say"):
            process.until("never", timeout=0.1)
    with Process(["true"]) as process, pytest.raises(BenchError, match="ended without"):
        process.until("never")


def test_a_process_ends_with_all_it_started() -> None:
    script = "sleep 1000 & echo child $!; wait"
    with Process(["sh", "-c", script]) as process:
        child = os.pidfd_open(int(process.until(r"child (\d+)")[1]))
    try:
        # A pidfd is readable when its process has ended.
        assert select.select([child], [], [], 10)[0]
    finally:
        os.close(child)


INTERRUPTED = """
import sys
from argparse import Namespace
from contextlib import contextmanager
from bench.lib.main import run
from bench.lib.row import Figure, Row, Variant

@contextmanager
def waits(room):
    sleeper = room.start(["sleep", "1000"], private=False)
    print(sleeper.pid, room.tmp, flush=True)
    yield lambda: {"mpps": len(sleeper.wait(1000))}

row = Row(1, "?", "!", (Figure("mpps", "Mpps"),), (Variant("pyvnet", waits, ours=True),))
try:
    run(Namespace(**%r), [row])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(number: signal.Signals) -> None:
    command = [sys.executable, "-c", INTERRUPTED % OPTIONS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout
        pid, folder = bench.stdout.readline().split()
        assert Path(folder).is_dir()
        bench.send_signal(number)
        assert bench.wait(20) == 130
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
