# SPDX-License-Identifier: MIT
"""Which cases come by which mutant, so that no others need be run.

A case that never comes by a fault goes on as without it: it cannot fail.  "Comes by" is
seen in one run of the suite without faults, a case at a time.

    in the engine   the fault was asked for; it is asked for only where it makes a difference
    the device      the function gives another result, or raises something else, in its
                    faulty form than in its own, for what it was called with: there all
                    functions are pure
    the transport   the function was called

What the runner asks a device before the first case is a case of its own: a mutant that
makes it learn something else concerns all cases (`mutants.look`).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.conformance.cases import everything
from tests.conformance_suite import engine
from tests.conformance_suite.target import suite
from tests.spoilt import faulty, found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyvnet.conformance.run import Result
    from pyvnet.conformance.trial import Facts
    from pyvnet.datapath.native import Native
    from tests.conformance_suite.mutant import Mutant

    Learnt = tuple[Facts | None, ...]

_TIMEOUT: Final = 20.0
_PURE: Final = "device/"  # files of pure functions


class _Probe(NamedTuple):
    whole: Callable[..., Any]
    faulty: dict[str, Callable[..., Any]]  # by mutant


_probes: dict[str, _Probe] = {}
_met: set[str] = set()
_trying: list[bool] = []


def call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stand in for a function, and see which mutants would have made a difference."""
    probe = _probes[name]
    if not name.startswith(_PURE):
        _met.update(probe.faulty)
    elif not _trying:
        _try(probe, args, kwargs)
    return probe.whole(*args, **kwargs)


def _try(probe: _Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    others = probe.faulty.keys() - _met
    if not others:
        return
    _trying.append(True)  # what is called on the way is called for show
    try:
        rightly = _outcome(probe.whole, args, kwargs)
        _met.update(
            name for name in others if _outcome(probe.faulty[name], args, kwargs) != rightly
        )
    finally:
        _trying.pop()


def _outcome(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 (it is the outcome)
        return type(error), str(error)


@contextmanager
def _probed(mutants: Mapping[str, Mutant]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, mutant in mutants.items():
            for fault in mutant.faults:
                stack.enter_context(_watched(name, fault))
        yield
    _probes.clear()


@contextmanager
def _watched(mutant: str, fault: Any) -> Iterator[None]:
    function, code = found(fault), faulty(fault)
    name = f"{fault.file}:{fault.function}"
    if name in _probes:
        _probes[name].faulty[mutant] = _copy(function, code)
        yield
        return
    whole = function.__code__
    _probes[name] = _Probe(_copy(function, whole), {mutant: _copy(function, code)})
    stand_in = (
        "def stand_in(*args, **kwargs):\n"
        f"    from {__name__} import call\n"
        f"    return call({name!r}, args, kwargs)\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(stand_in, "stand-in", "exec"), scope)  # noqa: S102 (it is the text above)
    function.__code__ = scope["stand_in"].__code__
    try:
        yield
    finally:
        function.__code__ = whole


def _copy(function: FunctionType, code: Any) -> FunctionType:
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


async def reach(build: Native, mutants: Mapping[str, Mutant]) -> tuple[Learnt, dict[str, set[str]]]:
    """What the runner learns first, and mutant → cases that come by it, of all there are."""
    reached: dict[str, set[str]] = {name: set() for name in mutants}

    def note(result: Result) -> None:
        for name in (engine.met(build) | _met) & mutants.keys():
            reached[name].add(result.case.name)
        _met.clear()

    names = {case.name for case in everything()}
    with _probed(mutants):
        seen = await suite(build, names, timeout=_TIMEOUT, concurrency=1, on_result=note)
    assert None not in seen.facts
    return seen.facts, reached
