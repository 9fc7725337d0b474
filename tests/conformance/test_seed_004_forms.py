"""Seed 004, section Forms: every endpoint and example of the page."""

from tests.support.api_world import ApiWorld

CONTACT = {
    "name": "Contact Form",
    "fields": [
        {"name": "email", "type": "email", "required": True},
        {"name": "message", "type": "textarea", "required": True},
    ],
}
FILLED_IN = {"data": {"email": "user@example.com", "message": "Hello!"}}


async def form(api: ApiWorld) -> str:
    made = await api.ask("POST", "/v1/forms", CONTACT)
    assert made.status == 201, made.body
    assert (made.data["name"], made.data["fields"]) == (CONTACT["name"], CONTACT["fields"])
    return str(made.data["id"])


async def test_create_get_and_list_forms(api: ApiWorld) -> None:
    id = await form(api)
    got = await api.ask("GET", f"/v1/forms/{id}")
    assert got.json["success"] is True
    assert got.data["id"] == id
    listed = (await api.ask("GET", "/v1/forms?page=1&limit=1")).json
    assert listed["meta"].items() >= {"page": 1, "limit": 1, "has_more": listed["meta"]["total"] > 1}.items()
    assert listed["data"] == [got.data], "the newest"
    by_cursor = (await api.ask("GET", f"/v1/forms?cursor={listed['meta']['next_cursor']}")).json
    assert by_cursor["meta"]["page"] is None or len(by_cursor["data"]) <= 20
    both = await api.ask("GET", f"/v1/forms?page=1&cursor={listed['meta']['next_cursor']}")
    assert (both.status, both.error["code"]) == (400, "VALIDATION_ERROR")


async def test_submit_a_form_and_get_its_submissions(api: ApiWorld) -> None:
    id = await form(api)
    made = await api.ask("POST", f"/v1/forms/{id}/submissions", FILLED_IN)
    assert made.status == 201
    assert made.data["data"] == FILLED_IN["data"]
    listed = (await api.ask("GET", f"/v1/forms/{id}/submissions")).json
    assert listed["data"] == [made.data]
    assert listed["meta"]["total"] == 1
    refused = await api.ask("POST", f"/v1/forms/{id}/submissions", {"data": {"email": "x"}})
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert [one["where"] for one in refused.error["details"]["errors"]] == ["body.data.email", "body.data.message"]


async def test_a_form_is_an_intake_bot(api: ApiWorld) -> None:
    id = await form(api)
    assert (await api.ask("GET", f"/api/v1/intake-bots/{id}")).data["name"] == "Contact Form"


async def test_forms_are_changed_and_deleted_and_another_accounts_are_not_there(api: ApiWorld) -> None:
    id = await form(api)
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert (await api.ask_b(method, f"/v1/forms/{id}", body)).status == 404
    assert (await api.ask_b("POST", f"/v1/forms/{id}/submissions", FILLED_IN)).status == 404
    assert (await api.ask("PATCH", f"/v1/forms/{id}", {"name": "Other"})).data["name"] == "Other"
    assert (await api.ask("DELETE", f"/v1/forms/{id}")).data == {"id": id, "deleted": True}
    assert (await api.ask("GET", f"/v1/forms/{id}")).error["code"] == "NOT_FOUND"
