"""What ops routes take."""

from typing import Annotated, Any

from fastapi import Body
from pydantic import ConfigDict, Field, model_validator

from millrace_api.surfaces import bodies
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


Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.PROMPT_CHARS_MAX,
        pattern=r"^[^\x00]*$",
        description="One thing to be done, in English.",
    ),
]


class RunAction(bodies.Body):
    """A call of a registered action: named with its parameters, or asked for in words."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"action": "saas.send_kb_link", "params": {"ticket_id": 5519, "article": "reset-password"}},
                {"prompt": "refund Adam's last invoice"},
            ]
        },
    )

    action: str | None = Field(
        default=None, max_length=limits.ACTION_NAME_CHARS_MAX, description="The id of its contract."
    )
    params: dict[str, Any] = Field(default_factory=dict, description="As the contract's schema has them.")
    prompt: Prompt | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "RunAction":
        if (self.action is None) == (self.prompt is None) or (self.prompt is not None and self.params):
            raise ValueError("give action and params, or prompt alone")
        return self


class ResolvePrompt(bodies.Body):
    """What is wanted, in words."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt": "refund Adam's last invoice"}]}
    )

    prompt: Prompt


class Confirm(bodies.Body):
    """A yes."""

    params_hash: str | None = Field(
        default=None,
        max_length=64,
        description="Of the card that was shown: given, it must be the card's, or nothing is confirmed.",
    )
