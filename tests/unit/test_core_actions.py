"""Action contracts: what is one, what its signature covers, what its parameters may be, who may and who is asked."""

from typing import Any

import pytest

from millrace_core import actions, limits
from millrace_core.actions import Contract, WrongParams
from millrace_core.errors import Reject

REFUND: dict[str, Any] = {
    "id": "saas.refund_invoice",
    "description": "Refund an invoice",
    "surface": "admin",
    "roles": ["owner"],
    "endpoint": "https://example.com/actions",
    "parameters": {
        "type": "object",
        "properties": {"invoice_id": {"type": "string"}, "amount": {"type": "number", "minimum": 0}},
        "required": ["invoice_id"],
    },
    "confirmation": {"policy": "always"},
}


def with_(**more: Any) -> dict[str, Any]:
    return {**REFUND, **more}


def test_a_contract_is_parsed_with_its_defaults() -> None:
    contract = actions.parse(REFUND)
    assert contract.timeout_s == limits.ACTION_TIMEOUT_S_DEFAULT
    assert contract.confirmation.expires_s == limits.CONFIRMATION_S_DEFAULT
    assert actions.parameter_names(contract) == ("invoice_id", "amount")
    assert actions.required_names(contract) == ("invoice_id",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": "refund"}, "id"),
        ({"id": "Saas.Refund"}, "id"),
        ({"roles": []}, "roles"),
        ({"roles": ["king"]}, "roles"),
        ({"description": ""}, "description"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 61}, "timeout_s"),
        ({"colour": "red"}, "colour"),
        ({"parameters": {"type": "array"}}, "parameters"),
        ({"parameters": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}, "parameters"),
        ({"parameters": {"properties": {"a": {"$ref": "https://example.com/schema"}}}}, "nothing is fetched"),
        ({"parameters": {"properties": {"a": {"$ref": "file:///etc/passwd"}}}}, "nothing is fetched"),
        ({"parameters": {"$id": "https://example.com/"}}, "no address"),
        ({"confirmation": {"policy": "when"}}, "confirmation.when"),
        ({"confirmation": {"policy": "always", "when": "true"}}, "confirmation.when"),
        ({"confirmation": {"policy": "when", "when": "input."}}, "expression"),
        ({"confirmation": {"policy": "always", "expires_s": 1}}, "expires_s"),
    ],
)
def test_a_contract_that_breaks_a_rule_is_refused_and_the_refusal_names_it(change: dict[str, Any], named: str) -> None:
    with pytest.raises(Reject, match=named):
        actions.parse(with_(**change))


def test_a_signature_covers_every_member_whatever_their_order() -> None:
    content = actions.canonical(REFUND)
    signature = actions.sign("secret", content)
    backwards = dict(reversed(list(REFUND.items())))
    assert actions.canonical({**backwards, "signature": signature, "signed_by": "ok_live_x"}) == content
    actions.check_signature("secret", content, signature)
    for changed in (with_(endpoint="https://evil.example/"), with_(roles=["member"])):
        with pytest.raises(Reject, match="signature"):
            actions.check_signature("secret", actions.canonical(changed), signature)
    with pytest.raises(Reject, match="signature"):
        actions.check_signature("other", content, signature)


def test_the_signature_of_a_known_contract() -> None:
    """The vector of docs/guides/actions.md."""
    contract = {"id": "a.b", "roles": ["owner"], "surface": "admin", "timeout_s": 10.0, "description": "é"}
    content = actions.canonical(contract)
    assert content.decode() == '{"description":"é","id":"a.b","roles":["owner"],"surface":"admin","timeout_s":10}'
    assert actions.sign("os_live_test", content) == (
        "sha256=9ee94574e4db25e711e9441a0c13b6bd5152b6dd09711d55c904efb9eeff7b41"
    )


def test_parameters_are_checked_and_come_out_in_one_form() -> None:
    contract = actions.parse(REFUND)
    one = actions.params_of(contract, {"invoice_id": "inv_1", "amount": 5.0})
    assert (
        one == actions.params_of(contract, {"amount": 5, "invoice_id": "inv_1"}) == b'{"amount":5,"invoice_id":"inv_1"}'
    )


def test_wrong_parameters_are_all_named_and_none_of_their_values_told() -> None:
    with pytest.raises(WrongParams) as raised:
        actions.params_of(actions.parse(REFUND), {"amount": -987654, "note": "hello-secret"})
    assert len(raised.value.wrong) == 3
    assert "invoice_id" in str(raised.value)
    assert "987654" not in str(raised.value)
    assert "hello-secret" not in str(raised.value)


def test_what_the_schema_does_not_name_is_refused_unless_it_says_otherwise() -> None:
    with pytest.raises(WrongParams):
        actions.params_of(actions.parse(REFUND), {"invoice_id": "1", "as_user": "root"})
    open_ = actions.parse(with_(parameters={"type": "object", "additionalProperties": True}))
    assert actions.params_of(open_, {"any": 1}) == b'{"any":1}'


def test_a_confirmation_is_bound_to_whose_which_and_what() -> None:
    first = actions.arguments_hash("acc", "a.b", "d", b"{}")
    others = [
        actions.arguments_hash("other", "a.b", "d", b"{}"),
        actions.arguments_hash("acc", "a.c", "d", b"{}"),
        actions.arguments_hash("acc", "a.b", "e", b"{}"),
        actions.arguments_hash("acc", "a.b", "d", b'{"a":1}'),
    ]
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    ("confirmation", "params", "asked"),
    [
        ({"policy": "never"}, {"amount": 1}, False),
        ({"policy": "always"}, {"amount": 1}, True),
        ({"policy": "when", "when": "input.amount > 100"}, {"amount": 100}, False),
        ({"policy": "when", "when": "input.amount > 100"}, {"amount": 101}, True),
        ({"policy": "when", "when": "input.amount > 100"}, {}, True),
        ({"policy": "when", "when": "input.amount"}, {"amount": 1}, True),
    ],
)
def test_when_a_person_is_asked(confirmation: dict[str, Any], params: dict[str, Any], asked: bool) -> None:
    contract = actions.parse(with_(confirmation=confirmation))
    assert actions.needs_confirmation(contract, params) is asked


@pytest.mark.parametrize(
    ("roles", "role", "may"),
    [
        (("owner",), "owner", True),
        (("owner",), "admin", False),
        (("admin",), "owner", True),
        (("member",), "admin", True),
        (("admin", "owner"), "admin", True),
        (("member",), "stranger", False),
    ],
)
def test_a_role_means_itself_and_those_above_it(roles: tuple[str, ...], role: str, may: bool) -> None:
    contract: Contract = actions.parse(with_(roles=list(roles)))
    assert actions.may_run(contract, role) is may
    assert actions.may_confirm(actions.confirmers(contract), role) is may


def test_others_may_confirm_than_run() -> None:
    contract = actions.parse(with_(roles=["member"], confirmation={"policy": "always", "roles": ["owner"]}))
    assert actions.may_run(contract, "member")
    assert not actions.may_confirm(actions.confirmers(contract), "member")
    assert actions.may_confirm(actions.confirmers(contract), "owner")
