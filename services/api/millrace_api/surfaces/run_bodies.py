"""The body that starts a run, `{"input": {…}}`: its bytes are kept, so it is read here and not by pydantic."""

from typing import Any

import msgspec

from millrace_api.application.problems import Invalid


class _RunBody(msgspec.Struct, forbid_unknown_fields=True):
    input: msgspec.Raw = msgspec.Raw(b"{}")


_decode = msgspec.json.Decoder(_RunBody).decode


def input_of(body: bytes, *, what: str) -> bytes:
    """The input's bytes. Raises Invalid, saying that it is not `what` (`a run`)."""
    try:
        return bytes(_decode(body or b"{}").input)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"not {what}: {error}", where="input") from None


def described(*, seen_by: str, example: Any = None) -> dict[str, Any]:
    """The body in OpenAPI. `seen_by` is what a run is made of: `steps`, `nodes`."""
    content: dict[str, Any] = {
        "schema": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "input": {
                    "type": "object",
                    "description": f"What {seen_by} see as `input`; its bytes are kept.",
                    "default": {},
                }
            },
        }
    }
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": False, "content": {"application/json": content}}}
