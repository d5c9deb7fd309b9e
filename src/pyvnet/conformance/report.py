# SPDX-License-Identifier: MIT
"""What came out, for people (a table), for programs (JSON) and for build servers (JUnit XML)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from pyvnet.conformance import ids
from pyvnet.conformance.case import Verdict
from pyvnet.conformance.trial import Facts
from pyvnet.spec.features import feature_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet.conformance.case import Case
    from pyvnet.conformance.run import Report, Result

SCHEMA: Final = "pyvnet/1"

_WORDS: Final = {
    Verdict.PASSED: "passed",
    Verdict.FAILED: "FAILED",
    Verdict.INCONCLUSIVE: "unclear",
    Verdict.NOT_APPLICABLE: "n/a",
}
# What XML 1.0 has no room for, whatever a back-end makes us print.
_NOT_XML: Final = {code: "?" for code in range(32) if chr(code) not in "\t\n"} | dict.fromkeys(
    (*range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "?"
)


def cited(case: Case) -> str:
    """Its ids, each with its level: ``NET-RSS-02 (MUST)``."""
    return ", ".join(f"{row} ({ids.table()[row].level})" for row in case.ids)


# --- text -------------------------------------------------------------------------------


def lines(result: Result) -> Iterator[str]:
    """One case: verdict, level, name, ids; why, and what was seen."""
    case = result.case
    yield f"{_WORDS[result.verdict]:<8} {case.level:<8} {case.name}  [{cited(case)}]"
    if result.reason:
        yield f"{'':17} {_one_line(result.reason)}"
    if result.verdict is not Verdict.PASSED:
        if result.verdict is not Verdict.NOT_APPLICABLE:
            yield f"{'':17} looked at: {case.summary}"
        yield from (f"{'':17} | {_one_line(text)}" for text in result.evidence)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()


def summary(report: Report) -> Iterator[str]:
    """What was judged, and how it came out; the cases nobody tried in one line."""
    unclear = [r for r in report.results if r.verdict is Verdict.INCONCLUSIVE and not r.tried]
    for reason, number in Counter(result.reason for result in unclear).items():
        yield f"{_WORDS[Verdict.INCONCLUSIVE]:<8} and {number} more: {_one_line(reason)}"
    yield ""
    yield f"{report.target}: {_offer(report)}"
    yield f"wire: {report.wire or 'none, so nothing was sent or received behind the device'}"
    counts = ", ".join(f"{report.count(verdict)} {verdict.value}" for verdict in Verdict)
    yield f"{len(report.results)} cases: {counts}"
    if report.interrupted:
        yield "interrupted: cases that had not ended are inconclusive"
    broken = [result.case.name for result in report.results if result.broken]
    if broken:
        yield f"a MUST is broken in {len(broken)}: {', '.join(broken)}"
    if not report.judged and report.exit_status:
        yield "nothing could be judged"
    elif report.silence:
        yield "nobody answers any more"


def _offer(report: Report) -> str:
    facts = report.facts
    if facts is None:
        return report.problem
    return (
        f"{facts.pairs} queue pairs, control queue {'served' if report.control else 'not served'}, "
        f"offers {', '.join(feature_names(facts.features))}"
    )


def _needs(case: Case) -> list[str]:
    others = ("wire", "control", "operator", "hostile")
    return [*feature_names(case.needs), *(word for word in others if getattr(case, word))]


def listing(cases: Sequence[Case]) -> Iterator[str]:
    """The cases there are, by group."""
    group = ""
    for case in cases:
        if case.group != group:
            group = case.group
            yield f"{group}:"
        needs = ", ".join(_needs(case))
        yield f"  {case.name}: {case.summary}"
        yield f"      {cited(case)}" + (f"; needs {needs}" if needs else "")


# --- JSON -------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """Plain JSON types."""
    facts = report.facts or Facts()
    return {
        "schema": SCHEMA,
        "target": report.target,
        "wire": report.wire or None,
        "problem": report.problem or None,
        "silence": report.silence or None,
        "features": feature_names(facts.features),
        "protocol_features": [bit.name.lower() for bit in facts.protocol if bit.name],
        "pairs": facts.pairs,
        "control_queue": report.control,
        "summary": {verdict.value: report.count(verdict) for verdict in Verdict},
        "must_broken": [result.case.name for result in report.results if result.broken],
        "interrupted": report.interrupted,
        "exit_status": report.exit_status,
        "cases": [_judged(result) for result in report.results],
    }


def listing_as_json(cases: Sequence[Case]) -> dict[str, Any]:
    """The cases there are, in plain JSON types."""
    return {"schema": SCHEMA, "cases": [_case(case) | {"needs": _needs(case)} for case in cases]}


def _case(case: Case) -> dict[str, Any]:
    rows = [ids.table()[row] for row in case.ids]
    return {
        "name": case.name,
        "group": case.group,
        "summary": case.summary,
        "level": case.level,
        "ids": [{"id": row.id, "level": row.level, "title": row.title} for row in rows],
    }


def _judged(result: Result) -> dict[str, Any]:
    return _case(result.case) | {
        "verdict": result.verdict.value,
        "reason": result.reason or None,
        "evidence": list(result.evidence),
        "seconds": round(result.seconds, 6),
        "tried": result.tried,
    }


# --- JUnit ------------------------------------------------------------------------------


def as_junit(report: Report) -> str:
    """A ``testsuite`` as JUnit's consumers read it.

    ``failure`` is a failed case, its type the level; ``error`` an inconclusive
    one, since nobody knows; ``skipped`` one that does not apply.
    """
    suite = ET.Element(
        "testsuite",
        name=_xml(f"pyvnet conformance {report.target}"),
        tests=str(len(report.results)),
        failures=str(report.count(Verdict.FAILED)),
        errors=str(report.count(Verdict.INCONCLUSIVE)),
        skipped=str(report.count(Verdict.NOT_APPLICABLE)),
        time=f"{sum(result.seconds for result in report.results):.3f}",
    )
    for result in report.results:
        _testcase(suite, result)
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _testcase(suite: ET.Element, result: Result) -> None:
    case = result.case
    element = ET.SubElement(
        suite,
        "testcase",
        classname=f"conformance.{case.group}",
        name=case.name,
        time=f"{result.seconds:.3f}",
    )
    properties = ET.SubElement(element, "properties")
    for row in case.ids:
        ET.SubElement(properties, "property", name="requirement", value=row)
    ET.SubElement(properties, "property", name="level", value=case.level)
    message = _xml(result.reason)
    match result.verdict:
        case Verdict.FAILED:
            kind = ET.SubElement(element, "failure", message=message, type=case.level)
        case Verdict.INCONCLUSIVE:
            kind = ET.SubElement(element, "error", message=message, type="inconclusive")
        case Verdict.NOT_APPLICABLE:
            kind = ET.SubElement(element, "skipped", message=message)
        case _:
            return
    kind.text = _xml("\n".join((f"{cited(case)}: {case.summary}", *result.evidence)))


def _xml(text: str) -> str:
    return text.translate(_NOT_XML)
