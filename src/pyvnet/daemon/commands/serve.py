# SPDX-License-Identifier: MIT
"""``pyvnet serve``: a vhost-user back-end for one device, or for those of a file.

Exit status: 0 ended as asked; 1 it could not start, or could not put a tap back
as it was; 2 wrong usage.  It stays in the foreground.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyvnet.daemon import config, options
from pyvnet.daemon.config import LOG_FORMATS, LOG_LEVELS, ServiceOptions
from pyvnet.daemon.options import ALL, DeviceOptions, Option
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a device to a virtual machine over vhost-user",
        description="Serve a device over vhost-user, in the foreground, until SIGTERM.",
        usage="pyvnet serve (--socket-path PATH | --fd N | --connect PATH | --config FILE)"
        " [options]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--print-capabilities", action="store_true", help='print {"type": "net"} and exit'
    )
    group = parser.add_argument_group("where the front-end comes from (one of the first four)")
    _add(group, options.SOCKETS[:3])
    group.add_argument("--config", metavar="FILE", help="many devices, described in TOML")
    _add(group, options.SOCKETS[3:])
    _add(parser.add_argument_group("host port"), options.HOST_PORT)
    _add(parser.add_argument_group("device"), options.DEVICE)
    _add(parser.add_argument_group("capture"), options.CAPTURE)
    _add(parser.add_argument_group("engine"), options.ENGINE)
    group = parser.add_argument_group("service")
    group.add_argument("--admin", metavar="PATH", help="answer `pyvnet status PATH` here")
    group.add_argument("--log-level", choices=LOG_LEVELS, help="least that is logged (info)")
    group.add_argument("--log-format", choices=LOG_FORMATS, help="form of the log lines (text)")


def _add(group: argparse._ArgumentGroup, several: tuple[Option, ...]) -> None:
    for option in several:
        if option.flag:
            group.add_argument(
                f"--{option.key}", action="store_true", default=None, help=option.help
            )
        else:
            group.add_argument(
                f"--{option.key}",
                metavar=option.metavar,
                type=_reader(option),
                help=option.help.replace("%", "%%"),
            )


def _reader(option: Option) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return option.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def run(args: argparse.Namespace) -> int:
    """Serve; returns the exit status."""
    wanted = _wanted(args)
    from pyvnet.daemon import named_fds, service

    wanted = replace(wanted, devices=named_fds.resolve(wanted.devices, os.environ))

    return service.run(wanted)


def _wanted(args: argparse.Namespace) -> ServiceOptions:
    given = {
        option.field: value
        for option in ALL.values()
        if (value := getattr(args, option.field)) is not None
    }
    service = {
        key: value
        for key in ("admin", "log_level", "log_format")
        if (value := getattr(args, key)) is not None
    }
    if args.config is not None:
        if given:
            named = ", ".join(f"--{key.replace('_', '-')}" for key in given)
            raise UsageError(f"{named}: with --config, devices are described in the file")
        return _checked(replace(config.load(args.config), **service))
    device = DeviceOptions(**given)
    problems = device.problems()
    if problems:
        raise UsageError("; ".join(problems))
    return _checked(ServiceOptions((device,), **service))


def _checked(wanted: ServiceOptions) -> ServiceOptions:
    """An admin socket named on the command line may still be in some device's way."""
    for clash in config.clashes(wanted.devices, wanted.admin):
        raise UsageError(clash)
    return wanted
