"""Providers that an integration connects to: where they are, how they want a credential, and what a test asks of them.

A test is one request that changes nothing there and needs the credential to be right; the provider's way to say yes or
no is read here. A new provider is an entry in `PROVIDERS`. Pure. Not here: the request itself (the API's `calling`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import orjson

from millrace_core.outgoing_credentials import PLACEMENTS, Credential

ProviderName = Literal["slack", "github", "stripe", "http"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means, in words for the owner of the integration."""

    is_good: bool
    message: str


Judge = Callable[[int, Any], Verdict]
"""From the status and the JSON of an answer (None where it is none) to what it means."""


@dataclass(frozen=True, slots=True)
class Provider:
    """`base_url` None: the owner must give it. With `takes_bearer` an API key whose owner did not say where it stands
    goes into `Authorization`."""

    title: str
    base_url: str | None
    path: str
    judge: Judge
    method: Literal["GET", "POST"] = "GET"
    takes_bearer: bool = True

    def placed(self, credential: Credential) -> Credential:
        """The credential as this provider wants it."""
        if self.takes_bearer and credential.type == "api_key" and credential.placement == PLACEMENTS["api_key"]:
            return replace(credential, placement=PLACEMENTS["bearer"])
        return credential


def judged(provider: Provider, status: int, body: bytes) -> Verdict:
    """What an answer means."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    return provider.judge(status, said)


def _by_status(status: int, _: Any = None) -> Verdict:
    if 200 <= status < 300:
        return Verdict(True, f"the answer was {status}")
    if status in (401, 403):
        return Verdict(False, f"the answer was {status}: the credential was not accepted, or may not do this")
    if 300 <= status < 400:
        return Verdict(False, f"the answer was {status}, a redirect, which is not followed: give the final URL")
    return Verdict(False, f"the answer was {status}: only 2xx counts")


def _slack(status: int, said: Any) -> Verdict:
    # Slack says 200 whatever it thinks of a token.
    if not 200 <= status < 300 or not isinstance(said, dict):
        return Verdict(False, f"the answer was {status}, and not what Slack says")
    if said.get("ok") is True:
        return Verdict(True, f"connected as {_text(said, 'user')} of {_text(said, 'team')}")
    return Verdict(False, f"Slack refused it: {_text(said, 'error')}")


def _github(status: int, said: Any) -> Verdict:
    if 200 <= status < 300 and isinstance(said, dict) and "login" in said:
        return Verdict(True, f"connected as {_text(said, 'login')}")
    return _refused(status, "GitHub")


def _stripe(status: int, said: Any) -> Verdict:
    if 200 <= status < 300 and isinstance(said, dict) and said.get("object") == "balance":
        return Verdict(True, f"connected in {'live' if said.get('livemode') else 'test'} mode")
    return _refused(status, "Stripe")


def _refused(status: int, who: str) -> Verdict:
    verdict = _by_status(status)
    return Verdict(False, f"{verdict.message}, and not what {who} says" if verdict.is_good else verdict.message)


def _text(said: Mapping[str, Any], member: str) -> str:
    value = said.get(member)
    return value[:200] if isinstance(value, str) else "somebody"


PROVIDERS: Mapping[ProviderName, Provider] = MappingProxyType(
    {
        "slack": Provider("Slack", "https://slack.com/api", "/auth.test", _slack, method="POST"),
        "github": Provider("GitHub", "https://api.github.com", "/user", _github),
        "stripe": Provider("Stripe", "https://api.stripe.com", "/v1/balance", _stripe),
        "http": Provider("Any HTTP API", None, "", _by_status, takes_bearer=False),
    }
)
