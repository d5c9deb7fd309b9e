# SPDX-License-Identifier: MIT
"""What a capture says of its frames, against what comes out when they are judged again.

Our captures say in comments what steered (`pyvnet.capture.Steering`), each device
for itself; any capture may carry hash and queue as options.  What the command
line says takes the place of what the capture says, and is needed where it says
nothing: without a key nothing is compared, without a table no queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from pyvnet.capture import PacketFlag, Steering
from pyvnet.capture.words import report_name, steering_of, verdict_of
from pyvnet.capture.writer import device_of
from pyvnet.datapath.policy import Policy, Verdict
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashReport, HashType

if TYPE_CHECKING:
    from pyvnet.capture import CapturedFrame

_DIRECTION = PacketFlag.INBOUND | PacketFlag.OUTBOUND


@dataclass(frozen=True, slots=True)
class Given:
    """The command line's word; None: it has none."""

    key: bytes | None
    hash_types: HashType | None
    table: tuple[int, ...] | None
    unclassified: int | None


class Judgement(NamedTuple):
    """How a frame is judged again, and what of the verdict can be compared."""

    steering: Steering
    hash_known: bool
    queue_known: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a capture says of a received frame; None: nothing."""

    hash_report: int | None
    hash_value: int | None
    queue: int | None

    @classmethod
    def by(cls, frame: CapturedFrame) -> Self | None:
        """None for a frame that was sent, or that nothing is said of."""
        if frame.flags & _DIRECTION == PacketFlag.OUTBOUND:
            return None
        verdicts = (verdict_of(comment) for comment in frame.comments)
        words = next((verdict for verdict in verdicts if verdict is not None), None)
        report = words.hash_report if words else None
        value = frame.hash_value
        if value is None and words:
            value = words.hash_value
        queue = frame.queue
        if queue is None and words:
            queue = words.queue
        if report is None and value is None and queue is None:
            return None
        return cls(report, value, queue)

    def differs(self, verdict: Verdict, judgement: Judgement) -> bool:
        """Whether anything it says is not what came out."""
        hashed = verdict.hash_report != HashReport.NONE
        wrong = False
        if judgement.hash_known:
            if self.hash_report is not None:
                wrong = self.hash_report != verdict.hash_report
            if self.hash_value is not None and self.hash_report != HashReport.NONE:
                wrong = wrong or not hashed or self.hash_value != verdict.hash_value
        if judgement.queue_known and self.queue is not None:
            wrong = wrong or self.queue != verdict.queue
        return wrong

    def as_json(self, *, differs: bool | None) -> dict[str, object]:
        """``agrees`` None: it cannot be compared."""
        return {
            "type": report_name(self.hash_report) if self.hash_report else None,
            "report": self.hash_report,
            "hash": None if self.hash_value is None else f"0x{self.hash_value:08x}",
            "queue": self.queue,
            "agrees": None if differs is None else not differs,
        }

    def as_text(self) -> str:
        """In the words of comments."""
        words = []
        if self.hash_report:
            words.append(report_name(self.hash_report))
        if self.hash_report == HashReport.NONE:
            words.append("no hash")
        elif self.hash_value is not None:
            words.append(f"hash 0x{self.hash_value:08x}")
        if self.queue is not None:
            words.append(f"queue {self.queue}")
        return " ".join(words)


class Judge:
    """Judges frames in their order; a context manager, or close it at the end.

    ``table`` is for frames of which neither command line nor capture names one.
    """

    def __init__(self, given: Given, table: tuple[int, ...]) -> None:
        self._given = given
        self.table = table
        self._said: dict[str, Steering] = {}
        self._latest: Steering | None = None
        self._policy: Policy | None = None
        self._steering: Steering | None = None
        self.unclassified = given.unclassified or 0
        """Where frames without a hash went, the last that was judged."""
        self.changes = 0
        """How often a capture said that something else steers from now on."""

    def judgement(self, frame: CapturedFrame) -> Judgement:
        """What a frame is judged by."""
        if frame.index == 0:
            self._said.clear()  # another file
        device = device_of(frame.interface_name)
        for comment in frame.comments:
            if (said := steering_of(comment)) is not None:
                self.changes += self._latest not in {None, said}
                self._latest = self._said[device] = said
        return self._complete(self._said.get(device))

    def _complete(self, said: Steering | None) -> Judgement:
        given = self._given
        hashes = said is not None and bool(said.hash_types or said.indirection_table)
        if said is None or not hashes:
            said = Steering(int(ALL_HASH_TYPES), VERIFICATION_KEY)
        hash_known = hashes or given.key is not None
        steering = Steering(
            said.hash_types if given.hash_types is None else int(given.hash_types),
            said.key if given.key is None else given.key,
            given.table or said.indirection_table or self.table,
            said.unclassified_queue if given.unclassified is None else given.unclassified,
            said.ex_types_always,
        )
        table_known = bool(given.table or said.indirection_table)
        return Judgement(steering, hash_known, hash_known and table_known)

    def judge(self, frame: CapturedFrame, judgement: Judgement) -> Verdict:
        """What a device with this steering does with the frame."""
        self.unclassified = judgement.steering.unclassified_queue
        if self._policy is None or judgement.steering != self._steering:
            self.close()
            self._steering = judgement.steering
            steering = judgement.steering
            self._policy = Policy.create(
                mode="rss",
                hash_types=steering.hash_types,
                key=steering.key,
                indirection_table=steering.indirection_table,
                unclassified_queue=steering.unclassified_queue,
                ex_types_always=steering.ex_types_always,
            )
        return self._policy.classify(frame.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the policy back; harmless twice."""
        policy, self._policy = self._policy, None
        if policy is not None:
            policy.close()
