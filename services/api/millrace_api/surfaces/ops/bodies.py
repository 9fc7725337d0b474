"""What ops routes take."""

from typing import Annotated, Any

from fastapi import Body
from pydantic import BaseModel, ConfigDict, Field

from millrace_core import limits

REFUND: dict[str, Any] = {
    "id": "saas.refund_invoice",
    "description": "Refund an invoice of a customer",
    "surface": "admin",
    "roles": ["owner"],
    "synonyms": ["refund", "give the money back"],
    "parameters": {
        "type": "object",
        "properties": {"invoice_id": {"type": "string"}, "reason": {"type": "string"}},
        "required": ["invoice_id"],
    },
    "confirmation": {"policy": "always", "roles": ["owner"], "expires_s": 900},
    "endpoint": "https://example.com/opsiq/actions",
    "timeout_s": 10,
}

ContractDocument = Annotated[
    dict[str, Any],
    Body(
        description="The contract: id, description, surface, roles, parameters (a JSON Schema), confirmation, endpoint "
        "and timeout_s; signed, if it is, by signature and signed_by.",
        examples=[REFUND],
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunAction(_Body):
    """A call of a registered action."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"action": "saas.send_kb_link", "params": {"ticket_id": 5519, "article": "reset-password"}}]
        },
    )

    action: str = Field(max_length=limits.ACTION_NAME_CHARS_MAX, description="The id of its contract.")
    params: dict[str, Any] = Field(default_factory=dict, description="As the contract's schema has them.")


class Confirm(_Body):
    """A yes."""

    params_hash: str | None = Field(
        default=None,
        max_length=64,
        description="Of the card that was shown: given, it must be the card's, or nothing is confirmed.",
    )
