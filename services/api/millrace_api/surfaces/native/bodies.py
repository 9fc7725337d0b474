"""What native routes take: types and sizes. Meaning is the application's to judge.

A PATCH names the members that change; `null` clears a member that may be absent.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from millrace_api.application import backtests, keys, people, plans, redriving, replays, subscriptions, webhooks
from millrace_api.application.problems import Invalid
from millrace_api.surfaces.bodies import LEFT_OUT, Body, Description, Moment, Name, Patch, Text
from millrace_core import limits
from millrace_core.actions import Role
from millrace_core.credentials import Surface
from millrace_core.dead_letters import SENT_AGAIN_TO
from millrace_web.paging import CURSOR_CHARS_MAX

PRIORITY_MAX = 1_000

Pattern = Annotated[Text, Field(min_length=1, max_length=256, examples=["e:github/push", "e:github/*"])]
Priority = Annotated[int, Field(ge=0, le=PRIORITY_MAX, description="Lower starts first.")]


class NewKey(Body):
    name: Name
    scopes: Annotated[list[str], Field(min_length=1, max_length=100, examples=[["read:runs", "manage:subscriptions"]])]
    surface: Surface = "automation"
    test: bool = False
    expires_at: Moment | None = None
    person: Annotated[str, Field(max_length=64, description="Whose key it is: his role bounds it.")] | None = None

    def wanted(self) -> keys.NewKey:
        return keys.NewKey(self.name, self.scopes, self.surface, self.test, self.expires_at, self.person)


class KeyPatch(Patch):
    name: Name


class KeyRotation(Body):
    grace_s: Annotated[int, Field(ge=0, le=keys.GRACE_S_MAX, description="How long the key before is good too.")] = (
        keys.GRACE_S
    )


Email = Annotated[Text, Field(max_length=people.EMAIL_CHARS_MAX, examples=["user@example.com"])]


class NewPerson(Body):
    email: Email
    name: Name | None = None
    role: Role = "member"


class PersonPatch(Patch):
    name: Name | None = None
    role: Role = LEFT_OUT


class NewAccount(Body):
    """Who signs up."""

    name: Annotated[Name, Field(description="Of the account; no two have the same.", examples=["Shop"])]
    email: Annotated[Email, Field(description="Of its owner.")]


class Target(Body):
    type: Literal["job", "chain", "workflow", "webhook"]
    id: Annotated[str, Field(max_length=64)]

    def wanted(self) -> subscriptions.Target:
        return subscriptions.Target(self.type, self.id)


Filter = Annotated[
    dict[str, Any],
    Field(
        description="A JSON pattern nested like `properties`; each leaf lists alternatives.",
        examples=[{"pull_request": {"merged": [True]}, "action": ["closed", {"prefix": "re"}]}],
    ),
]
Where = Annotated[
    Text,
    Field(
        max_length=limits.EXPRESSION_CHARS_MAX,
        description="A CEL expression over `input` (the properties) and `event`.",
        examples=["input.amount > 100.0"],
    ),
]


Seconds = Annotated[float, Field(gt=0)]
Expression = Annotated[Text, Field(max_length=limits.EXPRESSION_CHARS_MAX)]


class FlowConcurrency(Body):
    """Runs at a time."""

    floor: Annotated[int, Field(ge=0, description="A key with fewer goes before others when `total` is reached.")] = 0
    ceiling: Annotated[int | None, Field(ge=1, description="Of one key.")] = None
    total: Annotated[int | None, Field(ge=1, description="Of all keys.")] = None


class Throttle(Body):
    """How many runs of a key may begin within any `period_s`."""

    limit: Annotated[int, Field(ge=1)]
    period_s: Seconds


class Debounce(Body):
    """One run for a burst: with the latest event, the first, or a list of all."""

    mode: Literal["latest", "first", "all"] = "latest"
    quiet_s: Annotated[float, Field(gt=0, description="It begins when no event of the key came for so long,")]
    longest_s: Annotated[float, Field(gt=0, description="or so long after the first.")]


class Batch(Body):
    """One run for up to `size` events; its input is the list of their properties."""

    size: Annotated[int, Field(ge=2, le=limits.FLOW_BATCH_ITEMS_MAX)]
    wait_s: Annotated[float, Field(gt=0, description="How long the first waits for the others at most.")]


class CancelOn(Body):
    """Events that cancel the runs, waiting or at work, of events before them under the same key."""

    pattern: Pattern
    filter: Filter | None = None
    where: Where | None = None
    key: Annotated[Expression | None, Field(description="Their key; left out = the flow's expression.")] = None


class Flow(Body):
    """When the runs of a subscription, or of an account, may begin. Changed, it holds for those that wait, too."""

    key: Annotated[
        Expression | None,
        Field(description="A CEL expression over `input` and `event`; left out = one key.", examples=["input.user.id"]),
    ] = None
    priority: Annotated[
        Expression | None,
        Field(description="A CEL expression, 0 to 1000, lower goes first.", examples=["input.urgent ? 0 : 100"]),
    ] = None
    concurrency: FlowConcurrency | None = None
    throttle: Throttle | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    drain: Annotated[bool, Field(description="Let nothing begin; what is at work ends, what waits stays.")] = False
    cancel_on: CancelOn | None = None

    def written(self) -> dict[str, Any]:
        """The flow as JSON, without what was left out."""
        return self.model_dump(exclude_none=True)


class NewSubscription(Body):
    pattern: Pattern
    target: Target
    filter: Filter | None = None
    where: Where | None = None
    priority: Annotated[
        Priority | None,
        Field(
            description="Of those who hear an event, lower starts first, and none waits for another's end. Left out = "
            f"{subscriptions.AUTOMATION_PRIORITY} for automation rules (jobs, chains, workflows), "
            f"{subscriptions.PRIORITY['webhook']} for webhooks."
        ),
    ] = None
    enabled: bool = True
    flow: Annotated[
        Flow | None,
        Field(
            description="Of jobs and chains: when their runs may begin.",
            examples=[
                {"key": "input.user.id", "concurrency": {"ceiling": 1}, "throttle": {"limit": 10, "period_s": 60}}
            ],
        ),
    ] = None

    def wanted(self) -> subscriptions.Wanted:
        return subscriptions.Wanted(
            pattern=self.pattern,
            target=self.target.wanted(),
            filter=self.filter,
            where=self.where,
            priority=self.priority,
            enabled=self.enabled,
            flow=None if self.flow is None else self.flow.written(),
        )


class SubscriptionPatch(Patch):
    pattern: Pattern = LEFT_OUT
    target: Target = LEFT_OUT
    filter: Filter | None = None
    where: Where | None = None
    priority: Priority = LEFT_OUT
    enabled: bool = LEFT_OUT
    flow: Flow | None = None

    def named(self) -> dict[str, Any]:
        given = super().named()
        if "target" in given:
            given["target"] = self.target.wanted()
        if self.flow is not None:
            given["flow"] = self.flow.written()
        return given


def _backtest_schema(schema: dict[str, Any]) -> None:
    for member in ("pattern", "target"):
        schema["properties"][member].pop("default", None)
    schema["examples"] = [
        {
            "pattern": "e:shop/order-*",
            "filter": {"order": {"total": [{"numeric": [">", 100]}]}},
            "target": {"type": "job", "id": "job_0190f1d2c3b47a5e8f6071829304a5b6"},
            "days": 7,
        },
        {"subscription": "sub_0190f1d2c3b47a5e8f6071829304a5b6", "changes": {"filter": None}, "days": 30},
    ]


class Backtest(NewSubscription):
    """A whole subscription, as it would be created, or `changes` to try on a `subscription` that is there."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_backtest_schema)

    pattern: Pattern = LEFT_OUT
    target: Target = LEFT_OUT
    subscription: Annotated[str | None, Field(max_length=64)] = None
    changes: Annotated[SubscriptionPatch | None, Field(description="As in a PATCH; left out = as it is now.")] = None
    days: Annotated[
        int | None, Field(ge=1, le=limits.BACKTEST_DAYS_MAX, description="Events of so many days before `until`.")
    ] = None
    since: Annotated[
        Moment | None, Field(description=f"Instead of `days`, which is {limits.BACKTEST_DAYS_DEFAULT} without either.")
    ] = None
    until: Annotated[Moment | None, Field(description="Events received before this; left out = now.")] = None
    cursor: Annotated[
        str | None,
        Field(max_length=CURSOR_CHARS_MAX, description="`meta.next_cursor` of the call before: go on where it ended."),
    ] = None

    def asked(self) -> backtests.Asked:
        """Raises Invalid unless it is one of the two."""
        members = sorted(self.model_fields_set & NewSubscription.model_fields.keys())
        over: dict[str, Any] = {"days": self.days, "since": self.since, "until": self.until}
        if self.subscription is not None:
            if members:
                raise Invalid("belongs into `changes` when a `subscription` is named", where=members[0])
            changes = {} if self.changes is None else self.changes.named()
            return backtests.Asked(subscription=self.subscription, changes=changes, **over)
        if self.changes is not None:
            raise Invalid("are of a `subscription`: name it", where="changes")
        for needed in ("pattern", "target"):
            if needed not in members:
                raise Invalid("is needed: give a whole subscription, or name a `subscription`", where=needed)
        return backtests.Asked(new=self.wanted(), **over)

    @property
    def listing(self) -> str:
        """What a cursor of it belongs to: the same question over any span."""
        span = {"cursor", "days", "since", "until"}
        return f"backtest {self.model_dump_json(exclude=span, exclude_unset=True)}"


class Retry(Body):
    attempts: Annotated[int, Field(ge=1, le=limits.STEP_ATTEMPTS_MAX)] = 3
    backoff: Literal["exponential", "fixed"] = "exponential"
    initial_s: Annotated[float, Field(ge=0)] = 1.0
    max_s: Annotated[float, Field(ge=0)] = 60.0


class Step(Body):
    """One step. `config` depends on the type: `http` {url, method, headers, body, expect, credential}, `transform`
    {expression} or {value}, `publish` {provider, name, properties, ordering_key}. `${…}` in it are expressions over
    `input`, `event`, `steps` and `previous`."""

    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    type: Literal["http", "transform", "publish"]
    config: dict[str, Any]
    retry: Retry | None = None
    timeout_s: Annotated[float, Field(gt=0, le=limits.STEP_TIMEOUT_S_MAX)] | None = None
    on_error: Literal["fail", "continue"] | None = None

    def written(self) -> dict[str, Any]:
        """The step as JSON, without what was left out."""
        return self.model_dump(exclude_none=True, exclude_unset=True) | {"config": self.config}


RunTimeout = Annotated[
    float, Field(gt=0, le=limits.RUN_TIMEOUT_S_MAX, description="For the whole run, retries included.")
]


class NewJob(Body):
    name: Name
    step: Step
    description: Description | None = None
    timeout_s: RunTimeout | None = None

    def wanted(self) -> plans.Wanted:
        return plans.Wanted(self.name, [self.step.written()], self.description, self.timeout_s)


class JobPatch(Patch):
    name: Name = LEFT_OUT
    step: Step = LEFT_OUT
    description: Description | None = None
    timeout_s: RunTimeout | None = None

    def named(self) -> dict[str, Any]:
        given = super().named()
        return {"steps": [given.pop("step").written()], **given} if "step" in given else given


Steps = Annotated[list[Step], Field(min_length=1, max_length=limits.PLAN_NODES_MAX)]


class NewChain(Body):
    name: Name
    steps: Steps
    description: Description | None = None
    timeout_s: RunTimeout | None = None

    def wanted(self) -> plans.Wanted:
        return plans.Wanted(self.name, [step.written() for step in self.steps], self.description, self.timeout_s)


class ChainPatch(Patch):
    name: Name = LEFT_OUT
    steps: Steps = LEFT_OUT
    description: Description | None = None
    timeout_s: RunTimeout | None = None

    def named(self) -> dict[str, Any]:
        given = super().named()
        return given | ({"steps": [step.written() for step in self.steps]} if "steps" in given else {})


Url = Annotated[Text, Field(min_length=1, max_length=limits.URL_CHARS_MAX, examples=["https://example.com/hook"])]
Events = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(
        max_length=webhooks.EVENTS_MAX,
        examples=[["workflow.executed", "form.submitted"], ["invoice.paid"], ["e:github/*"]],
        description="Names as the documents write them, and patterns of identifiers. A body's `type` says the same.",
    ),
]
Schedule = Annotated[
    list[float],
    Field(
        max_length=limits.WEBHOOK_ATTEMPTS_MAX - 1,
        description="Seconds between attempts; null = 5 s, 30 s, 2 min, 10 min, 30 min, 2 h, 6 h, 24 h.",
    ),
]
Timeout = Annotated[float, Field(gt=0, le=limits.WEBHOOK_TIMEOUT_S_MAX)]
Concurrency = Annotated[int, Field(ge=1, le=limits.ENDPOINT_CONCURRENCY_MAX)]
Rate = Annotated[
    float,
    Field(
        ge=limits.ENDPOINT_RATE_MIN,
        le=limits.ENDPOINT_RATE_MAX,
        description="Deliveries a second at most; null = as they come. What is more waits, and loses no attempt by it.",
    ),
]
Style = Annotated[
    webhooks.Style,
    Field(description="`ops` sends `X-OpsIQ-Signature` and its like, too; left out = that for signed callers only."),
]
WebhookPriority = Annotated[
    Priority, Field(description="When it is started among those that hear the same event: lower starts first.")
]
Secret = Annotated[str, Field(max_length=webhooks.SECRET_CHARS_MAX, description="Left out, a good one is made.")]


class NewWebhook(Body):
    url: Url
    events: Events = Field(default=[])
    secret: Secret | None = None
    description: Description | None = None
    enabled: bool = True
    retry_schedule_s: Schedule | None = None
    timeout_s: Timeout = limits.WEBHOOK_TIMEOUT_S
    concurrency: Concurrency = 32
    rate: Rate | None = None
    style: Style | None = None
    priority: WebhookPriority = subscriptions.PRIORITY["webhook"]

    def wanted(self, *, style: webhooks.Style) -> webhooks.Wanted:
        """`style` is that of a caller who names none."""
        return webhooks.Wanted(
            url=self.url,
            events=self.events,
            description=self.description,
            enabled=self.enabled,
            retry_schedule_s=self.retry_schedule_s,
            timeout_s=self.timeout_s,
            concurrency=self.concurrency,
            rate=self.rate,
            style=self.style or style,
            priority=self.priority,
        )


class WebhookPatch(Patch):
    url: Url = LEFT_OUT
    events: Events = LEFT_OUT
    description: Description | None = None
    enabled: bool = LEFT_OUT
    retry_schedule_s: Schedule | None = None
    timeout_s: Timeout = LEFT_OUT
    concurrency: Concurrency = LEFT_OUT
    rate: Rate | None = None
    style: Style = LEFT_OUT
    priority: WebhookPriority = LEFT_OUT


class SecretRotation(Body):
    secret: Secret | None = None
    grace_s: Annotated[
        int,
        Field(ge=0, le=webhooks.ROTATION_GRACE_S_MAX, description="How long the old secret signs too."),
    ] = webhooks.ROTATION_GRACE_S


class AccountPatch(Patch):
    unordered: Annotated[
        list[str],
        Field(max_length=1_000, description="Identifiers whose events need no order and may use all partitions."),
    ] = LEFT_OUT
    retention_days: Annotated[
        int,
        Field(
            ge=limits.RETENTION_DAYS_MIN,
            description="Days for which events, runs, deliveries and dead letters are kept and shown. What is older is "
            "hidden at once.",
        ),
    ] = LEFT_OUT
    flow: Annotated[
        Flow | None,
        Field(
            description="When the runs that events start from now on may begin, over all subscriptions: what a "
            "subscription's flow let go waits for this one, too. All but `debounce` and `batch`; null takes it away.",
            examples=[{"concurrency": {"total": 50}, "throttle": {"limit": 600, "period_s": 60}}],
        ),
    ] = None


class NewReplay(Body):
    since: Annotated[Moment, Field(description="Events received then or later.")]
    until: Annotated[Moment | None, Field(description="And before this; left out = now.")] = None
    pattern: Pattern = replays.EVERYTHING
    filter: Filter | None = None
    where: Where | None = None
    subscription: Annotated[
        str | None, Field(max_length=64, description="It alone hears them, however old they are; left out = all hear.")
    ] = None
    per_s: Annotated[int, Field(ge=1, le=limits.REPLAY_PER_S_MAX, description="Events a second at most.")] = (
        limits.REPLAY_PER_S_DEFAULT
    )
    dry_run: Annotated[bool, Field(description="Only count.")] = False

    def wanted(self) -> replays.Wanted:
        return replays.Wanted(
            since=self.since,
            until=self.until,
            pattern=self.pattern,
            filter=self.filter,
            where=self.where,
            subscription=self.subscription,
            per_s=self.per_s,
        )


class LettersToRedrive(Body):
    topic: Annotated[str | None, Field(max_length=64, description="Refused there.", examples=sorted(SENT_AGAIN_TO))] = (
        None
    )
    reason: Annotated[
        Text | None, Field(min_length=1, max_length=256, description="Contained in it, in upper or lower case.")
    ] = None
    since: Moment | None = None
    until: Annotated[Moment | None, Field(description="Left out = now.")] = None
    dry_run: Annotated[bool, Field(description="Only count.")] = False

    def chosen(self, now: datetime) -> redriving.Chosen:
        return redriving.Chosen(
            self.since or datetime.fromtimestamp(0, UTC), self.until or now, self.topic, self.reason
        )
