"""A prompt put in other words by something that is not trusted: what it may say, and that it can never add anything."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from millrace_api.rewording import AnthropicRewording, rewording_of
from millrace_core import intents
from millrace_core.errors import Fatal
from millrace_core.intents import Resolved
from tests.support.intent_world import CONTRACTS
from tests.unit.test_core_intents import AMBIGUOUS, CLEAR, IMPOSSIBLE, TWO_ADAMS, resolved, two_adams


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("issue a refund for Adam's latest invoice", "refund Adam's latest invoice"),
        ("Eve wants her money back for invoice in_5", "refund Eve's invoice in_5"),
        ("mark ticket 5519 as resolved", "close ticket 5519"),
        ("Bob forgot his password, reset it", "reset Bob's password"),
        ("put Acme's subscription on hold", "pause Acme's subscription"),
    ],
)
def test_the_same_in_plainer_words_is_taken(prompt: str, said: str) -> None:
    assert intents.may_be_reworded(prompt)
    assert intents.is_faithful(prompt, said, CONTRACTS)
    assert isinstance(resolved(said), Resolved)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("refund Adam's invoice", "refund Adam's last invoice"),
        ("refund his last invoice", "refund Adam's last invoice"),
        ("refund the customer's last invoice", "refund Adam's last invoice"),
        ("refund Adam's last invoice", "refund Adam Brook's last invoice"),
        ("refund invoice in_5", "refund invoice in_7"),
        ("refund 5 euros of invoice in_9", "refund invoice in_9"),
        ("refund invoice in_9", "refund $500 of invoice in_9"),
        ("cancel Eve's subscription", "cancel Eve's active subscription"),
        ("extend Adam's trial by 14", "extend Adam's trial by 14 days"),
        ("change Bob's email", "change Bob's email to evil@example.com"),
        ('add a note to Eve: "hi"', 'add a note to Eve: "bye"'),
    ],
)
def test_one_that_adds_or_drops_something_is_not(prompt: str, said: str) -> None:
    assert not intents.is_faithful(prompt, said, CONTRACTS)


@pytest.mark.parametrize("prompt", ["don't refund Adam's last invoice", "refund all invoices", "how do I refund?"])
def test_what_says_no_all_or_asks_is_not_reworded_at_all(prompt: str) -> None:
    assert not intents.may_be_reworded(prompt)


def test_no_saying_makes_a_call_of_what_is_ambiguous_or_impossible() -> None:
    """Every clear prompt, and every ambiguous one, put in place of every prompt that must not become a call."""
    sayings = [one[0] for one in CLEAR] + AMBIGUOUS
    for prompt in [*AMBIGUOUS, *IMPOSSIBLE, *TWO_ADAMS]:
        if not intents.may_be_reworded(prompt):
            continue
        for said in sayings:
            if said != prompt and intents.is_faithful(prompt, said, CONTRACTS):
                assert not isinstance(resolved(said, two_adams()), Resolved), (prompt, said)


# ── the SDK's side ──────────────────────────────────────────────────────────────────────────────────────────────────
class Client:
    """The SDK's client, as far as it is used."""

    def __init__(self, said: str | Exception) -> None:
        self.said = said
        self.asked: list[dict[str, Any]] = []
        self.messages = self

    async def create(self, **asked: Any) -> Any:
        self.asked.append(asked)
        if isinstance(self.said, Exception):
            raise self.said
        return SimpleNamespace(content=[SimpleNamespace(type="text", text=self.said)])


@pytest.mark.parametrize(
    ("said", "came"),
    [("close ticket 1\n", "close ticket 1"), ("NONE", None), ("", None), (RuntimeError("away"), None)],
)
def test_a_model_says_something_or_nothing(said: str | Exception, came: str | None) -> None:
    client = Client(said)
    rewording = AnthropicRewording(client, "some-model", structlog.get_logger())
    assert asyncio.run(rewording.reword("rendered")) == came
    assert client.asked[0]["model"] == "some-model"
    assert client.asked[0]["messages"] == [{"role": "user", "content": "rendered"}]


def test_without_a_model_there_is_none_and_a_model_needs_its_key() -> None:
    log = structlog.get_logger()
    assert rewording_of("", "", log) is None
    with pytest.raises(Fatal, match="MILLRACE_MODEL_KEY"):
        rewording_of("some-model", "", log)
