"""Action contracts: what an assistant or a program may ask to have done, declared beforehand and signed.

A contract is JSON: what the action does, who may run it, its parameters as a JSON Schema, whether a person confirms,
and the endpoint that does it. It is signed as `sha256=` and the hexadecimal HMAC-SHA256 over its RFC 8785 form (all
members but `signature` and `signed_by`), so a contract that was changed on its way is not the contract. What is to be
confirmed is bound to a hash of exactly what will be done. Pure. Not here: where contracts are kept, who is asked, the
request itself (`executor`).
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import orjson
import rfc8785

from millrace_core import expressions, json_schemas, limits
from millrace_core.errors import Reject
from millrace_core.event import check_depth
from millrace_core.expressions import Scope

SIGNATURE_PREFIX: Final = "sha256="
UNSIGNED: Final = frozenset({"signature", "signed_by"})
NODE: Final = "action"
"""The one node of an action's plan, and its type."""

Role = Literal["owner", "admin", "member"]
RANK: Final[Mapping[str, int]] = {"member": 0, "admin": 1, "owner": 2}
"""Roles by what they may: each may what those below it may."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z][a-z0-9_-]*)+")


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Confirmation(_Part, frozen=True):
    """When a person confirms. `when` is a CEL expression over `input` (the parameters) for policy `when`; `roles` may
    confirm (those of the contract, where not given); a card holds for `expires_s`."""

    policy: Literal["never", "always", "when"] = "never"
    when: str | None = None
    roles: tuple[Role, ...] = ()
    expires_s: int = limits.CONFIRMATION_S_DEFAULT


class Contract(_Part, frozen=True):
    """One action. `synonyms` are further words for it, by which a prompt finds it."""

    id: str
    description: str
    surface: str
    roles: tuple[Role, ...]
    endpoint: str
    parameters: dict[str, Any] = {}
    title: str | None = None
    synonyms: tuple[str, ...] = ()
    confirmation: Confirmation = Confirmation()
    timeout_s: float = limits.ACTION_TIMEOUT_S_DEFAULT


def parse(document: Mapping[str, Any]) -> Contract:
    """The contract behind a document that keeps every rule. Raises Reject with the first it breaks."""
    plain = {name: value for name, value in document.items() if name not in UNSIGNED}
    try:
        check_depth(plain)
        contract = msgspec.convert(plain, Contract)
    except msgspec.ValidationError as error:
        raise Reject(str(error)) from None
    _check(contract)
    return contract


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: RFC 8785, without the signature itself. Raises Reject for what has no such form."""
    try:
        made = rfc8785.dumps({name: value for name, value in document.items() if name not in UNSIGNED})
    except (rfc8785.CanonicalizationError, ValueError, RecursionError) as error:
        raise Reject(f"the contract has no RFC 8785 form: {error}") from None
    if len(made) > limits.CONTRACT_BYTES_MAX:
        raise Reject(f"the contract has {len(made)} bytes: at most {limits.CONTRACT_BYTES_MAX}")
    return made


def sign(secret: str, content: bytes) -> str:
    """`sha256=` and the hexadecimal HMAC: of contracts over their canonical form, of requests over their body."""
    return SIGNATURE_PREFIX + hmac.digest(secret.encode(), content, "sha256").hex()


def check_signature(secret: str, content: bytes, signature: str) -> None:
    """Raises Reject unless this secret signed this contract."""
    if not hmac.compare_digest(sign(secret, content).encode(), signature.lower().encode("utf-8", "replace")):
        raise Reject(
            "signature is not right: sign the contract's RFC 8785 form, without signature and signed_by, with the "
            "secret of the key that signed_by names, as sha256= and hexadecimal HMAC-SHA256"
        )


def digest(content: bytes) -> str:
    """The hash by which a contract is known wherever it is not carried along."""
    return hashlib.sha256(content).hexdigest()


def params_of(contract: Contract, params: Mapping[str, Any]) -> bytes:
    """The parameters in the form they are sent, hashed and shown in. Raises Reject when they break the contract, with
    every member that does."""
    check_depth(dict(params))
    wrong = json_schemas.problems(_schema(contract), dict(params))
    if wrong:
        raise WrongParams(wrong)
    try:
        made = rfc8785.dumps(dict(params))
    except (rfc8785.CanonicalizationError, ValueError) as error:
        raise Reject(f"the parameters have no RFC 8785 form: {error}") from None
    if len(made) > limits.ACTION_PARAMS_BYTES_MAX:
        raise Reject(f"the parameters have {len(made)} bytes: at most {limits.ACTION_PARAMS_BYTES_MAX}")
    return made


class WrongParams(Reject):
    """Parameters that break their contract: (member, problem), one or more."""

    def __init__(self, wrong: tuple[tuple[str, str], ...]) -> None:
        super().__init__("; ".join(f"{member}: {problem}" if member else problem for member, problem in wrong))
        self.wrong = wrong


def arguments_hash(account: str, name: str, contract_digest: str, params: bytes) -> str:
    """What a confirmation is bound to: whose, which contract to the letter, which parameters to the letter."""
    bound = orjson.dumps([account, name, contract_digest]) + b"\n" + params
    return hashlib.sha256(bound).hexdigest()


def needs_confirmation(contract: Contract, params: Mapping[str, Any]) -> bool:
    """Whether a person is asked first. A condition that cannot be worked out asks."""
    policy = contract.confirmation.policy
    if policy != "when" or contract.confirmation.when is None:
        return policy != "never"
    try:
        said = expressions.compiled(contract.confirmation.when).value(Scope({"input": dict(params)}))
    except Reject:
        return True
    return said is not False


def may_run(contract: Contract, role: str) -> bool:
    """Whether one with this role may ask for it: a contract's role means that role and those above it."""
    return _reaches(contract.roles, role)


def confirmers(contract: Contract) -> tuple[Role, ...]:
    """The roles that a card of it names."""
    return contract.confirmation.roles or contract.roles


def may_confirm(roles: Sequence[str], role: str) -> bool:
    """Whether one with this role may decide about a card that names these roles."""
    return _reaches(roles, role)


def lowest(roles: tuple[Role, ...]) -> Role:
    """The least role that is enough."""
    return min(roles, key=lambda role: RANK[role])


def is_name(text: str) -> bool:
    """Whether a contract can have this id at all."""
    return len(text) <= limits.ACTION_NAME_CHARS_MAX and _NAME.fullmatch(text) is not None


def parameter_names(contract: Contract) -> tuple[str, ...]:
    """The parameters that the contract names, in its order."""
    return tuple(contract.parameters.get("properties", {}))


def required_names(contract: Contract) -> tuple[str, ...]:
    """Those of them that a call must have."""
    return tuple(contract.parameters.get("required", ()))


def _reaches(roles: Sequence[str], role: str) -> bool:
    return RANK.get(role, -1) >= min(RANK[one] for one in roles)


def _schema(contract: Contract) -> Mapping[str, Any]:
    """The contract's schema; what it does not name is refused unless it says otherwise: nothing is smuggled in."""
    return {"type": "object", "additionalProperties": False, **contract.parameters}


def _check(contract: Contract) -> None:
    if not is_name(contract.id):
        raise Reject(
            f"id: two or more words with dots between, such as saas.refund_invoice: lower case letters, digits, '_' "
            f"and '-', at most {limits.ACTION_NAME_CHARS_MAX} characters"
        )
    if not 1 <= len(contract.description) <= limits.ACTION_TEXT_CHARS_MAX:
        raise Reject(f"description: 1 to {limits.ACTION_TEXT_CHARS_MAX} characters that say what the action does")
    if not 1 <= len(contract.surface) <= limits.ACTION_NAME_CHARS_MAX:
        raise Reject(f"surface: 1 to {limits.ACTION_NAME_CHARS_MAX} characters, such as admin")
    if not contract.roles:
        raise Reject("roles: name at least one of owner, admin and member")
    if len(contract.endpoint) > limits.URL_CHARS_MAX:
        raise Reject(f"endpoint: at most {limits.URL_CHARS_MAX} characters")
    if len(contract.synonyms) > limits.ACTION_SYNONYMS_MAX or any(
        not 1 <= len(word) <= limits.ACTION_NAME_CHARS_MAX for word in contract.synonyms
    ):
        raise Reject(
            f"synonyms: at most {limits.ACTION_SYNONYMS_MAX}, of 1 to {limits.ACTION_NAME_CHARS_MAX} characters"
        )
    if not 0 < contract.timeout_s <= limits.ACTION_TIMEOUT_S_MAX:
        raise Reject(f"timeout_s: above 0 and at most {limits.ACTION_TIMEOUT_S_MAX:g}")
    _check_confirmation(contract.confirmation)
    if contract.parameters.get("type", "object") != "object":
        raise Reject("parameters: a JSON Schema of type object")
    try:
        json_schemas.check_schema(_schema(contract))
    except Reject as error:
        raise Reject(f"parameters: {error}") from None


def _check_confirmation(confirmation: Confirmation) -> None:
    if not limits.CONFIRMATION_S_MIN <= confirmation.expires_s <= limits.CONFIRMATION_S_MAX:
        raise Reject(f"confirmation.expires_s: {limits.CONFIRMATION_S_MIN} to {limits.CONFIRMATION_S_MAX}")
    if (confirmation.policy == "when") != (confirmation.when is not None):
        raise Reject("confirmation.when: an expression over input, with policy when and only with it")
    if confirmation.when is not None:
        expressions.compiled(confirmation.when)
