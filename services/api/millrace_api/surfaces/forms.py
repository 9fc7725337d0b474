"""What is taken of forms and answers, for both surfaces that show them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from millrace_api.application import forms
from millrace_api.application.api import Api
from millrace_api.application.forms import Status, Submitted
from millrace_api.surfaces import answers
from millrace_api.surfaces.bodies import LEFT_OUT, Body, Description, Name, Patch
from millrace_core import limits
from millrace_core.forms import FieldType
from millrace_web.positions import Position


class FormField(BaseModel):
    """One thing that is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, Field(max_length=64, examples=["email"])]
    type: FieldType
    label: Annotated[str, Field(max_length=limits.FORM_LABEL_CHARS_MAX)] | None = None
    description: Annotated[str, Field(max_length=limits.FORM_LABEL_CHARS_MAX)] | None = None
    required: bool = False
    options: Annotated[list[str], Field(max_length=limits.FORM_OPTIONS_MAX)] | None = None
    min: float | None = None
    max: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: Annotated[str, Field(description="RE2; the whole text must fit.")] | None = None

    def wanted(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


Fields = Annotated[list[FormField], Field(max_length=limits.FORM_FIELDS_MAX)]
FIELDS_EXAMPLE = [
    {"name": "email", "type": "email", "required": True},
    {"name": "message", "type": "textarea", "required": True},
]


class NewForm(Body):
    name: Annotated[Name, Field(examples=["Contact Form"])]
    description: Description | None = None
    fields: Annotated[Fields, Field(examples=[FIELDS_EXAMPLE])]
    status: Status = "published"

    def wanted(self) -> forms.Wanted:
        return forms.Wanted(self.name, [field.wanted() for field in self.fields], self.description, self.status)


class FormPatch(Patch):
    name: Name = LEFT_OUT
    description: Description | None = None
    fields: Fields = LEFT_OUT
    status: Status = LEFT_OUT

    def named(self) -> dict[str, Any]:
        named = super().named()
        if "fields" in named:
            named["fields"] = [field.wanted() for field in self.fields]
        return named


class NewSubmission(Body):
    """`data` has a member for each field."""

    data: Annotated[dict[str, Any], Field(examples=[{"name": "Jane Doe"}])]


async def told(api: Api, submitted: Submitted, answer: Response) -> Response:
    """The answer to a submission, with where its event stands on the log, if the log could be reached."""
    place = await api.telling.now(submitted.event)
    return answers.placed(answer, at=None if place is None else Position(place.topic, place.partition, place.offset))
