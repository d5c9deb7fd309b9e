# SPDX-License-Identifier: MIT
"""Faults of the frame path, compiled into the build with test hooks: `native/src/mutants.h`."""

from __future__ import annotations

from typing import Final

from tests.conformance_suite.mutant import Mutant

HASHES: Final = {
    "addresses-swapped": Mutant(
        ("NET-HASH-05", "NET-HASH-06"),
        "Destination before source: every hash over addresses is another one.",
    ),
    "ports-swapped": Mutant(
        ("NET-HASH-05", "NET-HASH-06"),
        "Destination port before source port: every hash with ports is another one.",
    ),
    "inner-packet-hashed": Mutant(
        ("U-27", "NET-HASH-05"),
        "IPv4 in IPv4 is hashed by the inner addresses, which takes HASH_TUNNEL.",
    ),
    "tag-not-skipped": Mutant(
        ("U-25",), "A tagged frame is no IP packet to it: no hash, the unclassified queue."
    ),
    "ip-options-not-skipped": Mutant(
        ("U-29", "NET-HASH-05"),
        "Ports are read 20 bytes into the IPv4 header, where its options begin.",
    ),
    "fragment-ports": Mutant(
        ("U-23",), "The first fragment is hashed with its ports, and its fellows are not."
    ),
    "extensions-not-skipped": Mutant(
        ("NET-HASH-07",), "Behind extension headers it finds no TCP or UDP."
    ),
    "home-address-ignored": Mutant(
        ("NET-HASH-07",), "The source is hashed where a home address takes its place."
    ),
    "routing-address-ignored": Mutant(
        ("NET-HASH-07",), "The destination is hashed where a routing header has another."
    ),
    "ex-addresses-for-all": Mutant(
        ("NET-HASH-07",), "The home address is hashed under the plain types too."
    ),
    "l3-before-l4": Mutant(
        ("NET-HASH-05",), "IPv4 comes before TCPv4 and UDPv4 in the order of types."
    ),
    "nothing-to-fall-back-to": Mutant(
        ("NET-HASH-08",), "A TCP packet without the TCP type has no hash, though IPv4 is on."
    ),
    "udp-by-tcp-type": Mutant(
        ("NET-HASH-05", "NET-HASH-06"), "UDP is taken for TCP: its type, and its report."
    ),
    "ex-without-extension": Mutant(
        ("U-19", "NET-HASH-06"), "EX types apply to packets without extension headers."
    ),
    "plain-before-ex": Mutant(("NET-HASH-07", "U-58"), "With both on, TCPv6 comes before TCP_EX."),
    "report-is-type-bit": Mutant(
        ("NET-REP-01", "NET-REP-03"), "The report is the bit's number and not one more."
    ),
    "report-plain-for-ex": Mutant(
        ("NET-REP-01", "NET-REP-03"), "EX types are reported as the plain ones."
    ),
    "report-l3-only": Mutant(
        ("NET-REP-01", "NET-REP-03"), "TCP and UDP are reported as IPv4 and IPv6."
    ),
    "report-without-hash": Mutant(("NET-REP-02",), "A frame without hash is reported as IPv4."),
    "hash-not-shown": Mutant(
        ("NET-REP-01",), "The hash is used to steer, and 0 stands in the header."
    ),
    "hash-big-endian": Mutant(("NET-REP-01", "U-30"), "hash_value is stored in network order."),
}

STEERING: Final = {
    "table-modulo-queues": Mutant(
        ("NET-RSS-02",), "The queue is the hash modulo the number of queues; no table."
    ),
    "table-upper-bits": Mutant(
        ("NET-RSS-02",), "The table is indexed by the upper half of the hash."
    ),
    "unclassified-by-table": Mutant(
        ("NET-RSS-01",), "A frame without hash goes where the table's first entry says."
    ),
    "automatic-beyond-pairs": Mutant(
        ("NET-MQ-03",), "Automatic steering uses the queue behind the last of several in force."
    ),
    "queue-choice-mixed-up": Mutant(
        ("NET-RSS-03", "NET-MQ-07"),
        "Where a queue is stopped RSS chooses another one, and automatic steering does not.",
    ),
}

RECEIVED: Final = {
    "num-buffers-zero": Mutant(("NET-RX-01",), "num_buffers is 0 in every header."),
    "num-buffers-one": Mutant(
        ("NET-RX-01",), "num_buffers is 1 however many buffers a frame took."
    ),
    "header-padding-dirty": Mutant(("U-03",), "The padding behind hash_report holds old bytes."),
    "data-valid-always": Mutant(
        ("NET-RX-05", "NET-RX-15"), "DATA_VALID is set on every frame, asked for or not."
    ),
    "used-len-without-header": Mutant(
        ("VIO-SPL-12", "NET-RX-03"), "used.len counts the frame and not its header."
    ),
    "used-len-of-buffer": Mutant(
        ("VIO-SPL-12", "NET-RX-02"),
        "used.len of the last buffer of several is what it holds, not what was written.",
    ),
    "buffers-not-full": Mutant(
        ("NET-RX-02",), "A frame goes on in the next buffer before this one is full."
    ),
    "buffers-lost": Mutant(
        ("OUR-RX-20",), "Buffers that did not suffice for a frame come back empty."
    ),
    "frame-cut": Mutant(
        ("NET-RX-01", "OUR-RX-20"), "A frame too long for its one buffer is cut to fit."
    ),
    "csum-not-completed": Mutant(
        ("NET-RX-06",), "A partial checksum is delivered as it is, without a word."
    ),
    "gso-size-lost": Mutant(("NET-RX-12",), "gso_size is 0 in a GSO frame."),
    "gso-hdr-len-lost": Mutant(("NET-RX-14",), "hdr_len is 0 in a GSO frame."),
    "gso-ecn-lost": Mutant(("NET-RX-10",), "The ECN bit of a GSO type is not passed on."),
    "gso-without-csum": Mutant(("NET-RX-12",), "A GSO frame comes without NEEDS_CSUM."),
    "csum-start-from-ip": Mutant(
        ("NET-RX-11",), "csum_start of a GSO frame counts from the IP header."
    ),
    "burst-not-hashed": Mutant(("U-28",), "A frame to be segmented has no hash."),
    "priority-tag-filtered": Mutant(
        ("U-35",), "A priority tag, VLAN 0, is filtered like any that is not in the table."
    ),
}

SENT: Final = {
    "tx-header-12-for-20": Mutant(
        ("U-54",), "12 bytes of header are taken off a frame that has 20."
    ),
    "tx-header-in-own-buffer": Mutant(
        ("VIO-SPL-01",), "The first descriptor is taken for the header, whatever it holds."
    ),
    "tx-header-passed-on": Mutant(
        ("NET-TX-01", "OUR-TX-12"), "The driver's header goes out unjudged."
    ),
    "tx-unknown-flags-refused": Mutant(
        ("NET-TX-01",), "A frame with a flag nobody knows is dropped."
    ),
    "tx-dead-fields-used": Mutant(("NET-TX-02",), "csum_start counts although NEEDS_CSUM is off."),
    "tx-frame-cut": Mutant(
        ("NET-CFG-06",), "A frame ends after 1500 bytes, Ethernet header included."
    ),
}

RINGS: Final = {
    "used-id-wrong": Mutant(
        ("VIO-SPL-12", "VIO-FEAT-08"),
        "Used elements of a burst of sent frames name other chains than were used.",
    ),
    "used-len-of-sent": Mutant(
        ("VIO-SPL-12", "VIO-SPL-11"),
        "used.len of sent frames of a burst is their length; nothing was written.",
    ),
    "used-out-of-order": Mutant(
        ("VIO-FEAT-08",), "Chains of one batch come back in reverse, under IN_ORDER too."
    ),
    "used-index-modulo-size": Mutant(
        ("VIO-SPL-11",), "used.idx starts over at the ring's size and not at 65536."
    ),
    "used-flags-beyond-one": Mutant(("VIO-SPL-13",), "used.flags is 2 where kicks are wanted."),
    "used-flags-with-event-idx": Mutant(
        ("VIO-SPL-14",), "used.flags says NO_NOTIFY although EVENT_IDX was negotiated."
    ),
    "avail-event-left-behind": Mutant(
        ("VIO-SPL-14",),
        "With EVENT_IDX it asks for a kick once: a driver that goes by that is not heard again.",
    ),
    "no-interrupt-ignored": Mutant(
        ("VIO-SPL-08",), "It notifies although avail.flags says not to."
    ),
    "event-idx-ignored": Mutant(
        ("VIO-SPL-09", "VIO-SPL-10"), "With EVENT_IDX it goes by avail.flags all the same."
    ),
    "event-always": Mutant(("VIO-SPL-10",), "With EVENT_IDX it notifies whatever used_event says."),
    "event-never": Mutant(("VIO-SPL-09",), "With EVENT_IDX it never notifies."),
    "event-one-late": Mutant(
        ("VIO-SPL-09",), "It notifies one element after used_event was passed."
    ),
    "descriptors-cleared": Mutant(
        ("VIO-SPL-03",), "It writes zeros over descriptors it is done with."
    ),
    "three-descriptors-at-most": Mutant(
        ("VIO-SPL-01",), "Of a chain it sees the first three descriptors."
    ),
    "indirect-write-flag-judged": Mutant(
        ("VIO-SPL-05",), "WRITE on the descriptor of an indirect table breaks the ring."
    ),
    "indirect-alone-only": Mutant(
        ("VIO-SPL-06",), "An indirect table behind plain descriptors breaks the ring."
    ),
}

MUTANTS: Final = HASHES | STEERING | RECEIVED | SENT | RINGS
