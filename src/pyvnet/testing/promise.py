# SPDX-License-Identifier: MIT
"""Coroutines that must be awaited: a test that forgets it would pass and prove nothing."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Callable[..., Coroutine[Any, Any, Any]]")


class Promises:
    """What was promised and has not been awaited yet."""

    def __init__(self) -> None:
        self.unawaited: dict[Promise[Any], str] = {}

    def forgotten(self) -> str:
        """Name, once, the verbs that were called and never awaited; "" where there are none."""
        names = list(self.unawaited.values())
        for promise in list(self.unawaited):
            promise.close()
        if not names:
            return ""
        return f"not awaited, so not done: {', '.join(names)}; write `await vnet.{names[0]}(…)`"


class Promise(Coroutine[Any, Any, _T]):
    """A coroutine that tells its owner when it is started."""

    def __init__(self, owner: Promises, name: str, coroutine: Coroutine[Any, Any, _T]) -> None:
        self._owner = owner
        self._coroutine = coroutine
        owner.unawaited[self] = name

    def __await__(self) -> Generator[Any, Any, _T]:
        self._started()
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """As of any coroutine."""
        self._started()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As of any coroutine."""
        self._started()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As of any coroutine."""
        self._started()
        self._coroutine.close()

    def _started(self) -> None:
        self._owner.unawaited.pop(self, None)


def promised(verb: _F) -> _F:
    """Decorate a coroutine method of `Promises`."""

    @wraps(verb)
    def call(self: Promises, *args: Any, **kwargs: Any) -> Promise[Any]:
        return Promise(self, verb.__name__, verb(self, *args, **kwargs))

    return cast("_F", call)
