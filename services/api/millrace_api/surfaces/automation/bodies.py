"""What automation routes take: types and sizes. Meaning is the application's to judge."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from millrace_api.application import workflows
from millrace_api.surfaces.bodies import LEFT_OUT, Body, Description, Name, Patch
from millrace_api.surfaces.native.bodies import Retry, RunTimeout
from millrace_core import limits

NODE_EXAMPLE = {
    "id": "check",
    "type": "condition",
    "config": {"expression": "input.amount > 100.0"},
}


class Node(Body):
    """One step. `config` depends on the type: `http` {url, method, headers, body, expect}, `transform` {expression} or
    {value}, `condition` {expression}, `publish` {provider, name, properties, ordering_key}. `${…}` in it are
    expressions over `input`, `event`, `steps`, `previous` and `variables`."""

    id: Annotated[str, Field(min_length=1, max_length=limits.NODE_ID_CHARS_MAX)] | None = None
    type: Annotated[str, Field(max_length=64, examples=["http", "transform", "condition", "publish"])]
    config: dict[str, Any] = Field(default_factory=dict)
    retry: Retry | None = None
    timeout_s: Annotated[float, Field(gt=0, le=limits.STEP_TIMEOUT_S_MAX)] | None = None
    on_error: Literal["fail", "continue"] | None = None
    join: Annotated[
        Literal["all", "any"] | None,
        Field(description="Begin when all before it has ended (`all`), or as soon as one edge to it is taken."),
    ] = None
    name: Name | None = None
    position: Annotated[dict[str, Any] | None, Field(description="Kept for editors.")] = None

    def written(self) -> dict[str, Any]:
        """The node as JSON, without what was left out."""
        return self.model_dump(exclude_none=True, exclude_unset=True) | {"config": self.config}


class Edge(Body):
    """From a node to the next. `when` says when it is taken: `succeeded` or `failed`, or a branch of a condition:
    `true`, `false`, the text that it came to, or `else`."""

    source: Annotated[str, Field(alias="from", max_length=limits.NODE_ID_CHARS_MAX)]
    to: Annotated[str, Field(max_length=limits.NODE_ID_CHARS_MAX)]
    when: StrictBool | Annotated[str, Field(min_length=1, max_length=limits.BRANCH_CHARS_MAX)] | None = None

    def written(self) -> dict[str, Any]:
        """The edge as JSON, without what was left out."""
        return self.model_dump(by_alias=True, exclude_none=True)


Nodes = Annotated[list[Node], Field(max_length=limits.PLAN_NODES_MAX, examples=[[NODE_EXAMPLE]])]
Edges = Annotated[list[Edge], Field(max_length=limits.PLAN_EDGES_MAX, examples=[[]])]
Variables = Annotated[dict[str, Any], Field(description="What every node sees as `variables`.", examples=[{}])]


class NewWorkflow(Body):
    name: Annotated[Name, Field(examples=["New Workflow"])]
    description: Annotated[Description | None, Field(examples=["Workflow description"])] = None
    status: workflows.Status = "draft"
    nodes: Nodes = Field(default_factory=list)
    edges: Edges = Field(default_factory=list)
    variables: Variables = Field(default_factory=dict)
    timeout_s: RunTimeout | None = None

    def wanted(self) -> workflows.Wanted:
        return workflows.Wanted(
            name=self.name,
            description=self.description,
            nodes=[node.written() for node in self.nodes],
            edges=[edge.written() for edge in self.edges],
            variables=self.variables,
            timeout_s=self.timeout_s,
        )


class WorkflowPatch(Patch):
    name: Annotated[Name, Field(examples=["Updated Name"])] = LEFT_OUT
    description: Description | None = None
    status: workflows.Status = LEFT_OUT
    nodes: Nodes = LEFT_OUT
    edges: Edges = LEFT_OUT
    variables: Variables = LEFT_OUT
    timeout_s: RunTimeout | None = None

    def wanted(self) -> dict[str, Any]:
        """The members of `workflows.Wanted` that the caller gave."""
        given = self.named()
        given.pop("status", None)
        for parts in ("nodes", "edges"):
            if parts in given:
                given[parts] = [part.written() for part in given[parts]]
        return given
