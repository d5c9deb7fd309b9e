# SPDX-License-Identifier: MIT
"""What is true of every case there is, whatever it is run against."""

from __future__ import annotations

import pytest

from pyvnet.conformance import ids
from pyvnet.conformance.cases import everything, select
from pyvnet.errors import UsageError
from tools import conformance_ids


def test_the_table_of_ids_is_that_of_the_documents() -> None:
    assert conformance_ids.OUTPUT.read_text() == conformance_ids.text()
    assert ids.table()["NET-RSS-02"].level == "MUST"
    assert ids.table()["U-10"].level == "DECISION"


def test_the_strongest_id_decides() -> None:
    assert ids.strongest(("U-10", "NET-RSS-02", "OUR-CVQ-05")) == "MUST"
    assert ids.strongest(("VIO-STAT-02", "U-10")) == "SHOULD"
    assert ids.strongest(("U-10",)) == "DECISION"


def test_names_tell_cases_apart() -> None:
    names = [case.name for case in everything()]
    assert len(set(names)) == len(names) > 3


def test_cases_are_chosen_by_name_group_and_id() -> None:
    (one,) = select(["version-1-is-offered"])
    assert one.ids == ("VIO-FEAT-05",)
    assert one in select(["vio-feat-05"])
    assert one in select(["initialization"])
    assert set(select(["initialization", "VIO-FEAT-05"])) == set(select(["initialization"]))
    with pytest.raises(UsageError, match="'version'"):
        select(["version"])
