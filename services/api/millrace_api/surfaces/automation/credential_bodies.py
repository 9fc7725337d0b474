"""What the routes of credentials take."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from millrace_api.application import credentials
from millrace_api.surfaces.bodies import LEFT_OUT, Body, Name, Patch
from millrace_core import limits, outgoing_credentials
from millrace_core.outgoing_credentials import CredentialType

Value = Annotated[
    str,
    Field(
        min_length=limits.CREDENTIAL_CHARS_MIN,
        max_length=limits.CREDENTIAL_CHARS_MAX,
        description="Never shown again. Of a `basic` credential: `user:password`.",
    ),
]
Hosts = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=253)]],
    Field(max_length=limits.CREDENTIAL_HOSTS_MAX, description="Where it may be sent; none = anywhere."),
]


class Placement(Body):
    """Where the value of an `api_key` stands in a request."""

    where: Literal["header", "query"] = "header"
    name: Annotated[str, Field(min_length=1, max_length=128, examples=["X-API-Key"])]
    prefix: Annotated[str, Field(max_length=limits.CREDENTIAL_PREFIX_CHARS_MAX)] = ""

    def wanted(self) -> outgoing_credentials.Placement:
        return outgoing_credentials.Placement(where=self.where, name=self.name, prefix=self.prefix)


class NewCredential(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Slack Bot Token", "type": "api_key", "value": "xoxb-your-token"}]},
    )

    name: Name
    type: CredentialType
    value: Value
    placement: Placement | None = None
    hosts: Hosts = Field(default_factory=list)

    def wanted(self) -> credentials.Wanted:
        placement = None if self.placement is None else self.placement.wanted()
        return credentials.Wanted(self.name, self.type, self.value, placement, self.hosts)


class CredentialPatch(Patch):
    value: Value = LEFT_OUT
    placement: Placement = LEFT_OUT
    hosts: Hosts = LEFT_OUT

    def named(self) -> dict[str, Any]:
        given = super().named()
        return given | ({"placement": self.placement.wanted()} if "placement" in given else {})
