# SPDX-License-Identifier: MIT
"""``--config FILE.toml``: several devices in one process.

::

    admin = "/run/pyvnet/admin.sock"

    [[device]]
    name = "vm1"
    socket-path = "/run/pyvnet/vm1.sock"
    tap = "vm1"
    queues = 8

Keys of a device are its options, those at the top belong to the process.  All
that is wrong is reported at once.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyvnet.daemon.options import ALL, NAMED_FD, DeviceOptions
from pyvnet.daemon.readers import nearest
from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The process, and the devices in it."""

    devices: tuple[DeviceOptions, ...]
    admin: str | None = None
    log_level: str = "info"
    log_format: str = "text"


def load(path: str) -> ServiceOptions:
    """Read a configuration file.

    Raises:
        HostError: it cannot be read.
        UsageError: everything that is wrong with it, a line each.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise HostError(f"cannot read {path}", error.errno) from error
    if len(raw) > _MAX_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        document = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    found: list[str] = []
    options = _service(document, found)
    if found:
        raise UsageError(f"{path}:" + "".join(f"\n  {line}" for line in found))
    return options


def clashes(devices: Sequence[DeviceOptions], admin: str | None) -> Iterator[str]:
    """What two devices, or a device and the admin socket, cannot both have."""
    owners: dict[Hashable, str] = {}
    if admin is not None:
        owners["socket", _resolved(admin)] = "the admin socket"
    for device in devices:
        for key, shown in _claims(device):
            if key in owners:
                yield f"{device.name}: {shown} is used by {owners[key]} already"
            else:
                owners[key] = device.name


def _claims(device: DeviceOptions) -> Iterator[tuple[Hashable, str]]:
    yield ("name", device.name), f"the name {device.name!r}"
    for path in (device.socket_path, device.connect):
        if path is not None:
            yield ("socket", _resolved(path)), f"the socket {path}"
    if device.capture is not None:
        yield ("capture", _resolved(device.capture)), f"the capture {device.capture}"
    if device.tap is not None:
        yield ("tap", device.netns, device.tap), f"the tap {device.tap}"
    if device.mac is not None:
        yield ("mac", device.mac), f"the MAC {device.mac.hex(':')}"
    endpoint = () if device.fd is None or device.fd == NAMED_FD else (device.fd,)
    for fd in (*device.port_fds, *(device.bpf_fds or ()), *endpoint):
        yield ("fd", fd), f"fd {fd}"


def _resolved(path: str) -> str:
    folder, name = os.path.split(path)
    return str(Path(os.path.realpath(folder)) / name)


def _service(document: dict[str, Any], found: list[str]) -> ServiceOptions:
    values: dict[str, Any] = {}
    tables = document.pop("device", [])
    for key, value in document.items():
        if key not in _TOP:
            close = nearest(key, (*_TOP, "device"))
            hint = "; it belongs into a [[device]] table" if key in ALL else close
            found.append(f"unknown key {key!r}{hint}")
        elif wrong := _TOP[key](value):
            found.append(f"{key}: {value!r} is not {wrong}")
        else:
            values[key.replace("-", "_")] = value
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        found.append("device: write each device as a table headed [[device]]")
        tables = []
    elif not tables:
        found.append("there is no [[device]] table")
    read = [_device(table, index, found) for index, table in enumerate(tables)]
    devices = tuple(device for device in read if device is not None)
    found.extend(clashes(devices, values.get("admin")))
    return ServiceOptions(devices, **values)


def _device(table: dict[str, Any], index: int, found: list[str]) -> DeviceOptions | None:
    name = table.get("name")
    label = name if isinstance(name, str) and name else f"device {index + 1}"
    wrong: list[str] = []
    values: dict[str, Any] = {}
    if name is None:
        wrong.append("it has no name")
    for key, value in table.items():
        option = ALL.get(key)
        if option is None:
            wrong.append(f"unknown key {key!r}{nearest(key, ALL)}")
            continue
        try:
            values[option.field] = option.from_toml(value)
        except ValueError as error:
            wrong.append(f"{key}: {error}")
    device = DeviceOptions(**values)
    if not wrong:
        wrong = device.problems()
    found.extend(f"{label}: {line}" for line in wrong)
    # Even a device that is wrong in itself may clash, by what could be read of it.
    return device if name is not None and "name" in values else None


def _is_text(value: object) -> str:
    return "" if isinstance(value, str) and value else "a path"


def _one_of(*words: str) -> Any:
    def check(value: object) -> str:
        return "" if value in words else f"one of {', '.join(words)}"

    return check


# Each returns what the value should have been, or nothing.
_TOP: Final = {
    "admin": _is_text,
    "log-level": _one_of(*LOG_LEVELS),
    "log-format": _one_of(*LOG_FORMATS),
}
assert {key.replace("-", "_") for key in _TOP} | {"devices"} == {  # noqa: S101
    field.name for field in fields(ServiceOptions)
}
