"""The node of an action: what is posted, how it is signed, and everything that must be refused before it is."""

import asyncio
import hashlib
import hmac
import json
from typing import Any

import msgspec
import pytest

from millrace_core import actions
from millrace_core.clock import ManualClock
from millrace_core.errors import Reject
from millrace_core.expressions import Scope
from millrace_core.keyring import KeyRing, action_secret, new_ring_entry
from millrace_core.messages import ActionControl, Raw, Step, encode
from millrace_core.plans import ActionConfig
from millrace_core.record import Written
from millrace_executor.actions import Actions
from millrace_executor.nodes import action
from millrace_executor.ports import Attempt, Done, StepFailed, Tools
from millrace_runtime.egress import Answer
from tests.unit.test_executor_nodes import FakeSender

ACCOUNT, ACTION, RUN = "acc_1", "act_018f0000000070008000000000000001", "exec_018f0000000070008000000000000001"
SECRET = "as_0123456789"
RING = KeyRing.parse(new_ring_entry("k1"))
CONTRACT: dict[str, Any] = {
    "id": "saas.refund",
    "description": "Refund",
    "surface": "admin",
    "roles": ["owner"],
    "endpoint": "https://example.com/actions",
}
PARAMS = {"b": 1, "a": "ä"}


def control(contract: dict[str, Any] = CONTRACT, *, account: str = ACCOUNT, seal: str | None = None) -> bytes:
    content = actions.canonical(contract)
    return encode(
        ActionControl(
            account=account,
            name=contract["id"],
            version=2,
            secret=RING.seal(SECRET, account=account, name=action_secret(ACTION)),
            seal=seal or actions.sign(SECRET, content),
            contract=Raw(content),
        )
    )


def registry(value: bytes | None = None) -> Actions:
    made = Actions(RING)
    made.apply(ACCOUNT, ACTION, control() if value is None else value)
    return made


def config(**more: Any) -> ActionConfig:
    digest = actions.digest(actions.canonical(CONTRACT))
    plain = ActionConfig(
        action=ACTION,
        name="saas.refund",
        version=2,
        digest=digest,
        arguments_hash=actions.arguments_hash(ACCOUNT, "saas.refund", digest, '{"a":"ä","b":1}'.encode()),
        actor="key_1",
        role="owner",
    )
    return msgspec.structs.replace(plain, **more)


def run(
    sender: FakeSender, *, known: Actions | None = None, attempt: int = 1, account: str = ACCOUNT, **more: Any
) -> Done:
    step = Step(
        run=RUN, account=account, node="action", attempt=attempt, type="action", key=f"{RUN}/{attempt}", timeout_s=5.0,
        config=Raw(msgspec.json.encode(config(**more))),
    )  # fmt: skip
    tools = Tools(sender, ManualClock(), registry=known or registry())
    made = Attempt(step, Written("steps", 0, 5, 1_000, b"k", b""), Scope({"input": PARAMS}))
    return asyncio.run(action.run(made, tools))


def sent(sender: FakeSender) -> tuple[dict[str, str], bytes]:
    _target, head, body, account = sender.sent[-1]
    assert account == ACCOUNT
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line), body


def test_the_call_is_a_signed_post_and_its_answer_the_output() -> None:
    sender = FakeSender(Answer(200, [(b"content-type", b"application/json")], b'{"refunded": 1.50}'))
    assert run(sender).output == b'{"refunded": 1.50}'
    headers, body = sent(sender)
    assert headers["x-opsiq-signature"] == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    loaded = json.loads(body)
    assert loaded["params"] == PARAMS
    assert (loaded["id"], loaded["action"], loaded["version"]) == (RUN, "saas.refund", 2)
    assert loaded["actor"] == {"key": "key_1", "role": "owner"}
    assert "timestamp" in loaded


def test_every_attempt_has_the_same_ids() -> None:
    sender = FakeSender(Answer(204))
    assert run(sender, attempt=1).output == b"null"
    first, _ = sent(sender)
    run(sender, attempt=2)
    second, _ = sent(sender)
    for name in ("x-opsiq-idempotency-key", "x-opsiq-delivery-id"):
        assert first[name] == second[name] == RUN


@pytest.mark.parametrize(("status", "retryable"), [(500, True), (503, True), (429, True), (400, False), (302, False)])
def test_an_answer_that_is_no_success_fails_the_attempt(status: int, retryable: bool) -> None:
    with pytest.raises(StepFailed) as failed:
        run(FakeSender(Answer(status, [], b"no")))
    assert failed.value.error.code == f"http_{status}"
    assert failed.value.error.retryable is retryable


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"action": "act_018f0000000070008000000000000002"}, "action_gone"),
        ({"digest": "0" * 64}, "contract_changed"),
        ({"name": "saas.other"}, "contract_changed"),
        ({"arguments_hash": "0" * 64}, "arguments_changed"),
    ],
)
def test_what_was_not_let_in_is_not_sent(more: dict[str, Any], code: str) -> None:
    sender = FakeSender(Answer(200))
    with pytest.raises(StepFailed) as failed:
        run(sender, **more)
    assert (failed.value.error.code, failed.value.error.retryable) == (code, False)
    assert sender.sent == []


def test_an_action_of_another_account_is_not_found() -> None:
    sender = FakeSender(Answer(200))
    with pytest.raises(StepFailed) as failed:
        run(sender, account="acc_2")
    assert failed.value.error.code == "action_gone"


@pytest.mark.parametrize(
    "value",
    [
        control(seal="sha256=" + "0" * 64),
        control(
            {**CONTRACT, "endpoint": "https://evil.example/"}, seal=actions.sign(SECRET, actions.canonical(CONTRACT))
        ),
        control(account="acc_2"),
        b"{}",
    ],
)
def test_a_contract_whose_seal_does_not_hold_is_not_run(value: bytes) -> None:
    sender = FakeSender(Answer(200))
    with pytest.raises(Reject):
        run(sender, known=registry(value))
    assert sender.sent == []


def test_a_change_holds_at_once_and_a_deleted_action_is_gone() -> None:
    known = registry()
    assert known.get(ACCOUNT, ACTION) is not None
    known.apply(ACCOUNT, ACTION, control({**CONTRACT, "endpoint": "https://other.example/"}))
    found = known.get(ACCOUNT, ACTION)
    assert found is not None
    assert found.endpoint == "https://other.example/"
    assert SECRET not in repr(found)
    known.apply(ACCOUNT, ACTION, None)
    assert known.get(ACCOUNT, ACTION) is None
