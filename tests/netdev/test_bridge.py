# SPDX-License-Identifier: MIT
"""A tap as a bridge's port: made one, and left as it was."""

from __future__ import annotations

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Tap, rtnl
from tests.netdev.kernel import interfaces, ip

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("private_netns"),
]


def master(name: str) -> str | None:
    """Name of the bridge an interface is a port of."""
    words = ip("-o", "link", "show", name).split()
    return words[words.index("master") + 1] if "master" in words else None


def settings(name: str) -> tuple[object, ...]:
    """All there is to an interface but its counters: the kernel sends while it is up."""
    link = rtnl.existing(name)
    return link.index, link.up, link.carrier, link.mtu, link.master, link.tun


@pytest.fixture
def _bridges(private_netns: None) -> None:  # noqa: ARG001 - made in there
    for name in ("br0", "br1"):
        ip("link", "add", name, "type", "bridge")


@pytest.mark.usefixtures("_bridges")
def test_a_tap_of_our_own_joins() -> None:
    with Tap("ours", queues=2, bridge="br0"):
        assert master("ours") == "br0"
    assert interfaces() == {"lo", "br0", "br1"}


@pytest.mark.usefixtures("_bridges")
def test_a_foreign_tap_leaves_again() -> None:
    ip("tuntap", "add", "theirs", "mode", "tap")
    with Tap("theirs", queues=1, bridge="br0"):
        assert master("theirs") == "br0"
    assert master("theirs") is None
    assert "DOWN" in ip("-o", "link", "show", "theirs")


@pytest.mark.usefixtures("_bridges")
def test_a_port_that_was_one_before_stays() -> None:
    ip("tuntap", "add", "theirs", "mode", "tap")
    ip("link", "set", "theirs", "master", "br0")
    with Tap("theirs", queues=1, bridge="br0"):
        assert master("theirs") == "br0"
    assert master("theirs") == "br0"
    with Tap("theirs", queues=1):
        assert master("theirs") == "br0"
    assert master("theirs") == "br0"


@pytest.mark.usefixtures("_bridges")
def test_a_persistent_tap_of_ours_stays_a_port() -> None:
    with Tap("ours", queues=1, bridge="br0", persist=True):
        pass
    assert master("ours") == "br0"


@pytest.mark.usefixtures("_bridges")
@pytest.mark.parametrize(
    ("bridge", "message"),
    [
        ("br7", "br7 does not exist; `ip link add br7 type bridge` makes one"),
        ("lo", "lo is not a bridge"),
        ("br1", "tap theirs belongs to another bridge or bond; take it out"),
    ],
)
def test_what_is_refused_changes_nothing(bridge: str, message: str) -> None:
    ip("tuntap", "add", "theirs", "mode", "tap")
    ip("link", "set", "theirs", "master", "br0")
    before = settings("theirs")
    with pytest.raises(HostError, match=message):
        Tap("theirs", queues=1, bridge=bridge).open()
    assert settings("theirs") == before
    with pytest.raises(HostError):
        Tap("ours", queues=1, bridge=bridge if bridge != "br1" else "br7").open()
    assert "ours" not in interfaces()


def test_a_name_no_bridge_may_have() -> None:
    with pytest.raises(UsageError, match="cannot name an interface"):
        Tap("ours", queues=1, bridge="a/b")


@pytest.mark.usefixtures("_bridges")
def test_a_bridge_that_went_away_meanwhile() -> None:
    ip("tuntap", "add", "theirs", "mode", "tap")
    with Tap("theirs", queues=1, bridge="br0"):
        ip("link", "delete", "br0")
    assert master("theirs") is None
