# SPDX-License-Identifier: MIT
"""Faults of the device model: negotiation, configuration space, commands and what they come to."""

from __future__ import annotations

from typing import Final

from tests.conformance_suite.mutant import Mutant, one
from tests.spoilt import Fragment

CONTROL: Final = "device/control.py"
CONTROLQ: Final = "device/controlq.py"
CORE: Final = "device/core.py"
DEVICE: Final = "device/device.py"
FRONTEND: Final = "device/frontend.py"
LINK: Final = "device/link.py"
NEGOTIATION: Final = "device/negotiation.py"
RINGS: Final = "device/rings.py"
RUNTIME: Final = "runtime/device.py"
RXFILTER: Final = "device/rxfilter.py"
STEERING: Final = "device/steering.py"


def _policy(fragment: str, becomes: str) -> tuple[Fragment, ...]:
    return one(STEERING, "make_policy", fragment, becomes)


def _rss(fragment: str, becomes: str) -> tuple[Fragment, ...]:
    return one(STEERING, "configure_rss", fragment, becomes)


def _space(fragment: str, becomes: str) -> tuple[Fragment, ...]:
    return one(LINK, "config_space", fragment, becomes)


def _modes(becomes: str) -> tuple[Fragment, ...]:
    """Of the receive modes in force, `rx` being those that were commanded."""
    return _policy(
        "rx_filter=control.rx_filter,", f"rx_filter=(lambda rx: {becomes})(control.rx_filter),"
    )


def _kept(part: str) -> tuple[Fragment, ...]:
    """A part of what commands set outlives every reset."""
    kept = f"replace({{}}, {part}=state.control.{part})"
    again = "control=ControlState.initial(self._settings.mac, Feature(features)),"
    anew = "control=ControlState.initial(self._settings.mac, state.features),"
    return (
        Fragment(
            DEVICE, "VirtioNetDevice.write_status",
            "reached = replace(reached, control=control)",
            f"reached = replace(reached, control=replace(control, {part}=state.control.{part}))",
        ),
        Fragment(
            DEVICE, "VirtioNetDevice.reset",
            "state = DeviceState.initial(self._settings, counters, self._state.host)",
            "state = DeviceState.initial(self._settings, counters, self._state.host)\n"
            f"        state = replace(state, control=replace(state.control, {part}="
            f"self._state.control.{part}))",
        ),
        Fragment(
            FRONTEND, "DeviceFrontend.negotiate", again,
            f"control={kept.format(again[8:-1])},",
        ),
        Fragment(
            FRONTEND, "DeviceFrontend.begin_anew", anew,
            f"control={kept.format(anew[8:-1])},",
        ),
    )  # fmt: skip


NEGOTIATED: Final = {
    "features-without-dependencies": Mutant(
        ("VIO-FEAT-02",), "FEATURES_OK stays on for a set that lacks what it requires.",
        one(NEGOTIATION, "refusal", "missing_dependencies(features).items()", "()"),
    ),
    "features-not-offered": Mutant(
        ("VIO-FEAT-02",), "Bits are accepted that were never offered.",
        one(NEGOTIATION, "refusal", "    if beyond:\n", "    if False:\n"),
    ),
    "accepted-once-only": Mutant(
        ("VIO-FEAT-04",), "After a reset no set is accepted any more.",
        one(DEVICE, "VirtioNetDevice.write_status",
            "negotiation.refusal(self._settings, state.driver_features) is None",
            "state.counters.resets < 2 and negotiation.refusal("
            "self._settings, state.driver_features) is None"),
    ),
    "layout-by-mq-alone": Mutant(
        ("NET-RSS-02",), "Without MQ there is one pair, though RSS was negotiated.",
        one(NEGOTIATION, "pairs_in_layout", "features & (Feature.MQ | Feature.RSS) else",
             "features & Feature.MQ else"),
    ),
    "controlq-by-offer": Mutant(
        ("NET-CVQ-01",), "The control queue's index follows what was offered, not what was agreed.",
        one(NEGOTIATION, "controlq_index",
            "    pairs = pairs_in_layout(max_virtqueue_pairs, features)\n"
             "    return 2 * pairs if",
             "    pairs = max_virtqueue_pairs\n    return 2 * pairs if"),
    ),
    "offer-without-version-1": Mutant(
        ("VIO-FEAT-05",), "VERSION_1 is not offered.",
        one(CORE, "DeviceCore.offered", "return self._settings.offered",
            "return type(self._settings.offered)(int(self._settings.offered) & ~(1 << 32))"),
    ),
    "offer-without-control-queue": Mutant(
        ("VIO-FEAT-01",), "RSS and the like are offered without CTRL_VQ.",
        one(CORE, "DeviceCore.offered", "return self._settings.offered",
            "return type(self._settings.offered)(int(self._settings.offered) & ~(1 << 17))"),
    ),
    "offer-undefined-bit": Mutant(
        ("VIO-FEAT-03",), "Bit 58, which nobody defined, is offered.",
        one(CORE, "DeviceCore.offered", "return self._settings.offered",
            "return type(self._settings.offered)(int(self._settings.offered) | 1 << 58)"),
    ),
    "status-kept-on-reset": Mutant(
        ("VIO-RST-01",), "The status does not read 0 after a reset.",
        one(DEVICE, "VirtioNetDevice.reset",
            "        return self._transition(state, Deactivate()",
            "        state = replace(state, status=self._state.status & DeviceStatus.ACKNOWLEDGE)\n"
            "        return self._transition(state, Deactivate()"),
    ),
    "runs-before-driver-ok": Mutant(
        ("VIO-STAT-01",), "A ring runs from its set-up on.",
        (
            *one(RINGS, "DeviceRings.configure_queue",
                 "        return self._transition(_with_queue(state, queue))\n",
                 "        active = queue.activate(queue_count=self.queue_count, "
                 "max_queue_size=self._settings.max_queue_size)\n"
                 "        start = StartQueue(active, state.features, self.controlq_index, True)\n"
                 "        return self._transition(_with_queue(state, queue), start)\n"),
            *one(RINGS, "DeviceRings._start_effects",
                 "Activate(state.features, queues, controlq)",
                 "Activate(state.features, (), controlq)"),
        ),
    ),
    "rss-kept-on-reset": Mutant(
        ("U-01", "NET-MQ-02"), "RSS and its table are still in force after a reset.",
        _kept("steering"),
    ),
    "filter-kept-on-reset": Mutant(
        ("NET-FLT-09", "U-31"), "Receive modes and tables outlive a reset.", _kept("rx_filter"),
    ),
    "mac-kept-on-reset": Mutant(
        ("U-48",), "The address of MAC_ADDR_SET outlives a reset.", _kept("mac"),
    ),
}  # fmt: skip

CONFIGURATION: Final = {
    "config-from-start": Mutant(
        ("VIO-CFG-01",), "Configuration space is read from its beginning, whatever the offset.",
        one(CORE, "DeviceCore.read_config", "space[offset : offset + length]", "space[:length]"),
    ),
    "config-after-negotiation": Mutant(
        ("VIO-CFG-01",), "speed is 0 until features were negotiated.",
        _space("speed=settings.speed if link else 0", "speed=settings.speed * (state.status > 7)"),
    ),
    "config-mac-missing": Mutant(
        ("VIO-CFG-01", "NET-FLT-11"), "mac is zero in configuration space.",
        _space("mac=state.control.mac if", "mac=bytes(6) if"),
    ),
    "config-mac-old": Mutant(
        ("NET-FLT-11",), "mac in configuration space is not what MAC_ADDR_SET set.",
        _space("mac=state.control.mac if", "mac=settings.mac if"),
    ),
    "config-pairs-zero": Mutant(
        ("NET-CFG-01",), "max_virtqueue_pairs is 0 though MQ is offered.",
        _space("settings.max_virtqueue_pairs if multiqueue else 0", "0"),
    ),
    "config-of-no-link": Mutant(
        ("NET-CFG-02", "NET-CFG-09"), "mtu is 67, and speed 0x80000000.",
        _space("mtu=settings.mtu or 0,\n        speed=settings.speed if link else 0",
               "mtu=67,\n        speed=0x80000000"),
    ),
    "config-limits-short": Mutant(
        ("NET-CFG-07", "NET-CFG-08"), "Keys have 36 bytes at most, and tables 64 entries.",
        _space("MAX_KEY_SIZE if hashing else 0,\n        rss_max_indirection_table_length="
               "MAX_TABLE_LENGTH if offered & _RSS else 0",
               "36,\n        rss_max_indirection_table_length=64"),
    ),
    "config-mtu-changes": Mutant(
        ("NET-CFG-04",), "mtu is another one after a reset.",
        _space("mtu=settings.mtu or 0", "mtu=(settings.mtu or 0) - min(state.counters.resets, 9)"),
    ),
    "link-always-up": Mutant(
        ("NET-LNK-01",), "LINK_UP stays on though the cable is out.",
        _space("LinkStatus.LINK_UP if state.host.link_up else LinkStatus.DOWN",
               "LinkStatus.LINK_UP"),
    ),
    "link-change-untold": Mutant(
        ("NET-LNK-01",), "No notification comes when the link changes.",
        one(FRONTEND, "DeviceFrontend.set_link", "*((ConfigChanged(),) if told else ())", ""),
    ),
    "announce-untold": Mutant(
        ("NET-ANN-02",), "No notification comes with a request for an announcement.",
        one(FRONTEND, "DeviceFrontend.announce", "control=control), ConfigChanged())",
             "control=control))"),
    ),
    "announce-not-cleared": Mutant(
        ("NET-ANN-01",), "The ANNOUNCE bit is still on when ANNOUNCE_ACK is answered.",
        one(CONTROL, "acknowledge", "value=False", "value=bool(_current)"),
    ),
}  # fmt: skip

COMMANDS: Final = {
    "refused-with-side-effects": Mutant(
        ("OUR-CVQ-06", "U-07"), "A refused command takes back what earlier ones set.",
        (
            Fragment(DEVICE, "VirtioNetDevice._refused",
                     "after = replace(self._state, counters=counters)\n"
                     "        return ControlTransition(self._state, after, (), bytes([Ack.ERR])",
                     "state = self._state\n"
                     "        control = ControlState.initial(state.mac, state.features)\n"
                     "        after = replace(state, counters=counters, control=control)\n"
                     "        effects = (SetPolicy(self._policy(after)),)\n"
                     "        return ControlTransition(state, after, effects, bytes([Ack.ERR])"),
        ),
    ),
    "unknown-command-ok": Mutant(
        ("OUR-CVQ-05", "U-40"), "A command nobody knows is answered OK.",
        one(CONTROLQ, "_admit", 'raise NotNowError("not supported")',
             'return Command(Feature.CTRL_VQ, "announce", acknowledge)'),
    ),
    "command-without-feature": Mutant(
        ("OUR-CVQ-04", "NET-RSS-07"), "Commands are carried out whose feature was not negotiated.",
        one(CONTROLQ, "_admit", "if not situation.rules.features & command.feature:",
             "if False:"),
    ),
    "short-command-ok": Mutant(
        ("U-04",), "A command that was cut off is answered OK, and nothing happens.",
        one(CONTROLQ, "execute",
             'return Refused(f"{name}: cut short: {error}", short=True)',
             "return Executed(situation.control, 0, None)"),
    ),
    "surplus-refused": Mutant(
        ("U-06",), "A command with bytes behind its end is answered ERR.",
        one(CONTROLQ, "execute", "    except ShortPayloadError as error:",
             '        if outcome.surplus:\n            raise NotNowError("too long")\n'
             "    except ShortPayloadError as error:"),
    ),
    "bad-value-ok": Mutant(
        ("OUR-CVQ-06", "NET-RSS-05"), "What a command may not say is answered OK and ignored.",
        one(CONTROLQ, "execute", 'return Refused(f"{name}: {error}")',
             "return Executed(situation.control, 0, None)"),
    ),
    "hash-config-under-rss": Mutant(
        ("U-17",), "HASH_CONFIG is carried out while RSS governs types and key.",
        one(CONTROLQ, "_rss_governs", "if rss else None", "if False else None"),
    ),
    "pairs-clamped": Mutant(
        ("NET-MQ-09",), "VQ_PAIRS_SET with a number that cannot be is brought into range.",
        one(STEERING, "set_vq_pairs", 'check_int("pairs", pairs, 1, rules.max_pairs)',
             "pairs = max(1, min(pairs, rules.max_pairs))"),
    ),
    "pairs-ignored": Mutant(
        ("NET-MQ-03", "NET-MQ-06"), "VQ_PAIRS_SET is answered OK, and the pairs stay as they were.",
        one(STEERING, "set_vq_pairs",
             "return Outcome(replace(current, pairs=pairs), surplus)\n    if rules",
             "return Outcome(current, surplus)\n    if rules"),
    ),
    "rss-survives-pairs": Mutant(
        ("NET-MQ-01", "NET-MQ-04"), "VQ_PAIRS_SET does not end RSS.",
        one(STEERING, "set_vq_pairs", "if current.mode is not SteeringMode.RSS:", "if True:"),
    ),
    "hashing-ends-with-rss": Mutant(
        ("U-15",), "VQ_PAIRS_SET takes hash types and key with it, not RSS alone.",
        one(STEERING, "set_vq_pairs",
             "SteeringState(hash_types=current.hash_types, key=current.key, pairs=pairs)",
             "SteeringState(pairs=pairs)"),
    ),
    "table-of-old-length": Mutant(
        ("NET-RSS-02",), "A table that is shorter than the last keeps its end.",
        _rss("        config.indirection_table,\n",
             "        config.indirection_table + "
             "current.indirection_table[len(config.indirection_table) :],\n"),
    ),
    "table-half": Mutant(
        ("NET-RSS-02",), "The upper half of the table is not used.",
        _rss("        config.indirection_table,\n",
             "        config.indirection_table[: (len(config.indirection_table) + 1) // 2],\n"),
    ),
    "table-entries-folded": Mutant(
        ("NET-RSS-04", "U-10"), "Entries beyond the last queue are folded, not refused.",
        _rss("        config.indirection_table,\n",
             "        tuple(each % rules.max_pairs for each in config.indirection_table),\n"),
    ),
    "unclassified-is-first": Mutant(
        ("NET-RSS-01",), "Frames without hash go to the first queue.",
        _rss("config.unclassified_queue", "0"),
    ),
    "rss-key-kept": Mutant(
        ("NET-HASH-02", "NET-HASH-09"), "The first key stays, whatever comes later.",
        _rss("        key,\n", "        current.key if any(current.key) else key,\n"),
    ),
    "rss-key-truncated": Mutant(
        ("NET-HASH-09", "U-13"), "Of the key 36 bytes are kept.",
        one(STEERING, "_hashing", "return types, key.ljust(", "return types, key[:36].ljust("),
    ),
    "rss-types-unknown": Mutant(
        ("NET-RSS-06", "U-08"), "Hash types nobody knows are accepted.",
        one(STEERING, "_hashing", "if unknown and not rules.lenient_hash_types:", "if False:"),
    ),
    "rss-types-all": Mutant(
        ("NET-HASH-02", "NET-HASH-05"), "All hash types are on, whatever RSS_CONFIG says.",
        _rss("        hash_types,\n", "        ALL_HASH_TYPES,\n"),
    ),
    "hash-config-ignored": Mutant(
        ("NET-HASH-01",), "HASH_CONFIG is answered OK, and nothing is reported.",
        one(STEERING, "configure_hash",
             "replace(current, hash_types=hash_types, key=key)", "current"),
    ),
    "hash-types-from-start": Mutant(
        ("NET-HASH-04", "U-02"), "All hash types are on before any command.",
        _policy("steering.hash_types if hashed else", "ALL_HASH_TYPES if hashed else"),
    ),
    "mac-not-changed": Mutant(
        ("NET-FLT-11",), "MAC_ADDR_SET is answered OK, and the address stays.",
        one(CONTROL, "set_mac", "return Outcome(address,", "return Outcome(_current,"),
    ),
    "mac-filtered-by-old": Mutant(
        ("NET-FLT-12",), "Configuration space shows the new address, frames for the old one come.",
        one(CORE, "DeviceCore._policy", "            state.control,\n",
             "            replace(state.control, mac=self._settings.mac),\n"),
    ),
    "mac-of-a-group": Mutant(
        ("U-37",), "MAC_ADDR_SET takes a multicast address.",
        one(CONTROL, "check_unicast", "if address[0] & 1 or not any(address):", "if False:"),
    ),
    "offloads-added": Mutant(
        ("NET-OFL-02",), "GUEST_OFFLOADS_SET only adds to what is on.",
        one(CONTROL, "set_guest_offloads", "Outcome(mask,", "Outcome(_current | mask,"),
    ),
    "offloads-not-negotiated": Mutant(
        ("NET-OFL-03", "U-39"), "Offloads are switched on that were not negotiated.",
        one(CONTROL, "set_guest_offloads", "    if beyond:\n", "    if False:\n"),
    ),
    "offloads-off-at-start": Mutant(
        ("NET-OFL-01",), "Negotiated offloads are off until they are asked for.",
        one(CONTROL, "ControlState.initial", "int(features & GUEST_OFFLOADS)", "0"),
    ),
}  # fmt: skip

FILTERS: Final = {
    "mode-cannot-go-off": Mutant(
        ("NET-FLT-01",), "PROMISC stays on once it is on.",
        _modes("replace(rx, promisc=True)"),
    ),
    "promisc-weak": Mutant(
        ("NET-FLT-02", "U-34"), "NOUNI, NOMULTI and NOBCAST beat PROMISC.",
        _modes("replace(rx, promisc=rx.promisc and not (rx.nouni or rx.nomulti or rx.nobcast))"),
    ),
    "allmulti-is-promisc": Mutant(
        ("NET-FLT-12", "NET-FLT-03"), "With ALLMULTI every unicast comes too.",
        _modes("replace(rx, alluni=rx.alluni or rx.allmulti)"),
    ),
    "allmulti-ignored": Mutant(
        ("NET-FLT-03",), "ALLMULTI brings nothing.", _modes("replace(rx, allmulti=False)"),
    ),
    "alluni-ignored": Mutant(
        ("NET-FLT-05",), "ALLUNI brings nothing.", _modes("replace(rx, alluni=False)"),
    ),
    "nomulti-takes-broadcast": Mutant(
        ("NET-FLT-06",), "NOMULTI keeps broadcast away too.",
        _modes("replace(rx, nobcast=rx.nobcast or rx.nomulti)"),
    ),
    "allmulti-beats-nomulti": Mutant(
        ("NET-FLT-06",), "With ALLMULTI on, NOMULTI means nothing.",
        _modes("replace(rx, nomulti=rx.nomulti and not rx.allmulti)"),
    ),
    "alluni-beats-nouni": Mutant(
        ("NET-FLT-07",), "With ALLUNI on, NOUNI means nothing.",
        _modes("replace(rx, nouni=rx.nouni and not rx.alluni)"),
    ),
    "allmulti-beats-nobcast": Mutant(
        ("NET-FLT-08",), "With ALLMULTI on, NOBCAST means nothing.",
        _modes("replace(rx, nobcast=rx.nobcast and not rx.allmulti)"),
    ),
    "unicast-table-ignored": Mutant(
        ("NET-FLT-10",), "The unicast addresses of MAC_TABLE_SET are not kept.",
        one(RXFILTER, "set_mac_table", "unicast=() if overflow[0] else unicast,", "unicast=(),"),
    ),
    "multicast-table-ignored": Mutant(
        ("NET-FLT-10",), "The multicast addresses of MAC_TABLE_SET are not kept.",
        one(RXFILTER, "set_mac_table", "multicast=() if overflow[1] else multicast,",
             "multicast=(),"),
    ),
    "mac-table-added-to": Mutant(
        ("NET-FLT-10",), "MAC_TABLE_SET adds to the table and does not replace it.",
        one(RXFILTER, "set_mac_table", "unicast=() if overflow[0] else unicast,",
             "unicast=() if overflow[0] else current.unicast + unicast,"),
    ),
    "mac-table-overflow-lost": Mutant(
        ("NET-FLT-13", "U-36"), "Too many addresses, and none of them is received.",
        one(RXFILTER, "set_mac_table", "unicast_overflow=overflow[0],", "unicast_overflow=False,"),
    ),
    "vlan-never-filtered": Mutant(
        ("NET-VLAN-03",), "Tags that are in no table come all the same.",
        _policy("vlan_filter=bool(features & Feature.CTRL_VLAN and features & Feature.CTRL_VQ)",
                "vlan_filter=False"),
    ),
    "vlan-always-filtered": Mutant(
        ("NET-VLAN-01",), "Tagged frames are kept from a driver that has no table.",
        _policy("vlan_filter=bool(features & Feature.CTRL_VLAN and features & Feature.CTRL_VQ)",
                "vlan_filter=bool(features & Feature.CTRL_VQ)"),
    ),
    "vlan-add-ignored": Mutant(
        ("NET-VLAN-02",), "VLAN_ADD is answered OK, and the tag does not come.",
        one(RXFILTER, "add_vlan", "current.vlans | {vid}", "current.vlans"),
    ),
    "vlan-del-ignored": Mutant(
        ("NET-VLAN-03", "OUR-VLAN-04"), "VLAN_DEL is answered OK, and the tag still comes.",
        one(RXFILTER, "delete_vlan", "current.vlans - {vid}", "current.vlans"),
    ),
    "vlan-id-cut": Mutant(
        ("OUR-VLAN-04",), "A VLAN id of 13 bits and more is cut to 12.",
        one(RXFILTER, "_vid", 'check_int("VLAN id", vid, 0, MAX_VLAN)', "vid &= MAX_VLAN"),
    ),
}  # fmt: skip

LINE: Final = {
    "header-12-for-20": Mutant(
        ("NET-REP-01",), "The header has 12 bytes though HASH_REPORT was negotiated.",
        _policy("header_size(features)", "HDR_V1_SIZE"),
    ),
    "merged-anyway": Mutant(
        ("NET-RX-01",), "A frame is spread over buffers without MRG_RXBUF.",
        _policy("bool(features & Feature.MRG_RXBUF)", "bool(features)"),
    ),
    "position-lost": Mutant(
        ("VIO-RST-04", "VHU-RING-04"), "A ring that is stopped is said to stand at 0.",
        one(RUNTIME, "Device.stop_queue", "return state.avail_base, state.used_base",
            "return 0, 0"),
    ),
    "reset-needed-untold": Mutant(
        ("VIO-STAT-03",), "DEVICE_NEEDS_RESET is set, and no notification comes.",
        one(RINGS, "DeviceRings._needs_reset", "self._transition(state, ConfigChanged())",
            "self._transition(state)"),
    ),
    "position-one-back": Mutant(
        ("VHU-RING-04", "VHU-RING-09"), "A ring is said to stand one before where it stands.",
        one(RUNTIME, "Device.stop_queue", "return state.avail_base,",
            "return state.avail_base - 1 & 0xFFFF,"),
    ),
    "stopped-ring-served": Mutant(
        ("VIO-RST-03", "VHU-RING-03"), "A ring that is stopped goes on, until it is set up again.",
        (
            *one(RUNTIME, "Device.stop_queue", "self._rings.stop(index)",
                 "self._rings._engine.queue_state(self._rings._inner(index))"),
            *one(RINGS, "DeviceRings.stop_queue", "StopQueue(index), ", ""),
            *one(RINGS, "DeviceRings.start_queue", "*self._policy_change(after), start",
                 "StopQueue(setup.index), *self._policy_change(after), start"),
        ),
    ),
    "rings-served-after-reset": Mutant(
        ("VIO-RST-02",), "Rings go on after a reset, until the next driver has its own.",
        (
            *one(DEVICE, "VirtioNetDevice.reset", "Deactivate(), ", ""),
            *one(RINGS, "DeviceRings._start_effects", "return SetPolicy",
                 "return *map(StopQueue, range(2 * state.max_virtqueue_pairs + 1)), SetPolicy"),
        ),
    ),
    "mtu-not-kept": Mutant(
        ("NET-CFG-05", "U-51"), "Frames longer than the MTU are handed over.",
        _policy("mtu=mtu if features & Feature.MTU else 0", "mtu=0"),
    ),
    "guest-offloads-always": Mutant(
        ("NET-RX-05", "NET-RX-07", "NET-RX-08"),
        "Partial checksums and GSO frames are delivered whatever was agreed.",
        _policy("int(deliverable(control.guest_offloads))",
                "int(deliverable(2 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 54 | 1 << 55))"),
    ),
    "guest-ecn-always": Mutant(
        ("NET-RX-10",), "GSO frames with ECN are delivered without GUEST_ECN.",
        _policy("int(deliverable(control.guest_offloads))",
                "int(deliverable(control.guest_offloads | 1 << 9))"),
    ),
    "host-offloads-never": Mutant(
        ("NET-TX-02",), "A frame that asks for a checksum is dropped though CSUM was negotiated.",
        _policy("int(features & HOST_OFFLOADS)", "0"),
    ),
}  # fmt: skip

MUTANTS: Final = NEGOTIATED | CONFIGURATION | COMMANDS | FILTERS | LINE
