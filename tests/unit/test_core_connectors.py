"""What connectors may answer, and what the two that are shipped make of webhooks."""

import hashlib
import hmac
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from millrace_api.connectors.host import NoConnector, answered, loaded
from millrace_api.connectors.processes import SHIPPED, folders
from millrace_core import limits
from millrace_core.connectors import CALLS, WIRE_NAMES, Handled, Refusal, check_config, declared, handled, subscriber
from millrace_core.errors import Reject

NOW_MS = 1_790_000_000_000
NOW_S = NOW_MS // 1000


def test_the_five_calls_are_those_of_the_page() -> None:
    assert [WIRE_NAMES[call] for call in CALLS] == [
        "identityProviders",
        "contextProviders",
        "registerActions",
        "subscribers",
        "handleWebhook",
    ]


# ── what a connector may answer ─────────────────────────────────────────────────────────────────────────────────────
def test_events_are_taken_in_order() -> None:
    event = {"event": "invoice.paid", "payload": {"id": 1}, "unique_key": "e1", "ordering_key": "1"}
    made = handled([event, {"event": "ticket.created"}], now_ms=NOW_MS)
    assert isinstance(made, Handled)
    assert [one.identifier for one in made.events] == ["e:ops/invoice.paid", "e:ops/ticket.created"]
    assert (bytes(made.events[0].properties), made.events[0].unique_key) == (b'{"id":1}', "e1")
    assert handled({"refuse": {"status": 401, "message": "no"}}, now_ms=0) == Refusal(401, "no")
    assert handled({"refuse": "no"}, now_ms=0) == Refusal(400, "no")
    assert handled({"answer": {"challenge": "x"}}, now_ms=0) == Handled([], {"challenge": "x"})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "x",
        {"events": {}},
        [{"event": 1}],
        [{"event": "a b"}],
        [{"event": "a", "payload": []}],
        [{"event": "a", "unique_key": 1}],
        [{"event": "a", "timestamp": "never"}],
        {"refuse": {"status": 200, "message": "x"}},
        {"answer": []},
        [{"event": "a"}] * (limits.CONNECTOR_EVENTS_MAX + 1),
    ],
)
def test_what_is_no_answer_is_refused(answer: Any) -> None:
    with pytest.raises(Reject):
        handled(answer, now_ms=NOW_MS)


def test_nothing_is_deeper_than_json_may_be() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    for wrong in ([{"event": "a.b", "payload": deep}], {"answer": deep}):
        with pytest.raises(Reject):
            handled(wrong, now_ms=NOW_MS)
    with pytest.raises(Reject):
        declared("register_actions", [deep])
    with pytest.raises(Reject):
        check_config(deep)


def test_declarations_are_lists_of_objects() -> None:
    assert declared("subscribers", [{"events": ["invoice.paid"]}]) == [{"events": ["invoice.paid"]}]
    assert subscriber({"events": ["a.b"], "url": "https://x"}).url == "https://x"
    wrong_ones: list[Any] = [None, {}, [1], [{"events": []}], [{"events": ["e:x"]}], [{"events": ["a"], "url": 1}]]
    for wrong in wrong_ones:
        with pytest.raises(Reject):
            declared("subscribers", wrong)
    with pytest.raises(Reject):
        declared("register_actions", [{}] * (limits.CONNECTOR_DECLARED_MAX + 1))
    with pytest.raises(Reject):
        declared("register_actions", [{"a": "x" * limits.CONNECTOR_DECLARED_BYTES_MAX}])


# ── Stripe ──────────────────────────────────────────────────────────────────────────────────────────────────────────
SECRET = "whsec_test"


def stripe(kind: str, thing: dict[str, Any], *, at: int = NOW_S, secret: str = SECRET, **config: Any) -> Any:
    body = json.dumps({"id": "evt_1", "type": kind, "created": NOW_S, "data": {"object": thing}}).encode()
    mac = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    headers = {"stripe-signature": f"t={at},v1={'0' * 64},v1={mac},v0=x"}
    connection = SimpleNamespace(config=config, secrets={"webhook_secret": SECRET}, now=NOW_S)
    request = SimpleNamespace(method="POST", headers=headers, query="", body=body)
    return loaded(SHIPPED / "stripe").handle_webhook(connection, request)


def test_a_stripe_invoice_tells_of_its_customer() -> None:
    invoice = {
        "id": "in_1",
        "status": "paid",
        "amount_paid": 900,
        "customer": "cus_1",
        "customer_name": "Adam",
        "customer_email": "a@b",
        "subscription": {"id": "sub_1"},
        "status_transitions": {"paid_at": NOW_S},
        "default_payment_method": "pm_1",
    }
    (event,) = stripe("invoice.paid", invoice)["events"]
    assert (event["event"], event["unique_key"], event["ordering_key"]) == ("invoice.paid", "evt_1", "in_1")
    payload = event["payload"]
    assert payload["customer"] == {"id": "cus_1", "name": "Adam", "email": "a@b"}
    assert (payload["subscription_id"], payload["paid_at"]) == ("sub_1", "2026-09-21T14:13:20Z")
    assert "default_payment_method" not in payload
    assert isinstance(handled({"events": [event]}, now_ms=NOW_MS), Handled)


def test_a_stripe_subscription_that_ends_is_cancelled_not_erased() -> None:
    items = {
        "data": [{"quantity": 2, "price": {"nickname": "pro", "unit_amount": 5, "recurring": {"interval": "month"}}}]
    }
    thing = {"id": "sub_1", "customer": "cus_1", "status": "canceled", "items": items}
    (event,) = stripe("customer.subscription.deleted", thing)["events"]
    assert event["event"] == "subscription.cancelled"
    assert event["payload"] == {
        "id": "sub_1",
        "customer_id": "cus_1",
        "plan": "pro",
        "amount": 5,
        "interval": "month",
        "quantity": 2,
        "status": "cancelled",
    }
    assert stripe("customer.deleted", {"id": "cus_1"})["events"][0]["event"] == "customer.deleted"
    assert stripe("charge.refunded", {"id": "ch_1"}) == {"events": []}


def test_a_stripe_signature_must_match_and_be_of_now() -> None:
    assert stripe("customer.created", {"id": "c"}, at=NOW_S - 299)["events"]
    for refused in (
        stripe("customer.created", {"id": "c"}, secret="other"),
        stripe("customer.created", {"id": "c"}, at=NOW_S - 301),
        stripe("customer.created", {"id": "c"}, at=NOW_S + 301),
        stripe("customer.created", {"id": "c"}, at=NOW_S - 20, tolerance_s=10),
    ):
        assert refused["refuse"]["status"] == 401
        assert SECRET not in str(refused)


# ── HTTP and JSON ───────────────────────────────────────────────────────────────────────────────────────────────────
def http_json(config: dict[str, Any], body: bytes, headers: dict[str, str], secret: str = "s3cret") -> Any:
    connection = SimpleNamespace(config=config, secrets={"webhook_secret": secret} if secret else {}, now=NOW_S)
    request = SimpleNamespace(method="POST", headers=headers, query="", body=body)
    return loaded(SHIPPED / "http_json").handle_webhook(connection, request)


RULES = [
    {
        "when": {"type": "order.created"},
        "event": "ticket.created",
        "payload": {"id": "$.order.id", "x": "$.none", "customer": {"id": "$.user.id"}, "from": "shop"},
        "unique_key": "$.id",
    },
    {"when": {"type": "users"}, "each": "$.users", "event": "customer.updated", "payload": {"id": "$item.id"}},
    {"event": "$.type", "unique_key": "$.id"},
]


def test_a_mapping_says_which_events_a_body_means() -> None:
    config = {"events": RULES, "token": "X-Token"}
    headers = {"x-token": "s3cret"}

    def events(body: dict[str, Any]) -> Any:
        return http_json(config, json.dumps(body).encode(), headers)["events"]

    order = {"id": 7, "type": "order.created", "order": {"id": 1}, "user": {"id": "u"}}
    payload = {"id": 1, "customer": {"id": "u"}, "from": "shop"}
    assert events(order) == [{"event": "ticket.created", "payload": payload, "unique_key": "7"}]
    assert [one["payload"] for one in events({"type": "users", "users": [{"id": 1}, {"id": 2}]})] == [
        {"id": 1},
        {"id": 2},
    ]
    assert events({"type": "any.thing", "id": "k"})[0]["payload"] == {"type": "any.thing", "id": "k"}
    assert events({"type": "no.id"}) == []
    assert http_json(config, b"{", headers)["refuse"]["status"] == 400


def test_a_sender_is_proven_by_hmac_or_token_unless_it_is_said_not_to_be() -> None:
    body = b'{"type": "a", "id": "1"}'
    rules = {"events": RULES[2:]}
    hexed = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    signed = rules | {"signature": {"header": "X-Sig", "prefix": "sha256="}}
    assert http_json(signed, body, {"x-sig": f"sha256={hexed}"})["events"]
    timed = rules | {"signature": {"header": "X-Sig", "timestamp_header": "X-At", "encoding": "hex"}}
    mac = hmac.new(b"s3cret", b"%d." % NOW_S + body, hashlib.sha256).hexdigest()
    assert http_json(timed, body, {"x-sig": mac, "x-at": str(NOW_S)})["events"]
    for config, headers in (
        (signed, {"x-sig": hexed}),
        (signed, {}),
        (timed, {"x-sig": mac, "x-at": str(NOW_S - 1)}),
        (timed, {"x-sig": mac, "x-at": "x"}),
        (rules | {"token": "X-T"}, {"x-t": "wrong"}),
    ):
        assert http_json(config, body, headers)["refuse"]["status"] == 401
    assert http_json(rules, body, {}, secret="")["refuse"]["status"] == 401
    assert http_json(rules | {"unsigned": True}, body, {}, secret="")["events"]


# ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_connector_is_a_folder_with_one_class(tmp_path: Path) -> None:
    assert set(folders(SHIPPED)) == {"http_json", "stripe"}
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(NoConnector):
        loaded(own)
    methods = "\n".join(f"    def {call}(self, *given): return {call!r}" for call in CALLS)
    (own / "connector.py").write_text(f"class One:\n{methods}\n")
    (tmp_path / "Not-a-name").mkdir()
    assert set(folders(SHIPPED, tmp_path)) == {"http_json", "stripe", "own"}
    connector = loaded(own)
    asked = {"call": "subscribers", "arguments": {"connection": {"id": "x"}}}
    assert answered(connector, asked) == {"result": "subscribers"}
    (own / "connector.py").write_text(f"class One:\n{methods}\nclass Two(One): pass\n")
    with pytest.raises(NoConnector):
        loaded(own)


def test_what_a_connector_raises_is_told_by_its_kind_alone() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret")

    connector: Any = SimpleNamespace(subscribers=fail)
    asked = {"call": "subscribers", "arguments": {"connection": {}}}
    assert answered(connector, asked) == {"error": "RuntimeError"}


def test_the_guides_class_is_a_connector(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "connectors.md").read_text()
    own = tmp_path / "help_desk"
    own.mkdir()
    (own / "connector.py").write_text(guide.split("```python\n")[1].split("```")[0])
    connector = loaded(own)
    connection = SimpleNamespace(id="con_1", config={"url": "https://x"}, secrets={"token": "t"}, now=NOW_S)
    request = SimpleNamespace(method="POST", headers={"x-token": "t"}, query="", body=b"7")
    made = handled(connector.handle_webhook(connection, request), now_ms=NOW_MS)
    assert isinstance(made, Handled)
    assert declared("subscribers", connector.subscribers(connection))
    request.headers = {}
    assert handled(connector.handle_webhook(connection, request), now_ms=NOW_MS) == Refusal(401, "wrong token")
