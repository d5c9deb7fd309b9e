# SPDX-License-Identifier: MIT
"""Checks of the vhost-user session, and for each the test that misses it.

A check is an ``if`` that ends in a FrontendError.  ``checks`` finds them in the
source, so none is forgotten; its name is file, function and condition.  ``off``
takes one out of the running process: the function is compiled anew with the
condition False, and its code object put in place of the old one, which whoever
holds the function already gets, the table of messages included.

``OTHERS`` are guards of another shape: a fragment of a function and what it
becomes.
"""

from __future__ import annotations

import ast
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from pyvnet.errors import FrontendError
from pyvnet.spec.vhost_user import Request, pack_memory_table, unpack_memory_table
from pyvnet.transport.vhost_user import connection
from tests.device import test_frontend as device
from tests.device import test_rings as device_rings
from tests.hostile.rig import ROOT
from tests.hostile.vhost_user.limits import room_for_fds
from tests.spoilt import Fragment, replaced
from tests.vhost_user import test_failures as failures
from tests.vhost_user import test_framing as framing
from tests.vhost_user import test_messages as messages
from tests.vhost_user import test_ring_messages as rings
from tests.vhost_user.support import Conversation, memory_fd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOURCE: Final = ROOT / "src"
FILES: Final = (
    *sorted((SOURCE / "pyvnet/transport/vhost_user").glob("*.py")),
    SOURCE / "pyvnet/spec/vhost_user.py",
    SOURCE / "pyvnet/device/frontend.py",
    SOURCE / "pyvnet/device/rings.py",
)
REFUSALS: Final = ("FrontendError(", "RefusedError(", "errors[0]")


class Check(NamedTuple):
    """One ``if``: its file, the function it is in, its condition as `ast.unparse` writes it."""

    file: str
    function: str
    condition: str


def _is_check(node: ast.AST) -> bool:
    if not isinstance(node, ast.If) or not isinstance(node.body[-1], ast.Raise):
        return False
    raised = node.body[-1].exc
    return raised is not None and ast.unparse(raised).startswith(REFUSALS)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def checks() -> Iterator[Check]:
    """All there are."""
    for path in FILES:
        for name, function in _functions(ast.parse(path.read_text())):
            for node in filter(_is_check, ast.walk(function)):
                assert isinstance(node, ast.If)
                yield Check(_label(path), name, ast.unparse(node.test))


def _label(path: Path) -> str:
    return str(path.relative_to(SOURCE / "pyvnet"))


# --- taking one out -------------------------------------------------------------------


@contextmanager
def off(check: Check) -> Iterator[None]:
    """Inside, the check holds nobody."""
    tree = ast.parse((SOURCE / "pyvnet" / check.file).read_text())
    for name, function in _functions(tree):
        for node in ast.walk(function):
            if name == check.function and _is_check(node):
                assert isinstance(node, ast.If)
                if ast.unparse(node.test) == check.condition:
                    node.test = ast.copy_location(ast.Constant(value=False), node.test)
    with replaced(check.file, check.function, tree):
        yield


# --- who misses them ------------------------------------------------------------------


def on(test: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    """A test of a conversation with these arguments."""

    def run() -> None:
        with Conversation() as front:
            test(front, *arguments)

    return run


def alone(test: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    """A test that makes its own world."""
    return lambda: test(*arguments)


def table(name: str) -> Callable[[], None]:
    """A memory table that is none."""
    return on(messages.test_set_mem_table_malformed, messages.TABLES[name])


def no_regions() -> None:
    """The session never gets here: it wants a fd per region, and at least one."""
    with pytest.raises(FrontendError, match="table of 0 regions"):
        unpack_memory_table(pack_memory_table(()))


def fds_that_do_not_fit() -> None:
    """The kernel drops those the process has no room for; the message must not go on without."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fds = [memory_fd() for _ in range(3)]
        socket.send_fds(theirs, [b"x"], fds)
        for fd in fds:
            os.close(fd)
        got: list[int] = []
        try:
            with room_for_fds(1), pytest.raises(FrontendError, match="may hold"):
                got = connection._receive(ours, 1)[1]
        finally:
            for fd in got:
                os.close(fd)


M, N, R, S, T = (
    f"transport/vhost_user/{name}.py"
    for name in ("memory", "negotiation", "rings", "session", "state")
)
SPEC: Final = "spec/vhost_user.py"
CALL: Final = Request.SET_VRING_CALL
NUM: Final = Request.SET_VRING_NUM

WITNESSES: Final[dict[Check, Callable[[], None]]] = {
    Check("transport/vhost_user/connection.py", "_receive", "flags & socket.MSG_CTRUNC"):
        fds_that_do_not_fit,
    Check(M, "set_mem_table", "len(descriptions) != len(message.fds)"):
        on(messages.test_set_mem_table_with_the_wrong_number_of_fds, 2),
    Check(M, "add_mem_reg", "len(others) == MAX_SLOTS"):
        on(messages.test_memory_slots),
    Check(M, "rem_mem_reg", "len(kept) == len(state.regions)"):
        on(messages.test_rem_mem_reg_twice_or_of_something_unknown),
    Check(M, "_check_rings_stay", "moved"):
        on(messages.test_a_running_ring_does_not_move_with_its_memory),
    Check(M, "_check", "not region.size"):
        table("empty region"),
    Check(M, "_check", "any((start + region.size > _END for start in ends))"):
        table("offset wraps"),
    Check(M, "_check", "getattr(before, name) + before.size > getattr(after, name)"):
        on(messages.test_regions_that_overlap, "uva"),
    Check(N, "set_features", "live and device_features != state.device_features"):
        on(messages.test_other_features_while_rings_run),
    Check(N, "set_protocol_features", "unknown"):
        on(messages.test_a_protocol_feature_nobody_offered, 17),
    Check(N, "set_status", "status > 255"):
        on(messages.test_status),
    Check(N, "set_status", "status & DeviceStatus.FEATURES_OK and state.features is None"):
        on(messages.test_features_ok_needs_features),
    Check(R, "_translated", "address is None"):
        on(rings.test_a_kick_before_the_ring_was_described),
    Check(R, "set_vring_num", "ring.started"):
        on(rings.test_size_and_position_of_a_started_ring_do_not_change),
    Check(R, "set_vring_num", "not 1 <= told.num <= MAX_QUEUE_SIZE or told.num & told.num - 1"):
        on(rings.test_a_size_no_ring_has, 3),
    Check(R, "set_vring_addr", "told.flags & ~_LOG_USED_RING"):
        on(rings.test_address_flags_nobody_defined, 2),
    Check(R, "set_vring_base", "ring.started"):
        on(rings.test_size_and_position_of_a_started_ring_do_not_change),
    Check(R, "set_vring_base", "told.num > _U16"):
        on(rings.test_a_position_no_split_ring_has, 0x10000),
    Check(R, "_fd_message", "told & ~(VRING_INDEX_MASK | VRING_NO_FD)"):
        on(rings.test_an_fd_for_a_ring_that_does_not_exist, CALL, 0x10000),
    Check(R, "_fd_message", "bool(told & VRING_NO_FD) == bool(message.fds)"):
        on(rings.test_fds_and_the_flag_for_none_must_agree, CALL, 0x100, 1),
    Check(R, "_fd_message", "not message.fds[0].notifies"):
        on(rings.test_an_fd_that_tells_nobody_anything, CALL, "regular file"),
    Check(R, "set_vring_kick", "state.features is None"):
        on(rings.test_a_kick_before_features),
    Check(R, "set_vring_kick", "not ring.size"):
        on(rings.test_a_kick_before_the_size_is_known),
    Check(R, "set_vring_enable", "told.num > 1"):
        on(rings.test_enable_with_a_value_that_is_neither, 2),
    Check(S, "Session.receive", "fds and begun"):
        on(framing.test_fds_come_with_the_first_byte_or_not_at_all, 12),
    Check(S, "Session.receive", "header.version != VERSION"):
        alone(framing.test_a_header_nothing_can_be_made_of, 2, 0, "version 2"),
    Check(S, "Session.receive", "header.is_reply"):
        alone(framing.test_a_header_nothing_can_be_made_of, 5, 0, "a reply to nothing"),
    Check(S, "Session.receive", "header.size > MAX_PAYLOAD"):
        alone(framing.test_a_header_nothing_can_be_made_of, 1, 0xFFFFFFFF, "of payload"),
    Check(S, "Session.handle", "self._acknowledges(row, message)"):
        on(rings.test_a_size_no_ring_has, 3),
    Check(S, "Session._admitted", "row is None"):
        on(messages.test_an_unknown_message, 99),
    Check(S, "Session._admitted", "row.needs & ~self.state.protocol_features"):
        on(messages.test_a_message_whose_protocol_feature_was_not_negotiated, Request.SEND_RARP),
    Check(S, "Session._admitted", "len(message.fds) not in row.fds"):
        on(messages.test_a_message_that_takes_no_fds, Request.SET_OWNER, 1),
    Check(S, "Session._admitted", "row.empty and message.payload"):
        on(messages.test_a_message_without_payload_has_none, Request.GET_FEATURES),
    Check(S, "Session.close", "errors"):
        alone(failures.test_the_end_lets_go_of_everything_whatever_fails, 1),
    Check(T, "SessionState.ring", "not 0 <= index < count"):
        on(rings.test_a_ring_that_does_not_exist, NUM, 0x10000),
    Check(SPEC, "_exactly", "len(data) != layout.size"):
        on(rings.test_a_payload_of_the_wrong_length, NUM, 7),
    Check(SPEC, "unpack_memory_table", "len(data) < _TABLE_HEAD.size"):
        table("half a header"),
    Check(SPEC, "unpack_memory_table", "not 1 <= count <= MAX_REGIONS"):
        no_regions,
    Check(SPEC, "unpack_memory_table", "rest or not count <= room <= MAX_REGIONS"):
        table("one byte more"),
    Check(SPEC, "unpack_region", "len(data) != _REGION_MESSAGE_HEAD.size + _REGION.size"):
        on(messages.test_a_memory_region_of_the_wrong_length, Request.ADD_MEM_REG, 41),
    Check(SPEC, "ConfigSpace.unpack", "len(payload) < _CONFIG_HEAD.size"):
        on(messages.test_get_config_malformed, bytes(11)),
    Check(SPEC, "ConfigSpace.unpack", "not 1 <= size <= MAX_CONFIG or len(data) != size"):
        on(messages.test_get_config_malformed, bytes(12)),
    Check("device/frontend.py", "DeviceFrontend.negotiate", "reason"):
        alone(device.test_set_the_device_cannot_run_with, 1 << 128, "bits"),
    Check("device/frontend.py", "DeviceFrontend.set_frontend_mtu", "not MIN_MTU <= mtu <= highest"):
        alone(device.test_mtu_that_cannot_be_kept_is_refused, 67),
    Check("device/rings.py", "DeviceRings.start_queue",
          "not state.status & DeviceStatus.FEATURES_OK"):
        alone(device_rings.test_no_ring_starts_before_features_are_negotiated),
}  # fmt: skip


class Other(NamedTuple):
    """A guard that is no such ``if``."""

    fault: Fragment
    witness: Callable[[], None]


OTHERS: Final = (
    Other(Fragment(T, "SessionState.translate",
                   "known.uva <= address < known.uva + known.size",
                   "known.uva <= address"),
          on(rings.test_a_ring_outside_memory_does_not_start)),
    Other(Fragment(M, "_replace",
                   "    _check_rings_stay(state, new)\n",
                   ""),
          on(messages.test_a_running_ring_does_not_move_with_its_memory)),
    Other(Fragment(M, "_replace",
                   "    _check([region.description for region in new])\n",
                   ""),
          table("gpa wraps")),
    Other(Fragment(S, "Session.handle",
                   "close_all(message.fds)",
                   "pass"),
          on(framing.test_surplus_fds_are_closed, 1)),
    Other(Fragment(S, "Session.close",
                   "            close_all(self._fds)\n",
                   ""),
          alone(framing.test_the_end_may_come_after_any_byte)),
    Other(Fragment(R, "set_vring_addr",
                   "    if ring.running:\n        yield MoveRing",
                   "    if False:\n        yield MoveRing"),
          on(rings.test_addresses_of_a_running_ring_are_checked_again)),
    Other(Fragment(R, "set_vring_kick",
                   "        ring.kick = None\n        ring.started = False\n",
                   ""),
          on(rings.test_a_ring_the_engine_refuses_stays_stopped, FrontendError("no"))),
    Other(Fragment(R, "activate_all",
                   "            yield from halt(ring)\n",
                   "            pass\n"),
          alone(failures.test_what_fails_once_is_refused_and_then_taken, 6, FrontendError("no"))),
)  # fmt: skip
