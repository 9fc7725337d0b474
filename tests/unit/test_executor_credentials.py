"""Credentials in steps: looked up for each attempt, in the request, and in nothing that is kept."""

import asyncio
import json
from typing import Any

import pytest

from millrace_core.clock import ManualClock
from millrace_core.errors import Reject, Retry
from millrace_core.expressions import Scope
from millrace_core.keyring import KeyRing, credential_value, new_ring_entry
from millrace_core.messages import CredentialControl, StepResult, decode, encode
from millrace_core.record import Written
from millrace_executor.credentials import Credentials
from millrace_executor.nodes import NODES
from millrace_executor.ports import Attempt, StepFailed, Tools
from millrace_executor.worker import Executor
from millrace_runtime.egress import Answer
from tests.unit.test_executor_nodes import FakeSender, step_of

RING = KeyRing.parse(new_ring_entry("k1"))
ID = f"cred_{7:032x}"
SECRET = "xoxb-your-token"


class Silent:
    def attempted(self, type: str, outcome: str, seconds: float) -> None: ...


def control(value: str = SECRET, *, account: str = "acc", id: str = ID, **more: Any) -> bytes:
    sealed = RING.seal(value, account=account, name=credential_value(id))
    members = {"name": "Slack", "type": "bearer", "where": "header", "parameter": "Authorization", "prefix": "Bearer "}
    return encode(CredentialControl(account=account, secret=sealed, **(members | more)))


async def at_once() -> None:
    """The view is as new as can be."""


def followed(*values: bytes | None) -> Credentials:
    credentials = Credentials(RING, at_once)
    for value in values or (control(),):
        credentials.apply("acc", ID, value)
    return credentials


def opened(credentials: Credentials, named: str, account: str = "acc") -> str:
    return asyncio.run(credentials.get(account, named)).value


def failed(credentials: Credentials, named: str, account: str = "acc") -> str:
    with pytest.raises(StepFailed) as failure:
        opened(credentials, named, account)
    assert SECRET not in str(failure.value)
    return failure.value.error.code


def test_it_is_found_by_id_and_by_name_in_its_account_only() -> None:
    credentials = followed()
    assert opened(credentials, ID) == opened(credentials, "Slack") == SECRET
    assert failed(credentials, "Slack", "other") == failed(credentials, ID, "other") == "credential_missing"


def test_a_rotated_value_holds_and_a_deleted_one_does_not() -> None:
    assert opened(followed(control(), control("another-token")), "Slack") == "another-token"
    gone = followed(control(), None)
    assert failed(gone, ID) == failed(gone, "Slack") == "credential_missing"


def test_a_name_that_went_to_another_credential_is_the_others() -> None:
    credentials = followed()
    other = f"cred_{8:032x}"
    credentials.apply("acc", ID, None)
    credentials.apply("acc", other, control("second-token", id=other))
    credentials.apply("acc", ID, None)
    assert opened(credentials, "Slack") == "second-token"


def test_one_sealed_for_another_place_does_not_open() -> None:
    moved = control(id=f"cred_{8:032x}")
    assert failed(followed(moved), ID) == "credential_sealed"


def test_without_a_view_the_step_is_tried_again() -> None:
    async def away() -> None:
        raise Retry("away")

    credentials = Credentials(RING, away)
    credentials.apply("acc", ID, control())
    assert failed(credentials, ID) == "credential_unknown"


def send(answer: Answer, config: dict[str, Any]) -> tuple[FakeSender, StepResult]:
    """One step, to the record that is written of it."""
    sender = FakeSender(answer)
    tools = Tools(sender, ManualClock(), credentials=followed())
    executor = Executor(nodes=NODES, tools=tools, meter=Silent())
    step = encode(step_of("http", {"url": "https://slack.com/api/x", "credential": "Slack"} | config))
    (output,) = asyncio.run(executor.work(Written("steps", 0, 5, 1_000, b"k", step)))
    assert SECRET.encode() not in (output.value or b"")
    return sender, decode(output.value, StepResult)


def test_a_step_sends_it_and_keeps_nothing_of_it() -> None:
    echo = Answer(200, [(b"x-echo", SECRET.encode())], json.dumps({"you": f"Bearer {SECRET}"}).encode())
    sender, result = send(echo, {})
    assert f"\r\nauthorization: Bearer {SECRET}\r\n".encode() in sender.sent[0][1]
    output = json.loads(bytes(result.output))
    assert (output["headers"]["x-echo"], output["body"]) == ("***", '{"you": "Bearer ***"}')


def test_an_error_keeps_nothing_of_it_either() -> None:
    _, result = send(Answer(401, [], f"bad token {SECRET}".encode()), {})
    assert result.error is not None
    assert result.error.message.endswith("It said: bad token ***")
    _, result = send(Answer(200), {"headers": {"Authorization": "mine"}})
    assert result.error is not None
    assert result.error.code == "invalid_config"


def test_a_step_without_one_asks_for_none() -> None:
    sender = FakeSender(Answer(200))
    attempt = Attempt(step_of("http", {"url": "https://e.com/"}), Written("steps", 0, 5, 1, b"k", b""), Scope({}))
    asyncio.run(NODES["http"](attempt, Tools(sender, ManualClock())))  # type: ignore[arg-type]
    assert b"authorization" not in sender.sent[0][1]


def test_a_value_of_another_account_is_not_followed() -> None:
    credentials = Credentials(RING, at_once)
    credentials.apply("acc", ID, control(account="other"))
    assert failed(credentials, ID) == "credential_missing"
    with pytest.raises(Reject):
        credentials.apply("acc", ID, b"{}")
