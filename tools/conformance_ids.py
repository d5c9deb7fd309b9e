# SPDX-License-Identifier: MIT
"""Write src/pyvnet/conformance/ids.tsv: id, level, section and title of every requirement.

The conformance report is read by people who have the package and not the
documents; they say "see docs/requirements.md" in the words of that document.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import spec_coverage  # noqa: E402 (a script of the checkout)

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT = ROOT / "src/pyvnet/conformance/ids.tsv"
DECISION = "DECISION"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield (id, level, section, title); a decision's title is the gap it fills."""
    documents = {"requirements.md", "decisions.md"}
    known = {
        row.id: row for row in spec_coverage.known_rows().values() if row.document in documents
    }
    for document in sorted(documents, reverse=True):
        for line in (ROOT / "docs" / document).read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if not line.startswith("| ") or cells[0] not in known:
                continue
            if known[cells[0]].level:
                yield cells[0], cells[-1], cells[1], cells[2]
            else:
                yield cells[0], DECISION, "", cells[1]


def text() -> str:
    """Return the contents of the table."""
    return "".join("\t".join(row) + "\n" for row in rows())


def main() -> int:
    """Write the table, or with --check compare it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is out of date")
    if not parser.parse_args().check:
        OUTPUT.write_text(text())
        return 0
    if OUTPUT.read_text() == text():
        return 0
    print(f"{OUTPUT.relative_to(ROOT)} is out of date: make gen", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
