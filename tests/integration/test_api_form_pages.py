"""The page of a published form: everyone may fill it in, and nothing on it is anything but text."""

import asyncio
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from millrace_core import form_data, forms, limits
from millrace_core.messages import Event, decode
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld
from tests.support.user import Answer

EVIL = "<script>alert(1)</script>\"'&"
EVERY_TYPE: list[dict[str, Any]] = [
    {"name": type, "type": type} | ({"options": ["a", EVIL]} if type in ("select", "multiselect") else {})
    for type in forms.FIELD_TYPES
]
FILLED_IN = [
    ("text", "Jane"),
    ("textarea", "two\r\nlines"),
    ("email", "jane@example.com"),
    ("phone", "+49 30 123456"),
    ("url", "https://example.com/?a=1&b=2"),
    ("number", "1.5"),
    ("integer", "7"),
    ("boolean", "false"),
    ("date", "2026-01-31"),
    ("datetime", "2026-01-31T12:00"),
    ("select", EVIL),
    ("multiselect", "a"),
    ("multiselect", EVIL),
    (form_data.TRAP, ""),
]
KEPT = {
    "text": "Jane",
    "textarea": "two\nlines",
    "email": "jane@example.com",
    "phone": "+49 30 123456",
    "url": "https://example.com/?a=1&b=2",
    "number": 1.5,
    "integer": 7,
    "boolean": False,
    "date": "2026-01-31",
    "datetime": "2026-01-31T12:00Z",
    "select": EVIL,
    "multiselect": ["a", EVIL],
}


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, name: str) -> list[Mapping[str, str | None]]:
        return [attributes for _, attributes in self.tags if attributes.get("name") == name]


async def form(api: ApiWorld, fields: Sequence[Mapping[str, Any]], **more: Any) -> tuple[str, str]:
    """A form's id and the path of its page."""
    made = await api.ask("POST", "/v1/forms", {"name": f"Talk to us {EVIL}", "fields": fields} | more)
    return made.data["id"], f"/forms/{made.data['public_id']}"


async def look(api: ApiWorld, path: str, **headers: str) -> Answer:
    return await api.ask("GET", path, headers={"authorization": "", **headers})


async def send(api: ApiWorld, path: str, given: Sequence[tuple[str, str]], **headers: str) -> Answer:
    """As a browser does, not following where it is sent."""
    more = {"content-type": "application/x-www-form-urlencoded", **headers}
    async with api.session.post(
        api.url + path, data=urlencode(given).encode(), headers=more, allow_redirects=False
    ) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def submissions(api: ApiWorld, id: str) -> list[Any]:
    return list((await api.ask("GET", f"/v1/forms/{id}/submissions")).data)


async def test_a_page_shows_every_type_of_field_and_runs_nothing(api: ApiWorld) -> None:
    fields = [one | {"label": f"L {EVIL}", "description": f"D {EVIL}", "required": True} for one in EVERY_TYPE]
    _, path = await form(api, fields, description=f"About {EVIL}")
    shown = await look(api, path)
    assert (shown.status, shown.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = shown.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert shown.headers["Cache-Control"] == "no-store"
    page = Page(shown)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(EVIL) >= 2 * len(EVERY_TYPE), "as text"
    for one in EVERY_TYPE:
        assert page.of(one["name"]), one
    assert [tag for tag, attributes in page.tags if attributes.get("name") == "textarea"] == ["textarea"]
    assert {attributes.get("method") for tag, attributes in page.tags if tag == "form"} == {"post"}


async def test_what_is_sent_is_a_submission_by_nobody_and_an_event(api: ApiWorld) -> None:
    id, path = await form(api, EVERY_TYPE)
    sent = await send(api, path, FILLED_IN)
    assert (sent.status, sent.headers["Location"]) == (303, f"{path}/thanks")
    thanks = await look(api, sent.headers["Location"])
    assert thanks.status == 200
    assert "Thank you" in Page(thanks).text
    [kept] = await submissions(api, id)
    assert kept["data"] == KEPT
    assert kept.get("submitted_by") is None
    told = [decode(record.value, Event).unique_key for record in await read_all(api.cluster, ["events"])]
    assert told.count(kept["id"]) == 1


async def test_what_is_sent_twice_from_one_page_is_one_submission(api: ApiWorld) -> None:
    id, path = await form(api, EVERY_TYPE)
    shown = [Page(await look(api, path)).of(form_data.NONCE)[0]["value"] for _ in range(2)]
    assert shown[0] != shown[1]
    clicks = await asyncio.gather(*(send(api, path, [*FILLED_IN, (form_data.NONCE, str(shown[0]))]) for _ in range(3)))
    assert [(one.status, one.headers["Location"]) for one in clicks] == [(303, f"{path}/thanks")] * 3
    [kept] = await submissions(api, id)
    told = {decode(record.value, Event).unique_key for record in await read_all(api.cluster, ["events"])}
    assert kept["id"] in told
    await send(api, path, [*FILLED_IN, (form_data.NONCE, str(shown[1]))])
    await send(api, path, [*FILLED_IN, (form_data.NONCE, "no nonce")])
    assert len(await submissions(api, id)) == 3
    _, other = await form(api, EVERY_TYPE)
    refused = await send(api, other, [("email", "nobody"), (form_data.NONCE, str(shown[0]))])
    assert Page(refused).of(form_data.NONCE)[0]["value"] == shown[0], "it is still the same showing"


async def test_what_was_left_empty_is_left_out(api: ApiWorld) -> None:
    id, path = await form(api, EVERY_TYPE)
    assert (await send(api, path, [(name, "") for name, _ in FILLED_IN])).status == 303
    assert [one["data"] for one in await submissions(api, id)] == [{}]


async def test_a_refused_one_shows_what_was_given_and_each_problem(api: ApiWorld) -> None:
    fields = [one | {"required": one["name"] == "boolean"} for one in EVERY_TYPE]
    id, path = await form(api, fields)
    given = [(name, text) for name, text in FILLED_IN if name not in ("boolean", "number", "email")]
    refused = await send(api, path, [*given, ("number", f"many {EVIL}"), ("email", "nobody")])
    assert refused.status == 400
    page = Page(refused)
    for problem in ("This is required.", "This must be a number.", "This must be an email address."):
        assert problem in page.text
    assert [one["value"] for one in page.of("text")] == ["Jane"]
    assert [one["value"] for one in page.of("number")] == [f"many {EVIL}"]
    assert [one.get("aria-invalid") for one in page.of("email")] == ["true"]
    assert [one["value"] for one in page.of("multiselect") if "checked" in one] == ["a", EVIL]
    assert [one["value"] for tag, one in page.tags if tag == "option" and "selected" in one] == [EVIL]
    assert "two\r\nlines" in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    assert await submissions(api, id) == []


async def test_what_fills_in_the_trap_is_thanked_and_not_kept(api: ApiWorld) -> None:
    id, path = await form(api, EVERY_TYPE)
    sent = await send(api, path, [*FILLED_IN, (form_data.TRAP, "https://spam.example")])
    assert (sent.status, sent.headers["Location"]) == (303, f"{path}/thanks")
    assert await submissions(api, id) == []


async def test_only_a_published_form_has_a_page(api: ApiWorld) -> None:
    id, path = await form(api, EVERY_TYPE, status="draft")
    for there in (path, f"{path}/thanks", "/forms/nothing", f"/forms/{id}", "/forms/a%00b", "/forms/a/b/c", "/forms"):
        missing = await look(api, there)
        assert missing.status == 404, there
        assert missing.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in missing.headers["Content-Security-Policy"]
    assert (await send(api, path, FILLED_IN)).status == 404
    await api.ask("PATCH", f"/v1/forms/{id}", {"status": "published"})
    assert (await look(api, path)).status == 200
    await api.ask("DELETE", f"/v1/forms/{id}")
    assert (await look(api, path)).status == 404


async def test_what_is_no_form_data_is_refused_with_a_page(api: ApiWorld) -> None:
    id, path = await form(api, EVERY_TYPE)
    assert (await api.ask("POST", path, {"text": "x"}, headers={"authorization": ""})).status == 415
    headers = {"authorization": "", "content-type": "application/x-www-form-urlencoded"}
    assert (await api.ask("POST", path, raw=b"text=%ff", headers=headers)).status == 400
    large = await api.ask("POST", path, raw=b"text=" + b"x" * limits.BODY_BYTES_MAX, headers=headers)
    assert (large.status, large.headers["Content-Type"]) == (413, "text/html; charset=utf-8")
    assert (await api.ask("PUT", path, raw=b"", headers=headers)).status == 405
    assert await submissions(api, id) == []


@pytest.mark.parametrize("path", ["/forms/%3Cscript%3E", f"/forms/{quote(EVIL, safe='')}/thanks"])
async def test_an_address_is_not_shown_as_anything_but_text(api: ApiWorld, path: str) -> None:
    missing = await look(api, path)
    assert missing.status == 404
    assert b"<script" not in missing.body


async def test_a_client_has_a_rate_for_each_form(api: ApiWorld) -> None:
    _, path = await form(api, EVERY_TYPE)
    _, other = await form(api, EVERY_TYPE)
    mine = {"x-forwarded-for": "203.0.113.7, 198.51.100.1"}
    answers = [await look(api, path, **mine) for _ in range(61)]
    assert {one.status for one in answers[:60]} == {200}
    assert answers[-1].status == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert "Too often" in Page(answers[-1]).text
    assert (await send(api, path, FILLED_IN, **mine)).status == 429
    assert (await look(api, other, **mine)).status == 200, "another form"
    assert (await look(api, path, **{"x-forwarded-for": "198.51.100.2"})).status == 200, "another client"
