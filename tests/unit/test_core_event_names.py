"""Names of events as the documents write them, and what an endpoint is told an event is called."""

import pytest

from millrace_core import event_names
from millrace_core.errors import Reject
from millrace_core.event_names import Naming


@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("workflow.executed", "e:workflows/workflow.executed"),
        ("form.submitted", "e:forms/submission.created"),
        ("submission.created", "e:forms/submission.created"),
        ("invoice.paid", "e:ops/invoice.paid"),
        ("invoice.*", "e:ops/invoice.*"),
        ("*", "e:ops/*"),
        ("e:github/*", "e:github/*"),
        ("e:forms/submission.created", "e:forms/submission.created"),
    ],
)
def test_a_name_stands_for_a_pattern(written: str, pattern: str) -> None:
    assert event_names.pattern_of(written) == pattern


@pytest.mark.parametrize(
    "written", ["workflow.excuted", "form.*", "submission", "github/push", "", "a b", "x**", "e:a"]
)
def test_what_names_nothing_is_refused(written: str) -> None:
    with pytest.raises(Reject):
        event_names.pattern_of(written)


def test_a_misspelt_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(Reject, match=r"there are form\.submitted, submission\.created, workflow\.executed"):
        event_names.pattern_of("workflow.excuted")


def test_an_endpoint_is_told_the_name_on_its_list() -> None:
    naming = Naming(["form.submitted", "invoice.*", "ticket.created", "e:github/*"])
    assert naming
    assert naming.type_of("e:forms/submission.created") == "form.submitted"
    assert naming.type_of("e:ops/invoice.paid") == "invoice.paid"
    assert naming.type_of("e:ops/ticket.created") == "ticket.created"
    assert naming.type_of("e:ops/ticket.closed") == "e:ops/ticket.closed", "heard by a subscription, not by its list"
    assert naming.type_of("e:github/push") == "e:github/push"


def test_a_list_of_patterns_names_nothing() -> None:
    assert not Naming(["e:forms/submission.created", "e:ops/*"])
    assert Naming([]).type_of("e:ops/x") == "e:ops/x"
