"""From a prompt to a call of a registered contract, or to a question, or to a refusal. Never to a guess.

Deterministic. A contract is found by its verb (the first word behind the dot of its id), its synonyms and the nouns of
its id; parameters come out of the prompt to the letter, or out of live data by what the prompt says of it ("Adam's last
invoice"). Every word must have been understood: one that nothing explains ends in a question, as does anything that
two things could mean. A contract or a value that is in neither the registry, the prompt nor the data cannot come out.
Not here: words (`prompts`), where live data lies (`Facts`), who confirms.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from millrace_core import actions, prompts
from millrace_core.actions import Contract
from millrace_core.errors import Reject
from millrace_core.prompts import Token, stem

Thing = Literal["customer", "invoice", "subscription", "ticket"]
OPTIONS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A thing in the live data."""

    id: str
    label: str
    customer: str | None = None


class Rewording(Protocol):
    """Something that puts a prompt in plainer words, such as a language model. It is not trusted (`is_faithful`)."""

    async def reword(self, rendered: str) -> str | None:
        """The prompt in other words; None when it has none, or cannot be asked just now."""
        ...


class Facts(Protocol):
    """The live data, as far as prompts speak of it."""

    async def customers(self, name: str, *, most: int) -> Sequence[Found]:
        """Those whose name has all these words, or whose address this is."""
        ...

    async def of_customer(self, kind: Thing, customer: str, *, status: str | None, most: int) -> Sequence[Found]:
        """The newest things of this kind that belong to a customer."""
        ...

    async def get(self, kind: Thing, id: str) -> Found | None:
        """The thing of this id."""
        ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is asked for: a registered contract, and parameters that keep it."""

    action: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unclear:
    """It could mean several things, or something is missing: what to ask back, and what there is to choose from."""

    question: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be done."""

    reason: str


Outcome = Resolved | Unclear | Refused


class _Stop(Exception):
    def __init__(self, outcome: Unclear | Refused) -> None:
        super().__init__()
        self.outcome = outcome


async def resolve(prompt: str, contracts: Sequence[Contract], *, role: str, facts: Facts) -> Outcome:
    """What this prompt, by one with this role, comes to."""
    words = prompts.read(prompt)
    try:
        _check_mood(words)
        contract, used = _contract(words, contracts)
        if not actions.may_run(contract, role):
            least = actions.lowest(contract.roles)
            return Refused(f"{contract.id} may be run by the role {least} and above.")
        return await _Call(prompt, words, contract, used, facts).resolved()
    except _Stop as stop:
        return stop.outcome


def may_be_reworded(prompt: str) -> bool:
    """Whether a prompt that was not understood may be put in other words: not one that says no, later, or all."""
    try:
        _check_mood(prompts.read(prompt))
    except _Stop:
        return False
    return True


def is_faithful(prompt: str, said: str, contracts: Sequence[Contract]) -> bool:
    """Whether a rewording, by whatever made it, says nothing that the prompt does not say: each of its numbers, ids,
    addresses and quotations stands in the prompt, and each of the prompt's in it; its words are the prompt's, or those
    that name actions and things; what is done, and to what, is not changed where the prompt says it; and which one is
    meant (`last`, `paid`) is the prompt's alone."""
    before, after = prompts.read(prompt), prompts.read(said)
    if {word.lower for word in before if word.kind != "word"} != {word.lower for word in after if word.kind != "word"}:
        return False
    typed = {word.lower for word in before if word.kind == "word"}
    stems = {word.stem for word in before if word.kind == "word"}
    telling = {word.lower for word in after} & (_LATEST | _OTHER_ORDINALS | _STATUSES)
    if not all(word in typed or (word in _LATEST and typed & _LATEST) for word in telling):
        return False
    known = stems | {stem(word) for word in _FILLERS | _LATEST} | frozenset().union(*_VERBS, *_NOUNS.values())
    for contract in contracts:
        named = contract.id.partition(".")[2].replace(".", "_").replace("-", "_").split("_")
        known |= {stem(word) for word in [*named, *" ".join(contract.synonyms).split()]}
    if not all(word.stem in known for word in after if word.kind == "word"):
        return False
    verbs = {_like_verb(one.id.partition(".")[2].replace("-", "_").split("_")[0]) for one in contracts} | {*_VERBS}
    after_stems = {word.stem for word in after if word.kind == "word"}
    return all(_keeps(groups, stems, after_stems) for groups in (verbs, set(_NOUNS.values())))


def _keeps(groups: Set[frozenset[str]], before: Set[str], after: Set[str]) -> bool:
    """Whether nothing of these groups comes in, where something of them was there."""
    there = {group for group in groups if group & before}
    return not there or {group for group in groups if group & after} <= there


# ── words that are the same for all ─────────────────────────────────────────────────────────────────────────────────
def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _stems(*words: str) -> frozenset[str]:
    return frozenset(stem(word) for text in words for word in text.split())


_VERBS: Final = tuple(
    _stems(group)
    for group in (
        "refund reimburse repay",
        "cancel terminate stop end",
        "send email mail forward share",
        "close resolve finish",
        "reopen",
        "create open make",
        "update change set edit",
        "delete remove erase",
        "pause suspend freeze hold",
        "resume unpause reactivate restart",
        "extend prolong lengthen",
        "apply grant give",
        "assign",
        "upgrade",
        "downgrade",
        "reset",
        "void",
    )
)
_NOUNS: Final[Mapping[Thing, frozenset[str]]] = {
    "invoice": _stems("invoice bill payment charge"),
    "subscription": _stems("subscription membership"),
    "ticket": _stems("ticket case issue"),
    "customer": _stems("customer client"),
}
_OTHER_NOUNS: Final = _stems(
    "order account user password plan discount coupon trial refund email address card server database company team "
    "workspace report phone shipment parcel licence license key"
)
_FILLERS: Final = _words(
    "please kindly can could would will you i we i'd we'd want need like to the a an of for from on in at "
    "with my our me us now just go ahead let's lets hey hi hello thanks thank it's do by and is as his "
    "her their its him them this that it"
)
_LATEST: Final = _words("last latest newest recent most")
_OTHER_ORDINALS: Final = _words("first oldest earliest second third previous penultimate next other")
_STATUSES: Final = _words("paid open overdue draft active paused closed pending unpaid refunded cancelled")
_ASKING: Final = _words("how what why when who whom whose where which is are was were does did should has have")
_NOT: Final = _words("don't dont not never no nobody cannot can't won't shouldn't without instead undo")
_MANY: Final = _words("all every each both everyone everybody anyone any several many")
_LATER: Final = _words(
    "if unless when whenever after before until once tomorrow tonight later monday tuesday wednesday "
    "thursday friday saturday sunday week"
)
_TEXTS: Final = _words("reason note message text comment subject body")
_JOINERS: Final = frozenset({"and", "then", "also", "plus"})


def _check_mood(words: Sequence[Token]) -> None:
    """A call is one thing, now, and wanted."""
    lower = [word.lower for word in words if word.kind == "word"]
    until = lower.index("because") if "because" in lower else len(lower)
    lower = lower[:until]
    if not set(lower) - _FILLERS:
        raise _Stop(Unclear("What is to be done?"))
    if lower[0] in _ASKING:
        raise _Stop(Refused("This asks something; only registered actions can be run."))
    if _NOT & set(lower):
        raise _Stop(Refused("This says what is not to be done; say what is."))
    if _MANY & set(lower):
        raise _Stop(Refused("One thing at a time: an action is run for one."))
    if _LATER & set(lower):
        raise _Stop(Refused("An action is run now or not at all: no times, no conditions."))


# ── which contract ──────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class _Match:
    contract: Contract
    score: float
    verb: int
    used: frozenset[int]


def _contract(words: Sequence[Token], contracts: Sequence[Contract]) -> tuple[Contract, frozenset[int]]:
    matches = sorted(
        (match for contract in contracts if (match := _match(words, contract)) is not None),
        key=lambda match: (-match.score, match.contract.id),
    )
    if not matches:
        raise _Stop(Refused("No registered action does this."))
    best = matches[0]
    as_good = [match for match in matches if best.score - match.score < _CLEARLY and match.verb == best.verb]
    if len(as_good) > 1:
        options = tuple(match.contract.id for match in as_good[:OPTIONS_MAX])
        raise _Stop(Unclear("Which of these is meant?", options))
    others = [match for match in matches[1:] if match.verb not in best.used and best.verb not in match.used]
    if others and any(word.lower in _JOINERS for word in words):
        raise _Stop(Unclear("One thing at a time: which first?", (best.contract.id, others[0].contract.id)))
    return best.contract, best.used


_CLEARLY: Final = 0.5
_HINT: Final = 0.4


def _match(words: Sequence[Token], contract: Contract) -> _Match | None:
    """How well the words fit, and which of them the contract explains; None = it is not meant."""
    verb, *nouns = contract.id.partition(".")[2].replace(".", "_").replace("-", "_").split("_")
    at = {word.stem: index for index, word in reversed(list(enumerate(words))) if word.kind == "word"}
    used: set[int] = set()
    score, verb_at = 0.0, -1
    for phrase in contract.synonyms:
        wanted = [stem(word) for word in phrase.split() if word.lower() not in _FILLERS]
        if wanted and all(word in at for word in wanted):
            used |= {at[word] for word in wanted}
            score, verb_at = max(score, 2.5 + 0.25 * len(wanted)), at[wanted[0]]
    for word in _like_verb(verb):
        if word in at:
            used.add(at[word])
            score, verb_at = max(score, 2.0), at[word]
    if verb_at < 0:
        return None
    for noun in nouns:
        hit = next((at[word] for word in _like_noun(noun) if word in at and at[word] != verb_at), None)
        score += -0.25 if hit is None else 1.0
        used |= set() if hit is None else {hit}
    said = f"{contract.title or ''} {contract.description} {' '.join(actions.parameter_names(contract))}"
    known = {stem(word) for word in said.replace(",", " ").replace("_", " ").split() if word.lower() not in _FILLERS}
    score += sum(_HINT for word in known if word in at and at[word] not in used)
    # A word of a parameter's name says something of its value, and is explained by that.
    about = {stem(word) for word in f"{contract.title or ''} {contract.description}".replace(",", " ").split()}
    used |= {at[word] for word in about if word in at}
    return _Match(contract, score, verb_at, frozenset(used))


def _like_verb(verb: str) -> frozenset[str]:
    return next((group for group in _VERBS if stem(verb) in group), frozenset({stem(verb)}))


def _like_noun(noun: str) -> frozenset[str]:
    return next((group for group in _NOUNS.values() if stem(noun) in group), frozenset({stem(noun)}))


# ── its parameters ──────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass
class _Call:
    """One contract's parameters, out of the words and the facts. `used` are the words that are understood."""

    prompt: str
    words: Sequence[Token]
    contract: Contract
    understood: frozenset[int]
    facts: Facts
    params: dict[str, Any] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)

    async def resolved(self) -> Outcome:
        self.used = set(self.understood)
        properties: Mapping[str, Any] = self.contract.parameters.get("properties", {})
        self._take_reason(properties)
        self._take_units(properties)
        things = {name: kind for name, schema in properties.items() if (kind := _thing_of(name, schema)) is not None}
        explicit = {kind: self._explicit_id(kind) for kind in ("invoice", "subscription", "ticket", "customer")}
        self._take_values(properties, things)
        latest, status = self._ordinal(), self._status()
        customer = await self._customer(explicit["customer"])
        for name, kind in things.items():
            await self._take_thing(name, properties[name], kind, explicit, customer, latest, status)
        self._check_all_understood()
        self._check_complete(properties)
        try:
            actions.params_of(self.contract, self.params)
        except Reject as error:
            return Refused(f"What the prompt says does not fit {self.contract.id}: {error}.")
        return Resolved(self.contract.id, dict(self.params))

    # ── out of the prompt, to the letter ────────────────────────────────────────────────────────────────────────────
    def _take_reason(self, properties: Mapping[str, Any]) -> None:
        """`because …`, as it was typed."""
        because = next((i for i, word in enumerate(self.words) if word.lower == "because"), None)
        name = next((name for name in properties if name in _TEXTS), None)
        if because is None or name is None or because + 1 >= len(self.words):
            return
        self.params[name] = self.prompt[self.words[because + 1].start :].strip().rstrip(".!")
        self.used |= set(range(because, len(self.words)))

    def _take_units(self, properties: Mapping[str, Any]) -> None:
        """Numbers that say what they are: `14 days`, `20 %`, `$5`, `amount 5`."""
        for name, schema in properties.items():
            if _thing_of(name, schema) is not None or schema.get("type") not in ("integer", "number"):
                continue
            parts = {stem(part) for part in name.split("_")}
            for i, word in enumerate(self.words):
                if word.kind != "number" or i in self.used:
                    continue
                after = self.words[i + 1].stem if i + 1 < len(self.words) else ""
                before = self.words[i - 1].stem if i else ""
                is_unit = after in parts or before in parts
                if is_unit or (word.is_money and "amount" in name) or (word.is_percent and parts & _PERCENT):
                    self._give(name, schema, i)
                    self.used |= {j for j in (i - 1, i + 1) if 0 <= j < len(self.words) and self.words[j].stem in parts}
                    break

    def _take_values(self, properties: Mapping[str, Any], things: Mapping[str, Thing]) -> None:
        """Choices, addresses, quoted text and the like. What two parameters could mean is nobody's."""
        for name, schema in properties.items():
            if name in self.params or name in things:
                continue
            choices = schema.get("enum", ())
            hits = [i for i, w in self._left() if any(isinstance(c, str) and w.lower == c.lower() for c in choices)]
            if len(hits) == 1:
                self.params[name] = next(c for c in choices if str(c).lower() == self.words[hits[0]].lower)
                self.used.add(hits[0])
                self.used |= {i for i, w in enumerate(self.words) if w.stem in {stem(p) for p in name.split("_")}}
            elif len(hits) > 1:
                raise _Stop(Unclear(f"Which {name}?", tuple(self.words[i].text for i in hits)))
        texts = self._open(properties, things, "string")
        emails = [name for name in texts if "email" in name]
        self._pair(emails, properties, [i for i, w in self._left() if w.kind == "email"])
        texts = [name for name in texts if name not in self.params and name not in emails]
        self._pair(texts, properties, [i for i, w in self._left() if w.kind == "quoted"])
        texts = [name for name in texts if name not in self.params and name not in _TEXTS]
        self._pair(texts, properties, [i for i, w in self._left() if w.kind == "id" or _is_slug(w)])
        amounts = [name for name in self._open(properties, things, "number", "integer") if "amount" in name]
        self._pair(amounts, properties, [i for i, w in self._left() if w.kind == "number" and not w.is_percent])

    def _pair(self, names: Sequence[str], properties: Mapping[str, Any], at: Sequence[int]) -> None:
        """One parameter and one word for it: that is it."""
        required = [name for name in names if name in actions.required_names(self.contract)]
        wanted = required if len(required) == 1 else names
        if len(wanted) == 1 and len(at) == 1:
            self._give(wanted[0], properties[wanted[0]], at[0])

    def _give(self, name: str, schema: Mapping[str, Any], at: int) -> None:
        value = prompts.number(self.words[at])
        if value is None:
            self.params[name] = self.words[at].text
        else:
            self.params[name] = value if schema.get("type") in ("integer", "number") else self.words[at].text
        self.used |= {at} | {i for i, w in enumerate(self.words) if w.stem in {stem(p) for p in name.split("_")}}

    # ── out of the live data ────────────────────────────────────────────────────────────────────────────────────────
    def _explicit_id(self, kind: Thing) -> str | None:
        """`invoice in_1`, `ticket 5519`, `ticket #5519`: the id behind a noun."""
        last = len(self.words) - 1
        for i, word in enumerate(self.words[:-1]):
            if word.stem not in _NOUNS[kind]:
                continue
            at = i + 2 if self.words[i + 1].lower in _NUMBERED and i + 1 < last else i + 1
            if self.words[at].kind in ("number", "id") and at not in self.used:
                self.used |= set(range(i, at + 1))
                return self.words[at].text
        return None

    def _ordinal(self) -> bool:
        hits = [(i, word) for i, word in self._left() if word.lower in _LATEST | _OTHER_ORDINALS]
        self.used |= {i for i, _ in hits}
        if any(word.lower in _OTHER_ORDINALS for _, word in hits):
            raise _Stop(Unclear("Only the latest can be found by such a word: which one is meant? Give its id."))
        return bool(hits)

    def _status(self) -> str | None:
        hits = [(i, word.lower) for i, word in self._left() if word.lower in _STATUSES]
        self.used |= {i for i, _ in hits}
        if len(hits) > 1:
            raise _Stop(Unclear("Which of them?", tuple(text for _, text in hits)))
        return hits[0][1] if hits else None

    async def _customer(self, explicit: str | None) -> Found | None:
        """The customer that is spoken of, if one is."""
        if explicit is not None:
            found = await self.facts.get("customer", explicit)
            if found is None:
                raise _Stop(Refused(f"There is no customer {explicit}."))
            return found
        runs = self._names()
        if not runs:
            return None
        if len(runs) > 1:
            raise _Stop(Unclear("Not understood: " + ", ".join(_joined(self.words, run) for run in runs) + "."))
        name = _joined(self.words, runs[0])
        found_all = list(await self.facts.customers(name, most=OPTIONS_MAX + 1))
        exact = [one for one in found_all if one.label.lower() == name.lower()]
        if len(exact) == 1 and len(runs[0]) > 1:
            found_all = exact
        if not found_all:
            raise _Stop(Refused(f"There is no customer {name!r}, and nothing else is known by that word."))
        if len(found_all) > 1:
            options = tuple(f"{one.label} ({one.id})" for one in found_all[:OPTIONS_MAX])
            raise _Stop(Unclear(f"Which {name}?", options))
        self.used |= set(runs[0])
        return found_all[0]

    def _names(self) -> list[list[int]]:
        """Words that nothing else explains, those that stand together as one: what may be a name."""
        runs: list[list[int]] = []
        for i, word in self._left():
            if word.kind not in ("word", "email") or word.lower in _FILLERS or _is_noun(word):
                continue
            if runs and runs[-1][-1] == i - 1 and not self.words[i - 1].is_possessive:
                runs[-1].append(i)
            else:
                runs.append([i])
        return runs

    async def _take_thing(
        self,
        name: str,
        schema: Mapping[str, Any],
        kind: Thing,
        explicit: Mapping[str, str | None],
        customer: Found | None,
        latest: bool,
        status: str | None,
    ) -> None:
        if kind == "customer":
            if customer is not None:
                self.params[name] = _as(schema, customer.id)
            return
        nouns = [i for i, word in enumerate(self.words) if word.stem in _NOUNS[kind]]
        given = explicit[kind]
        if given is not None:
            found = await self.facts.get(kind, given)
            if found is None:
                raise _Stop(Refused(f"There is no {kind} {given}."))
            if customer is not None and found.customer != customer.id:
                raise _Stop(Refused(f"The {kind} {given} does not belong to {customer.label}."))
        elif not nouns and name not in actions.required_names(self.contract):
            return
        else:
            found = await self._thing_of_customer(kind, customer, latest, status, is_named=bool(nouns))
        self.used |= set(nouns)
        self.params[name] = _as(schema, found.id)

    async def _thing_of_customer(
        self, kind: Thing, customer: Found | None, latest: bool, status: str | None, *, is_named: bool
    ) -> Found:
        if customer is None:
            raise _Stop(Unclear(f"Whose {kind}, or which? Give a customer's name or the {kind}'s id."))
        if not is_named:
            raise _Stop(Unclear(f"Which {kind} of {customer.label}?"))
        if status is None and self.contract.id.partition(".")[2].startswith("refund"):
            status = "paid"  # what was not paid cannot be given back
        found = list(await self.facts.of_customer(kind, customer.id, status=status, most=OPTIONS_MAX + 1))
        if not found:
            said = f"{status} {kind}" if status else kind
            raise _Stop(Refused(f"{customer.label} has no {said}."))
        if len(found) > 1 and not latest:
            options = tuple(f"{one.label} ({one.id})" for one in found[:OPTIONS_MAX])
            raise _Stop(Unclear(f"Which {kind} of {customer.label}?", options))
        return found[0]

    # ── what remains ────────────────────────────────────────────────────────────────────────────────────────────────
    def _check_all_understood(self) -> None:
        left = [word for _, word in self._left() if word.lower not in _FILLERS]
        if left:
            strange = ", ".join(repr(word.text) for word in left)
            if all(_is_noun(word) for word in left):
                raise _Stop(Refused(f"No registered action does this with {strange}."))
            raise _Stop(Unclear(f"Not understood: {strange}."))

    def _check_complete(self, properties: Mapping[str, Any]) -> None:
        for name in actions.required_names(self.contract):
            if name not in self.params:
                raise _Stop(Unclear(f"What is {name} to be?"))

    def _left(self) -> list[tuple[int, Token]]:
        return [(i, word) for i, word in enumerate(self.words) if i not in self.used]

    def _open(self, properties: Mapping[str, Any], things: Mapping[str, Thing], *types: str) -> list[str]:
        return [
            name
            for name, schema in properties.items()
            if name not in self.params and name not in things and "enum" not in schema and schema.get("type") in types
        ]


_NUMBERED: Final = _words("number no id")
_PERCENT: Final = _stems("percent percentage discount")


def _thing_of(name: str, schema: Mapping[str, Any]) -> Thing | None:
    """What a parameter names: by `x-source`, or by its own name (`invoice_id`, `customer`)."""
    said = schema.get("x-source", name.removesuffix("_id"))
    return said if said in _NOUNS else None


def _as(schema: Mapping[str, Any], id: str) -> str | int:
    """An id in the type that the contract has."""
    return int(id) if schema.get("type") in ("integer", "number") and id.isdigit() else id


def _is_noun(word: Token) -> bool:
    return word.stem in _OTHER_NOUNS or any(word.stem in group for group in _NOUNS.values())


def _is_slug(word: Token) -> bool:
    return word.kind == "word" and "-" in word.text


def _joined(words: Sequence[Token], run: Sequence[int]) -> str:
    return " ".join(words[i].text for i in run)
