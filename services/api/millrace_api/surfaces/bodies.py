"""What bodies of every surface are made of: names, texts, moments, and the two kinds of body.

A PATCH names the members that change; `null` clears a member that may be absent.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME_CHARS_MAX = 200
DESCRIPTION_CHARS_MAX = 2_000


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold the character U+0000")
    return text


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, Field(min_length=1, max_length=NAME_CHARS_MAX)]
Description = Annotated[Text, Field(max_length=DESCRIPTION_CHARS_MAX)]
Moment = Annotated[datetime, Field(strict=False), AfterValidator(_aware)]


def _without_defaults(schema: dict[str, Any]) -> None:
    for member in schema.get("properties", {}).values():
        member.pop("default", None)


class Body(BaseModel):
    """Members that are not known are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Patch(BaseModel):
    """Members that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_without_defaults)

    def named(self) -> dict[str, Any]:
        """The members the caller gave."""
        return {name: getattr(self, name) for name in self.model_fields_set}


LEFT_OUT: Any = None
"""Of a member that a PATCH may leave out but not set to null: the default is never looked at."""
