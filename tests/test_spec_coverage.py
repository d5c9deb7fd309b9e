# SPDX-License-Identifier: MIT
"""Every id we answer for is kept by a test or has a reason, and the document says so."""

from __future__ import annotations

import re

import pytest

from tools import spec_coverage

pytestmark = pytest.mark.plain_build("tests are collected and documents read")


@pytest.fixture(scope="module")
def coverage() -> spec_coverage.Coverage:
    return spec_coverage.collect()


def test_every_id_has_one_answer(coverage: spec_coverage.Coverage) -> None:
    """No id unmapped, none unknown, none twice; no MUST of an offered feature waits for later."""
    assert not coverage.problems, "\n".join(coverage.problems)


def test_document_is_up_to_date(coverage: spec_coverage.Coverage) -> None:
    current = spec_coverage.OUTPUT.read_text() == spec_coverage.render(coverage)
    assert current, "run make coverage-doc and commit the document"


def test_offered_features_are_classified(coverage: spec_coverage.Coverage) -> None:
    """A feature without a single MUST to its name would never be held to anything."""
    without = {"MAC", "STATUS", "CTRL_GUEST_OFFLOADS", "CSUM", "HOST_GSO"}
    assert coverage.offered - set(coverage.feature.values()) == without


def test_documents_cite_known_ids_only() -> None:
    known = set(spec_coverage.known_rows())
    pattern = re.compile(r"\b(?:(?:VIO|NET|OUR|VHU)-[A-Z]+-\d\d|U-\d\d|PF-[A-H]-\d\d)\b")
    for document in (*spec_coverage.ROOT.glob("docs/*.md"), *spec_coverage.ROOT.glob("*.md")):
        unknown = set(pattern.findall(document.read_text())) - known
        assert not unknown, document.name
