# SPDX-License-Identifier: MIT
"""Faults of the vhost-user back-end, which cases about vhost-user see."""

from __future__ import annotations

from typing import Final

from tests.conformance_suite.mutant import Mutant, one

MEMORY: Final = "transport/vhost_user/memory.py"
NEGOTIATION: Final = "transport/vhost_user/negotiation.py"
RINGS: Final = "transport/vhost_user/rings.py"
SESSION: Final = "transport/vhost_user/session.py"

MUTANTS: Final = {
    "unknown-message-acknowledged": Mutant(
        ("VHU-MSG-06",), "A message nobody knows is acknowledged as done.",
        one(SESSION, "Session._admitted", 'raise FrontendError("not supported")', "return None"),
    ),
    "ring-size-any": Mutant(
        ("VHU-MSG-06",), "A ring size that is no power of two is taken.",
        one(RINGS, "set_vring_num",
            "if not 1 <= told.num <= MAX_QUEUE_SIZE or told.num & (told.num - 1):", "if False:"),
    ),
    "obeyed-is-failure": Mutant(
        ("VHU-MSG-03",), "A message that was obeyed is answered with a failure.",
        one(SESSION, "Session.handle", "pack_u64(_ACK)", "pack_u64(_FAILURE)"),
    ),
    "answered-twice": Mutant(
        ("VHU-MSG-04",), "A question that asks for an acknowledgement is answered twice.",
        one(SESSION, "Session.handle",
            "            return reply(message.header.request, payload)\n",
            "            again = reply(message.header.request, payload)\n"
            "            return again * (1 + message.header.need_reply)\n"),
    ),
    "answers-change": Mutant(
        ("VHU-MSG-02",), "Every other time GET_FEATURES is asked there is a bit more.",
        one(NEGOTIATION, "get_features",
            "    return pack_u64(state.offer.features |",
            "    state.status_used = not state.status_used\n"
            "    return pack_u64(state.offer.features ^ state.status_used |"),
    ),
    "config-answers-from-start": Mutant(
        ("VHU-CFG-01",), "The answer to GET_CONFIG says that it is about the beginning.",
        one(NEGOTIATION, "get_config", "return ConfigSpace(asked.offset,", "return ConfigSpace(0,"),
    ),
    "config-written": Mutant(
        ("VHU-CFG-02",), "What SET_CONFIG wrote is read by GET_CONFIG.",
        (
            *one(NEGOTIATION, "set_config", "    ConfigSpace.unpack(message.payload)\n",
                 "    _state.status_used = message.payload[12:]\n"),
            *one(NEGOTIATION, "get_config", "data = yield ReadConfig(asked.offset, asked.size)",
                 "data = yield ReadConfig(asked.offset, asked.size)\n"
                 "    data = _state.status_used if type(_state.status_used) is bytes else data"),
        ),
    ),
    "queue-num-one": Mutant(
        ("VHU-MQ-01",), "GET_QUEUE_NUM says 1.",
        one(NEGOTIATION, "get_queue_num", "state.offer.queue_num", "1"),
    ),
    "mtu-of-any-size": Mutant(
        ("VHU-MTU-01",), "NET_SET_MTU is acknowledged whatever it says.",
        one(NEGOTIATION, "net_set_mtu", "    yield SetMtu(unpack_u64(message.payload))\n",
            "    if False:\n        yield SetMtu(0)\n"),
    ),
    "status-without-driver-ok": Mutant(
        ("VHU-STAT-01",), "GET_STATUS never shows DRIVER_OK.",
        one(NEGOTIATION, "get_status", "pack_u64(state.status |",
            "pack_u64(state.status & ~DeviceStatus.DRIVER_OK |"),
    ),
    "reset-device-keeps-status": Mutant(
        ("VHU-RST-01",), "The status outlives RESET_DEVICE.",
        one(NEGOTIATION, "reset_device", "state.status, state.status_used = 0, False",
            "state.status_used = False"),
    ),
    "features-again-stop-rings": Mutant(
        ("VHU-FEAT-02",), "SET_FEATURES stops and forgets rings that run.",
        one(NEGOTIATION, "set_features", "if rings.all_disabled(state):", "if True:"),
    ),
    "position-zero": Mutant(
        ("VHU-RING-04",), "GET_VRING_BASE says 0 wherever the ring stands.",
        one(RINGS, "get_vring_base", "VringState(ring.index, ring.base)",
            "VringState(ring.index, 0)"),
    ),
    "position-one-more": Mutant(
        ("VHU-RING-09",), "A ring goes on one behind where SET_VRING_BASE told it to.",
        one(RINGS, "set_vring_base", "    ring.base = told.num\n",
            "    ring.base = told.num + bool(told.num)\n"),
    ),
    "enable-ignored": Mutant(
        ("VHU-RING-05", "VHU-RING-06"), "A ring that was disabled goes on.",
        one(RINGS, "set_vring_enable", "if ring.running and ring.enabled is not enabled:",
            "if False:"),
    ),
    "rings-wait-for-enable": Mutant(
        ("VHU-RING-07",), "Rings wait for SET_VRING_ENABLE from front-ends that do not know it.",
        one(RINGS, "_enabled", "ring.enabled if state.rings_wait_for_enable else True",
            "ring.enabled"),
    ),
    "call-stays": Mutant(
        ("VHU-RING-08",), "SET_VRING_CALL on a running ring changes nothing.",
        one(RINGS, "set_vring_call", "    if ring.running:\n", "    if False:\n"),
    ),
    "reconnecting-resets": Mutant(
        ("U-59",), "What commands set is gone after a new connection, wherever rings go on.",
        one(RINGS, "decide", "if not any(ring.base for ring in told):", "if True:"),
    ),
    "region-offset-ignored": Mutant(
        ("VHU-MEM-01",), "Regions begin at the beginning of their files.",
        one(MEMORY, "_replace", "region.description.mmap_offset,", "0,"),
    ),
    "regions-replaced-one-by-one": Mutant(
        ("VHU-MEM-02",), "ADD_MEM_REG takes the place of all regions that are there.",
        one(MEMORY, "add_mem_reg", "[*others, Region", "[Region"),
    ),
}  # fmt: skip
