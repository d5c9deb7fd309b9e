# SPDX-License-Identifier: MIT
"""Cases of level MUST that no mutant fells, and why there is none."""

from __future__ import annotations

from typing import Final

UNSEEN: Final[dict[str, str]] = {
    "protocol-features-come-before-features": (
        "a back-end that keeps protocol features until SET_FEATURES has none for our front-end,"
        " which asks before: nothing that takes one applies then, this case among it"
    ),
    "nobody-vouches-for-a-checksum-the-driver-did-not-ask-for": (
        "no fault sets DATA_VALID on the way to the wire yet; a header passed on unjudged is"
        " all zeros in this case"
    ),
    "the-header-length-is-not-relied-on": (
        "hdr_len is worked out anew from the frame, so there is no line that could rely on it"
    ),
    "an-indirect-table-may-lie-anywhere": (
        "an entry across two regions is read in another way than all others; no fault spoils that"
    ),
    "entries-of-an-indirect-table-are-chained-by-next": (
        "no fault reads the entries of an indirect table in the order they lie yet"
    ),
}
