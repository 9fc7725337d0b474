"""Event identifiers `e:provider/name`, and the patterns that subscriptions match them with.

Both halves are case-sensitive. In a pattern each half is a literal, `*`, or a literal with a trailing `*`. The provider
`millrace` is the platform's own: only a pattern that names it in full matches its events, or a subscription to
everything would also hear about its own runs, for ever. Not here: how many patterns are matched at once (`matching`).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from millrace_core.errors import Reject

PLATFORM_PROVIDER: Final = "millrace"

_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_PROVIDER_RULE = "1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or digit"
_NAME_RULE = "1 to 128 letters, digits, '_', '.', ':' or '-', beginning with a letter or digit"


@lru_cache(maxsize=8192)
def identifier_of(provider: str, name: str) -> str:
    """The identifier of a provider and a name. Raises Reject when a half is not allowed, saying which."""
    check_provider(provider)
    check_name(name)
    return f"e:{provider}/{name}"


def check_provider(provider: str) -> None:
    """Raises Reject unless this may stand before the slash."""
    if not _PROVIDER.fullmatch(provider):
        raise Reject(f"{_shown(provider)} is not a provider: use {_PROVIDER_RULE}")


def check_name(name: str) -> None:
    """Raises Reject unless this may stand behind the slash."""
    if not _NAME.fullmatch(name):
        raise Reject(f"{_shown(name)} is not an event name: use {_NAME_RULE}")


@lru_cache(maxsize=8192)
def parse_identifier(text: str) -> tuple[str, str]:
    """Provider and name of an identifier. Raises Reject when it is none."""
    provider, slash, name = text.removeprefix("e:").partition("/")
    if not text.startswith("e:") or not slash:
        raise Reject(f"{_shown(text)} is not an event identifier: write e:provider/name")
    check_provider(provider)
    check_name(name)
    return provider, name


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a pattern: `text` is the literal part; with `open`, anything may follow it."""

    text: str
    open: bool

    def matches(self, value: str) -> bool:
        return value.startswith(self.text) if self.open else value == self.text


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which identifiers a subscription hears."""

    provider: Half
    name: Half

    @property
    def is_exact(self) -> bool:
        return not (self.provider.open or self.name.open)

    def matches(self, provider: str, name: str) -> bool:
        """Whether it hears this event. A wildcard provider never hears the platform's own."""
        if self.provider.open and provider == PLATFORM_PROVIDER:
            return False
        return self.provider.matches(provider) and self.name.matches(name)

    def __str__(self) -> str:
        return f"e:{self.provider.text}{'*' * self.provider.open}/{self.name.text}{'*' * self.name.open}"


def parse_pattern(text: str) -> Pattern:
    """Raises Reject with what is wrong when it is not a pattern."""
    provider, slash, name = text.removeprefix("e:").partition("/")
    if not text.startswith("e:") or not slash:
        raise Reject(f"{_shown(text)} is not a pattern: write e:provider/name, where * may end or replace either half")
    return Pattern(_half(provider, _PROVIDER, _PROVIDER_RULE, "provider"), _half(name, _NAME, _NAME_RULE, "name"))


def _half(text: str, rule: re.Pattern[str], wording: str, which: str) -> Half:
    literal = text.removesuffix("*")
    is_open = literal != text
    if "*" in literal:
        raise Reject(f"{_shown(text)} is no pattern for a {which}: * may stand only at its end")
    if not (literal == "" and is_open) and not rule.fullmatch(literal):
        raise Reject(f"{_shown(text)} is no pattern for a {which}: use {wording}, * at its end, or * alone")
    return Half(literal, is_open)


def _shown(text: str) -> str:
    """What a user typed, cut to what an error message can bear."""
    return repr(text if len(text) <= 200 else text[:200] + "…")
