"""A prompt as words: what was typed, cut up, with names, numbers, ids and quoted text told apart. Pure, and the same
for every contract; which word means what is `intents`."""

import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["word", "number", "id", "email", "quoted"]

_TOKEN = re.compile(
    r"""
    "(?P<quoted>[^"]*)" | “(?P<curly>[^”]*)”
    | (?P<email>[^\s@"'<>,;]+@[^\s@"'<>,;]+\.[^\s@"'<>,;.]+)
    | (?P<number>[$€£]?\d+(?:[.,]\d{1,2})?(?![\w-])\s?%?)
    | \#(?P<hash>[\w-]+)
    | (?P<word>\w+(?:['’\-]\w+)*['’]?)
    """,
    re.VERBOSE,
)
_POSSESSIVE = re.compile(r"['’]s?$")
_ID = re.compile(r"(?=.*\d)[A-Za-z]+[A-Za-z0-9]*[_-][\w-]+|(?=.*[A-Za-z])(?=.*\d)\w+")


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a prompt. `text` is as typed, without quotes and possessive; words are compared by `stem`."""

    text: str
    kind: Kind
    stem: str
    start: int
    is_possessive: bool = False
    is_money: bool = False
    is_percent: bool = False

    @property
    def lower(self) -> str:
        return self.text.lower()


def read(prompt: str) -> tuple[Token, ...]:
    """The pieces in their order."""
    return tuple(_token(found) for found in _TOKEN.finditer(prompt))


def stem(word: str) -> str:
    """What several forms of a word have in common. Crude, and the same on both sides."""
    word = word.lower()
    for ending, least in (("ies", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4)):
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiousl":
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def number(token: Token) -> float | int | None:
    """The number that a piece is."""
    if token.kind != "number":
        return None
    plain = token.text.strip("$€£% ").replace(",", ".")
    return float(plain) if "." in plain else int(plain)


def _token(found: "re.Match[str]") -> Token:
    start = found.start()
    quoted = found["quoted"] if found["quoted"] is not None else found["curly"]
    if quoted is not None:
        return Token(quoted, "quoted", "", start)
    if found["email"]:
        return Token(found["email"], "email", "", start)
    if found["hash"]:
        return Token(found["hash"], "id", "", start)
    if found["number"]:
        text = found["number"].strip()
        return Token(text, "number", "", start, is_money=text[0] in _MONEY, is_percent=text.endswith("%"))
    word = found["word"]
    plain = _POSSESSIVE.sub("", word)
    if _ID.fullmatch(plain):
        return Token(plain, "id", "", start, is_possessive=plain != word)
    return Token(plain, "word", stem(plain), start, is_possessive=plain != word)


_MONEY: Final = "$€£"
