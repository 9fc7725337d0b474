"""One partition of admissions without a broker: runs that ask, begin and end; what they were told; crashes at will."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from millrace_core.ids import RUN, derived_id
from millrace_core.messages import (
    AbsorbRun,
    AccountControl,
    AdmitRun,
    AskAdmission,
    CancelAdmissions,
    CancelRun,
    FlowControl,
    Message,
    Raw,
    RefuseRun,
    ReleaseAdmission,
    RunCommand,
    RunWaiting,
    SubscriptionControl,
    WaitReason,
    decode,
    encode,
)
from millrace_core.record import Output, Written
from millrace_orchestrator.admissions import Admissions, HeldBack
from millrace_orchestrator.admissions_handler import AdmissionsHandler
from millrace_orchestrator.flows import Flows
from tests.support.plans import ACCOUNT, NOW_MS
from tests.support.records import on, record
from tests.support.task import Task

SUB = "sub_1"


class Door:
    """The handler on one partition, and everything that anyone was told, in order. Time stands still by itself."""

    def __init__(self, flow: FlowControl | None = None, **bounds: int) -> None:
        self.flows = Flows()
        self.now_ms = NOW_MS
        self.task = Task(lambda: AdmissionsHandler(self.flows, admissions=Admissions(self.flows, **bounds)), ())
        self.told: list[tuple[int, Any]] = []
        self.asked: dict[str, AskAdmission] = {}
        self.live: dict[str, str] = {}
        self.offset = 0
        self.crashes = 0
        if flow is not None:
            self.change(flow)

    # ── what happens ────────────────────────────────────────────────────────────────────────────────────────────────
    def change(self, flow: FlowControl | None, subscription: str = SUB) -> None:
        """The flow in force from now on, of a subscription or (by its id) the account; None = it is deleted."""
        if subscription == ACCOUNT:
            self.flows.apply(ACCOUNT, ACCOUNT, encode(AccountControl(flow=flow)))
            return
        control = SubscriptionControl(
            account=ACCOUNT, pattern="e:a/b", target_kind="plan", target_id="job_1", created_at=0, flow=flow
        )
        self.flows.apply(ACCOUNT, subscription, None if flow is None else encode(control))

    def ask(
        self,
        key: str = "",
        *,
        priority: int = 100,
        input: bytes | None = None,
        subscription: str = SUB,
        offset: int | None = None,
    ) -> str:
        """One more run asks; its id. Its event comes after those before, or stands at this offset."""
        n = len(self.asked)
        run = derived_id(RUN, NOW_MS, "asked", str(n))
        asked = AskAdmission(
            run=run,
            account=ACCOUNT,
            subscription=subscription,
            key=key,
            priority=priority,
            partition=0,
            offset=n if offset is None else offset,
            at=self.now_ms,
            bundled=True,
            input=Raw(b"%d" % n if input is None else input),
        )
        self.asked[run] = asked
        self.turn(asked)
        return run

    def end(self, run: str) -> None:
        """A run that was told to begin is over."""
        key = self.live.pop(run)
        self.turn(ReleaseAdmission(run=run, account=ACCOUNT, subscription=self.asked[run].subscription, key=key))

    def cancel(self, key: str = "", *, offset: int | None = None) -> None:
        """An event after all that asked so far cancels its key."""
        self.turn(
            CancelAdmissions(
                account=ACCOUNT,
                subscription=SUB,
                event="evt_1",
                key=key,
                partition=0,
                offset=len(self.asked) if offset is None else offset,
                at=self.now_ms,
            )
        )

    def wait(self, ms: int) -> None:
        """Time goes on, and everything that is due on the way is done when it is due."""
        until = self.now_ms + ms
        while (due := self.task.handler.next_due_ms()) is not None and due <= until:
            self.now_ms = max(self.now_ms, due)
            self.turn()
        self.now_ms = until

    def turn(self, *messages: Message) -> None:
        """One transaction; if `crashes` are ordered it is lost so often before."""
        records = [self._record(message) for message in messages]
        for _ in range(self.crashes):
            self.task.turn(*records, now_ms=self.now_ms, crash=True)
        self._take(self.task.turn(*records, now_ms=self.now_ms))
        while self.task.handler.next_due_ms() == 0:
            self._take(self.task.turn(now_ms=self.now_ms))

    def _record(self, message: Message) -> Written:
        self.offset += 1
        run: str = getattr(message, "run", "")
        return record("admissions", self.offset, message, key=SUB, id=run or None, at_ms=self.now_ms)

    def _take(self, outputs: list[Output]) -> None:
        assert not on(outputs, "dead-letters-tx"), outputs
        for output in outputs:
            kind: Any = RunWaiting if output.topic == "run-facts" else RunCommand
            message: Any = decode(output.value, kind)
            assert output.key == message.run.encode()
            self.told.append((self.now_ms, message))
            if isinstance(message, AdmitRun):
                self.live[message.run] = self.asked[message.run].key

    # ── what came of it ─────────────────────────────────────────────────────────────────────────────────────────────
    def of(self, kind: type) -> list[Any]:
        return [message for _, message in self.told if isinstance(message, kind)]

    def begun(self) -> list[str]:
        return [message.run for message in self.of(AdmitRun)]

    def waits(self, run: str) -> tuple[str, int | None]:
        """What a run waits for, as last told."""
        message = [message for message in self.of(RunWaiting) if message.run == run][-1]
        return message.reason, message.until

    def held(self) -> Mapping[WaitReason, HeldBack]:
        """Who waits now, by what for."""
        handler = self.task.handler
        assert isinstance(handler, AdmissionsHandler)
        return handler.held()

    def ends(self) -> dict[str, list[Any]]:
        """What each run was told for good: to begin, or that it never will."""
        found: dict[str, list[Any]] = defaultdict(list)
        begun: set[str] = set()
        for message in self.of(AdmitRun) + self.of(AbsorbRun) + self.of(RefuseRun) + self.of(CancelRun):
            if isinstance(message, AdmitRun):
                begun.add(message.run)
            elif isinstance(message, CancelRun) and message.run in begun:
                continue  # at work: its end is its own
            found[message.run].append(message)
        return found

    def inputs(self, run: str) -> list[int]:
        """The list a run began with."""
        (message,) = [message for message in self.of(AdmitRun) if message.run == run]
        assert message.bundled
        return list(msgspec.json.decode(bytes(message.input)))
