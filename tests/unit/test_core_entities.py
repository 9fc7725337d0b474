"""What events say of customers, tickets, invoices and subscriptions."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace_core import limits
from millrace_core.entities import KINDS, SAFE_FIELDS, Told, about, check_fields, moment_ms, shown, stamp, told_by

NAMES = st.sampled_from(
    ["id", "customer", "customer_id", "ticket", "invoice", "status", "created", "created_at", "name"]
)


def told(name: str, payload: Any) -> list[Told]:
    return told_by(f"e:ops/{name}", json.dumps(payload))


def test_only_events_about_known_things_say_something() -> None:
    assert about("e:ops/customer.signed_up") == ("customer", "signed_up")
    for other in ("e:shop/customer.created", "e:ops/order.shipped", "e:ops/customer", "e:ops/customer.subscription.x"):
        assert about(other) is None


@pytest.mark.parametrize(
    "payload",
    [{"id": 421}, {"id": "421"}, {"customer_id": 421}, {"customer": {"id": " 421 "}}, {"id": 9, "customer_id": 421}],
)  # fmt: skip
def test_a_thing_has_the_id_its_sender_writes(payload: dict[str, Any]) -> None:
    (customer,) = told("customer.created", payload)
    assert (customer.kind, customer.id, customer.members["id"]) == ("customer", "421", "421")


@pytest.mark.parametrize("payload", [{}, {"id": None}, {"id": True}, {"id": 1.5}, {"id": ""}, {"id": "a\nb"}, [1], "x"])
def test_without_an_id_nothing_is_said(payload: Any) -> None:
    assert told("customer.created", payload) == []


def test_a_ticket_tells_of_its_customer_too() -> None:
    payload = {
        "ticket": {"id": 5519, "subject": "No mail"},
        "customer": {"id": 421, "name": "Adam", "created": 1_700_000_000},
    }
    ticket, customer = told("ticket.created", payload)
    assert ticket.members == {"id": "5519", "subject": "No mail", "customer_id": "421", "status": "open"}
    assert customer == Told("customer", "421", {"id": "421", "name": "Adam"}, created_ms=1_700_000_000_000)
    (alone,) = told("ticket.updated", {"id": 5519, "customer": 421})
    assert alone.members == {"id": "5519", "customer_id": "421"}


def test_a_name_says_how_a_thing_stands_where_its_payload_does_not() -> None:
    assert told("invoice.paid", {"invoice_id": "in_1"})[0].members["status"] == "paid"
    assert told("invoice.paid", {"id": "in_1", "status": "partly"})[0].members["status"] == "partly"
    assert "status" not in told("invoice.viewed", {"id": "in_1"})[0].members


def test_a_deletion_erases_and_tells_nothing() -> None:
    assert told("customer.deleted", {"id": 1, "name": "Adam"}) == [Told("customer", "1", {}, erases=True)]
    assert told("customer.subscription.deleted", {"id": 1}) == []


def test_what_is_too_much_is_left_out() -> None:
    many = {f"f{n:03}": n for n in range(200)}
    (customer,) = told("customer.updated", {"id": 1, **many, "a": "x" * (limits.ENTITY_VALUE_CHARS_MAX + 1)})
    assert len(customer.members) == limits.ENTITY_MEMBERS_TOLD_MAX + 1
    assert "a" not in customer.members
    assert told_by("e:ops/customer.updated", "[" * 100_000) == []


def test_what_things_are_looked_up_by_has_the_length_of_a_key() -> None:
    for status in ("x" * 65, {"a": 1}, ["a"], 1, True):
        (ticket,) = told("ticket.updated", {"id": 1, "status": status, "customer_id": {"a": "x" * 4_000}})
        assert ticket.members == {"id": "1"}
    assert told("ticket.updated", {"id": 1, "status": None})[0].members == {"id": "1", "status": None}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=6),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(KINDS), payload=st.dictionaries(NAMES, JSON, max_size=5))
def test_whatever_is_sent_is_told_within_bounds(kind: str, payload: dict[str, Any]) -> None:
    for one in told(f"{kind}.created", payload):
        assert 0 < len(one.id) <= limits.ID_CHARS_MAX
        assert one.members["id"] == one.id
        assert len(one.members) <= limits.ENTITY_MEMBERS_TOLD_MAX + 3
        assert len(str(one.members.get("status") or "")) <= limits.ENTITY_STATUS_CHARS_MAX
        assert len(str(one.members.get("customer_id", ""))) <= limits.ID_CHARS_MAX
        json.dumps(one.members)


def test_times_as_senders_write_them() -> None:
    written = (
        "2026-01-31T12:00:00Z",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T12:00:00",
        1_769_860_800,
        1_769_860_800_000,
    )
    assert {moment_ms(one) for one in written} == {1_769_860_800_000}
    assert [moment_ms(one) for one in (None, "yesterday", True, float("inf"), -1, 10**300, float("nan"))] == [None] * 7


def test_stamps_sort_as_their_records_came() -> None:
    places = [(1, 0, 9), (1, 0, 10), (1, 2, 0), (2, 0, 0), (10, 0, 0)]
    assert sorted(stamp(*place) for place in reversed(places)) == [stamp(*place) for place in places]


def test_only_safe_fields_are_shown() -> None:
    members = {"name": "Adam", "password_hash": "x", "mrr": 12}
    assert shown("customer", members, None) == {"name": "Adam"}
    assert shown("customer", members, ("mrr", "name")) == {"mrr": 12, "name": "Adam"}
    assert shown("customer", members, ()) == {}
    assert all(check_fields(list(fields)) is None for fields in SAFE_FIELDS.values())
    assert check_fields(["a", "a"])
    assert check_fields(["$x"])
    assert check_fields([f"f{n}" for n in range(65)])
