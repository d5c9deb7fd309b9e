# SPDX-License-Identifier: MIT
"""Arguments of ``pyvnet``, and the one place where errors become exit statuses.

Exit status: 0 done; 1 the thing failed; 2 wrong usage; 130 interrupted; 141 the
reader of our output went away (as of a program killed by SIGPIPE).  A failure
says what went wrong and what to do on stderr; with ``--debug`` or PYVNET_DEBUG
the traceback follows.

Only the module of the command asked for is imported: some load the C engine,
and ``pyvnet --help`` should not wait for it.  That is why the one-line
summaries stand here.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pyvnet.errors import HostError, PyvnetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final = {
    "demo": "prove queue and hash of every frame, on real traffic and without a guest",
    "serve": "serve a device to a virtual machine over vhost-user",
    "helper": "make tap and steering program for a device without privileges",
    "status": "what a running device negotiated, does and counts",
    "admin": "have a running device do something",
    "hash": "which queue frames land on, and why",
    "conformance": "does a virtio-net back-end do what the standard asks",
    "caps": "what this host can do and what the device offers",
    "bench": "how fast, side by side with the peers that are installed",
}

# QEMU's docs/interop/vhost-user.json: what a back-end of type net says of itself.
CAPABILITIES: Final = {"type": "net"}

_FAILED: Final = 1
_WRONG_USAGE: Final = 2
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status and lets no exception out."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if _asks_for_capabilities(arguments):
        print(json.dumps(CAPABILITIES))
        return 0
    return _run(arguments)


def back_end() -> int:
    """``pyvnet serve`` as a program of its own, as the description file names it."""
    return main(["serve", *sys.argv[1:]])


def _run(arguments: Sequence[str]) -> int:
    _buffer_stdout()
    debug = os.environ.get("PYVNET_DEBUG", "") not in {"", "0"}
    try:
        args = _parser(arguments).parse_args(arguments)
        debug |= args.debug
        status = _perform(args)
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else _FAILED
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except UsageError as error:
        return _fail(error, _WRONG_USAGE, debug=debug)
    except PyvnetError as error:
        return _fail(error, _FAILED, debug=debug)
    return status


def _perform(args: argparse.Namespace) -> int:
    try:
        status = int(import_module(_module(args.command)).run(args))
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _silence_stdout()
        raise HostError("cannot write to standard output", error.errno) from error
    return status


def _asks_for_capabilities(arguments: Sequence[str]) -> bool:
    """QEMU's back-end conventions: whatever else is asked for, right or wrong, does not matter."""
    return "--print-capabilities" in arguments and _command(arguments) == "serve"


def _command(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyvnet",
        description="A userspace, tap-backed virtio-net device with RSS and hash reporting.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    _add_debug(parser, default=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked_for = _command(arguments)
    for name, summary in COMMANDS.items():
        if name == asked_for:
            import_module(_module(name)).add_parser(subparsers)
            # Suppressed, or it would overwrite what stood before the command.
            _add_debug(subparsers.choices[name], default=argparse.SUPPRESS)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _add_debug(parser: argparse.ArgumentParser, *, default: Any) -> None:
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show tracebacks (PYVNET_DEBUG=1)"
    )


def _module(command: str) -> str:
    return f"pyvnet.daemon.commands.{command}"


def _fail(error: PyvnetError, status: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"pyvnet: {error}", file=sys.stderr)
    return status


def _buffer_stdout() -> None:
    """Let no text be lost that a pipe takes in pieces.

    Under ``-u`` or PYTHONUNBUFFERED print() writes once and looks away: what a
    write did not take is gone.  And writes to a pipe do come back early, in a
    process that has used io_uring (libuv does).
    """
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        sys.stdout = open(  # noqa: SIM115 - as long as the process
            sys.stdout.fileno(), "w", buffering=1, encoding=sys.stdout.encoding,
            errors=sys.stdout.errors, closefd=False,
        )  # fmt: skip


def _silence_stdout() -> None:
    """Keep the interpreter from complaining when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"pyvnet {version('pyvnet')}")
        parser.exit()
