"""What the documents promise of webhooks and credentials, all the way: from the API through the log to the receiver."""

import hashlib
import hmac
from typing import Any

from standardwebhooks import Webhook

from tests.e2e.conftest import Millrace
from tests.support.waiting import eventually

VALUE = "xoxb-your-token"


async def test_an_ops_endpoint_hears_its_name_with_the_same_ids_on_every_attempt(millrace: Millrace) -> None:
    user, sink, path = millrace.user, millrace.sink, "/documents/ops"
    wanted = {"url": sink.url + path, "events": ["invoice.*"], "style": "ops", "retry_schedule_s": [0.1, 0.1]}
    made = await user.make("/v1/webhooks", wanted)
    sink.refuse[path] = 1
    event = await user.publish("e:ops/invoice.paid", {"invoice_id": 7})
    await eventually(lambda: len(sink.arrived[path]) == 2, timeout_s=20.0)
    first, second = sink.arrived[path]
    assert (first.body["type"], first.body["data"]) == ("invoice.paid", {"invoice_id": 7})
    assert first.raw == second.raw
    for name in ("X-OpsIQ-Signature", "X-OpsIQ-Idempotency-Key", "X-OpsIQ-Delivery-Id"):
        assert first.headers[name] == second.headers[name]
    right = hmac.new(made["secret"].encode(), first.raw, hashlib.sha256)
    assert first.headers["X-OpsIQ-Signature"] == f"sha256={right.hexdigest()}"
    assert first.headers["X-OpsIQ-Idempotency-Key"] == event
    delivery = await user.ended(f"/v1/deliveries/{first.headers['X-OpsIQ-Delivery-Id']}", "succeeded")
    assert len(delivery["attempts"]) == 2


async def test_a_step_proves_itself_with_a_credential_that_nothing_shows(millrace: Millrace) -> None:
    user, sink, path = millrace.user, millrace.sink, "/documents/step"
    sink.answers[path] = {"you": f"Bearer {VALUE}"}
    credential = await user.make("/v1/credentials", {"name": "e2e", "type": "bearer", "value": VALUE})
    config = {"url": sink.url + path, "credential": "e2e"}
    job = await user.make("/v1/jobs", {"name": "tell", "step": {"id": "tell", "type": "http", "config": config}})
    run = (await user.make(f"/v1/jobs/{job['id']}/run", {"input": {}}))["id"]
    ended: Any = await user.ended(f"/v1/runs/{run}", "completed")
    (arrived,) = sink.arrived[path]
    assert arrived.headers["authorization"] == f"Bearer {VALUE}"
    assert ended["output"]["body"] == {"you": "Bearer ***"}
    for shown in (f"/v1/runs/{run}", f"/v1/runs/{run}/trace", f"/v1/jobs/{job['id']}", "/v1/credentials"):
        assert VALUE.encode() not in (await user.ask("GET", shown)).body
    refused = await user.ask("DELETE", f"/v1/credentials/{credential['id']}")
    assert refused.status == 409
    for replica in millrace.platform.running:
        assert VALUE not in millrace.platform.tail(replica, 10_000)


async def test_the_automation_pages_webhook_hears_of_workflows_and_forms_by_their_names(millrace: Millrace) -> None:
    user, sink, path = millrace.user, millrace.sink, "/documents/automation"
    secret = "your-webhook-secret"
    wanted = {"url": sink.url + path, "events": ["workflow.executed", "form.submitted"], "secret": secret}
    await user.make("/v1/webhooks", wanted)
    node = {"id": "say", "type": "transform", "config": {"expression": "input.email"}}
    workflow = await user.make("/v1/workflows", {"name": "say", "nodes": [node], "edges": [], "status": "published"})
    started = await user.make(f"/v1/workflows/{workflow['id']}/execute", {"input": {"email": "user@example.com"}})
    field = {"name": "email", "type": "email", "required": True}
    form = await user.make("/v1/forms", {"name": "Contact Form", "fields": [field]})
    await user.make(f"/v1/forms/{form['id']}/submissions", {"data": {"email": "user@example.com"}})

    def heard() -> dict[str, Any]:
        found = {one.body["type"]: one for one in sink.arrived[path]}
        assert set(found) == {"workflow.executed", "form.submitted"}
        return found

    by_type = await eventually(heard, timeout_s=20.0)
    for one in by_type.values():
        # The official library takes a secret that is no base64 as bytes.
        Webhook(secret.encode()).verify(one.raw, dict(one.headers))
    assert by_type["workflow.executed"].body["data"]["execution_id"] == started["execution_id"]
    assert by_type["form.submitted"].body["data"]["data"] == {"email": "user@example.com"}
