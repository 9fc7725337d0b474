"""What `${…}` and `where` come to, and what they refuse."""

import threading
from typing import Any

import pytest

from millrace_core.errors import Reject
from millrace_core.expressions import Scope, WhereConditions, check_condition, check_template, compiled, render
from millrace_core.messages import Event

SCOPE = Scope(
    {
        "input": {
            "count": 3,
            "ratio": 1.5,
            "name": "Ada",
            "tags": ["a", "b"],
            "none": None,
            "deep": {"z": 1, "a": [1]},
            "huge": 2**63,
        },
        "event": {"id": "evt_1"},
        "steps": {"first-step": {"status": 200}},
        "previous": {"ok": True},
    }
)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        (5, 5),
        ("${input.count}", 3),
        ("${ input.count + 1 }", 4),
        ("n=${input.count}, ${input.name}!", "n=3, Ada!"),
        ("${input.none}", None),
        ("x${input.none}y${input.deep}z${true}", 'xnully{"z":1,"a":[1]}ztrue'),
        ("${steps['first-step'].status}", 200),
        ("${previous.ok ? 'yes' : 'no'}", "yes"),
        ("$${input.name}", "${input.name}"),
        ("costs $5 ${input.count}$", "costs $5 3$"),
        ("${'}'}", "}"),
        ("${'\\'}'}", "'}"),
        ("${r'\\d}'}", "\\d}"),
        ("${'''}'''}", "}"),
        ("${ {'a': {'b': input.count}}.a.b }", 3),
        ({"a": ["${input.tags}", {"b": "${input.ratio}"}]}, {"a": [["a", "b"], {"b": 1.5}]}),
        ("${input.tags.map(t, t + '!')}", ["a!", "b!"]),
        ("${has(input.missing) ? 1 : 2}", 2),
        ("${input.?missing.orValue('none')}", "none"),
        ("${double(input.count) + input.ratio}", 4.5),
        ("${input.count < input.ratio}", False),
        ("${input.huge}", 2**63),
        ("${timestamp('2026-01-01T00:00:00Z')}", "2026-01-01T00:00:00Z"),
        ("${duration('90s')}", 90.0),
        ("${b'abc'}", "YWJj"),
        ("${ {2: 'a', true: 'b'} }", {"2": "a", "true": "b"}),
        ("${'%s-%d'.format([input.name, input.count])}", "Ada-3"),
    ],
)
def test_a_template_comes_to(template: Any, value: Any) -> None:
    check_template(template)
    assert render(template, SCOPE) == value


def test_a_bare_path_keeps_the_order_of_members() -> None:
    members = {f"m{n}": n for n in range(40, 0, -1)}
    assert list(render("${input}", Scope({"input": members}))) == list(members)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("${input.missing}", "there is no `missing`"),
        ("${input.count.more}", "there is no `more`"),
        ("${input.deep.b + 1}", "Key not found"),
        ("${input.count + 1.0}", "write double(…) around the whole one"),
        ("${1 / 0}", "divide by zero"),
        ("${input.?missing}", "no form in JSON"),
        ("${type(1)}", "no form in JSON"),
        ("${double(input.count) / 0.0}", "JSON cannot write"),
        ("${9223372036854775807 + 1}", "overflow"),
        ("${input.tags[7]}", "index=7"),
    ],
)
def test_an_error_is_raised_and_never_a_value(template: str, says: str) -> None:
    check_template(template)
    with pytest.raises(Reject) as failed:
        render(template, SCOPE)
    assert says in str(failed.value)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"headers": ["x", "${nope}"]}, "headers[1]: the expression `nope` is wrong"),
        ("${1 +}", "Syntax error"),
        ("${", "does not end"),
        ("${input.name", "does not end"),
        ("${'}", "does not end"),
        ("${}", "is empty"),
        ("${" + "(" * 30 + "1" + ")" * 30 + "}", "nests 30 brackets"),
        ("${" + " + ".join(["1"] * 100) + "}", "is wrong"),
        ("${'" + "x" * 5000 + "'}", "at most 4096"),
    ],
)
def test_a_wrong_template_is_refused_when_it_is_saved(template: Any, says: str) -> None:
    with pytest.raises(Reject) as refused:
        check_template(template)
    assert says in str(refused.value)


def test_its_cost_is_bounded() -> None:
    scope = Scope({"input": {"few": list(range(60)), "many": list(range(1001))}})
    with pytest.raises(Reject, match="budget"):
        render("${input.few.map(a, input.few.map(b, input.few.map(c, a)))}", Scope({"input": {"few": list(range(60))}}))
    with pytest.raises(Reject, match="may walk at most 1000"):
        render("${input.many.map(a, a)}", scope)
    assert render("${input.many.exists(a, a == 1000)}", scope) is True


def test_an_expression_may_be_shared_by_threads() -> None:
    wrong: list[int] = []

    def work(n: int) -> None:
        scopes = ((k, Scope({"input": {"n": n, "k": k}})) for k in range(200))
        wrong.extend(k for k, scope in scopes if render("${input.n + input.k}", scope) != n + k)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("input.count > 2 && event.identifier == 'e:a/b'", True),
        ("input.count > 5", False),
        ("input.missing > 5", False),
        ("input.count", False),
        ("input.yes", True),
    ],
)
def test_a_condition_that_fails_does_not_hold(where: str, holds: bool) -> None:
    check_condition(where)
    conditions = WhereConditions()
    event = Event(id="evt_1", account="acc", identifier="e:a/b", received_at=0)
    assert conditions.compile(where)(conditions.scope({"count": 3, "yes": True}, event)) is holds


def test_a_condition_that_can_never_hold_is_refused() -> None:
    with pytest.raises(Reject, match="true or false"):
        check_condition("1 + 1")
    with pytest.raises(Reject):
        check_condition("input.")


def test_compiling_is_remembered() -> None:
    assert compiled("input.a + 1") is compiled("input.a + 1")
