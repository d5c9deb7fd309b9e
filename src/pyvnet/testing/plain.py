# SPDX-License-Identifier: MIT
"""The same script in plain calls, for tests that are no coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pyvnet.errors import UsageError
from pyvnet.testing.expectation import ExpectationError
from pyvnet.testing.rig import scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from pyvnet.driver.receive import Frame
    from pyvnet.spec.rss import RssConfig
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.wire import SentFrame

_T = TypeVar("_T")


class PlainVnet:
    """The verbs of `Vnet` without ``await``; the arguments are its.

    It has an event loop of its own, which runs during calls only.  The device's
    threads go on in between; control commands and their answers are calls, too.

    Args:
        options: for `scenario`.

    Attributes:
        script: the `Vnet` below, for what is not here; await with `call`.
    """

    script: Vnet

    def __init__(self, **options: Any) -> None:
        self._open = scenario(**options)
        # With a factory of its own a runner leaves the thread's current loop alone.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def call(self, awaitable: Awaitable[_T]) -> _T:
        """Run anything awaitable on the device's loop: ``call(vnet.script.driver.ctrl.…)``."""
        __tracebackhide__ = True
        try:
            _check_no_loop()
        except UsageError:
            if isinstance(awaitable, Coroutine):
                awaitable.close()  # else it would be told as forgotten
            raise

        async def run() -> _T | ExpectationError | UsageError:
            try:
                return await awaitable
            except (ExpectationError, UsageError) as error:
                return error

        result = self._runner.run(run())
        if isinstance(result, ExpectationError | UsageError):
            raise result.with_traceback(None)  # so that it does not drag the loop along
        return result

    def inject(self, *packets: Any, **options: Any) -> list[bytes]:
        """`Vnet.inject`."""
        __tracebackhide__ = True
        return self.script.inject(*packets, **options)

    def expect(self, frame: Any = None, **wanted: Any) -> Frame:
        """`Vnet.expect`."""
        __tracebackhide__ = True
        return self.call(self.script.expect(frame, **wanted))

    def expect_nothing(self, **options: Any) -> None:
        """`Vnet.expect_nothing`."""
        __tracebackhide__ = True
        self.call(self.script.expect_nothing(**options))

    def send(self, *packets: Any, **options: Any) -> list[bytes]:
        """`Vnet.send`."""
        __tracebackhide__ = True
        return self.call(self.script.send(*packets, **options))

    def expect_sent(self, frame: Any = None, **wanted: Any) -> SentFrame:
        """`Vnet.expect_sent`."""
        __tracebackhide__ = True
        return self.call(self.script.expect_sent(frame, **wanted))

    def expect_nothing_sent(self, **options: Any) -> None:
        """`Vnet.expect_nothing_sent`."""
        __tracebackhide__ = True
        self.call(self.script.expect_nothing_sent(**options))

    def steer(self, **options: Any) -> RssConfig:
        """`Vnet.steer`."""
        __tracebackhide__ = True
        return self.call(self.script.steer(**options))

    def predict(self, frame: Any) -> dict[str, Any]:
        """`Vnet.predict`."""
        return self.script.predict(frame)

    def counters(self) -> dict[str, int]:
        """`Vnet.counters`."""
        return self.script.counters()

    def __enter__(self) -> Self:
        _check_no_loop()
        try:
            self.script = self.call(self._open.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.call(self._open.__aexit__(kind, error, trace))
        finally:
            self._runner.close()


def _check_no_loop() -> None:
    __tracebackhide__ = True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError("plain calls cannot be made inside a coroutine: use `vnet`")
