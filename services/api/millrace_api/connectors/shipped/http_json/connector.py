"""Webhooks of anything that posts JSON: which events they mean is configuration.

    {"signature": {"header": "x-signature", "prefix": "sha256=", "encoding": "hex"},
     "events": [{"when": {"type": "order.created"}, "event": "ticket.created",
                 "payload": {"id": "$.order.id", "subject": "$.order.title", "customer": {"id": "$.user.id"}},
                 "unique_key": "$.id"}]}

`when` names paths and the values they must have; the first rule that holds counts, without rules nothing does. In
`event`, `payload`, `unique_key`, `ordering_key` and `timestamp` a text `$.a.b.0` stands for what is there in the body,
`$` for all of it; a payload that is left out is the whole body. `each` names a list, of which every member gives an
event, as `$item`. The secret `webhook_secret` proves the sender: `signature` says how the HMAC over the body is sent
(`algorithm` sha256, sha1 or sha512; `timestamp_header` where the time stands before the body as `time.body`), or
`token` names a header that holds the secret itself. Further parts: `actions`, `subscribers`, `identity_providers`,
`context_providers`, each a list that is declared as it is.
"""

import base64
import hashlib
import hmac
import json
from typing import Any

ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha512": hashlib.sha512}
TOLERANCE_S = 300


class Refused(Exception):
    """It is not taken."""


class Missing(Exception):
    """There is nothing at this path."""


class HttpJsonConnector:
    title = "HTTP and JSON"
    description = "Webhooks of anything that posts JSON; which events they mean is configuration."
    secrets = ("webhook_secret",)

    def identity_providers(self, connection: Any) -> list[dict[str, Any]]:
        return list(connection.config.get("identity_providers", []))

    def context_providers(self, connection: Any) -> list[dict[str, Any]]:
        return list(connection.config.get("context_providers", []))

    def register_actions(self, connection: Any) -> list[dict[str, Any]]:
        return list(connection.config.get("actions", []))

    def subscribers(self, connection: Any) -> list[dict[str, Any]]:
        return list(connection.config.get("subscribers", []))

    def handle_webhook(self, connection: Any, request: Any) -> dict[str, Any]:
        try:
            _check(connection, request)
        except Refused as refused:
            return {"refuse": {"status": 401, "message": str(refused)}}
        try:
            body = json.loads(request.body)
        except ValueError:
            return {"refuse": {"status": 400, "message": "the body is no JSON"}}
        for rule in connection.config.get("events", []):
            if all(_at(body, body, f"$.{path}", None) == wanted for path, wanted in rule.get("when", {}).items()):
                return {"events": _events(rule, body)}
        return {"events": []}


def _events(rule: dict[str, Any], body: Any) -> list[dict[str, Any]]:
    items = _at(body, body, rule["each"], []) if "each" in rule else [body]
    made = []
    for item in items if isinstance(items, list) else []:
        try:
            event = {"event": str(_filled(rule["event"], body, item)), "payload": _payload(rule, body, item)}
            for name in ("unique_key", "ordering_key", "timestamp"):
                if name in rule:
                    event[name] = str(_filled(rule[name], body, item))
        except Missing:
            continue  # a rule that needs what is not there says nothing of this one
        made.append(event)
    return made


def _payload(rule: dict[str, Any], body: Any, item: Any) -> Any:
    """A member whose path leads nowhere is left out."""
    if "payload" not in rule:
        return item if isinstance(item, dict) else {"value": item}
    return _kept(rule["payload"], body, item)


def _kept(template: Any, body: Any, item: Any) -> Any:
    if isinstance(template, dict):
        found = {}
        for name, inner in template.items():
            try:
                found[name] = _kept(inner, body, item)
            except Missing:
                continue
        return found
    if isinstance(template, list):
        return [_kept(inner, body, item) for inner in template]
    return _filled(template, body, item)


def _filled(template: Any, body: Any, item: Any) -> Any:
    if not isinstance(template, str) or not template.startswith("$"):
        return template
    found = _at(body, item, template, Missing)
    if found is Missing:
        raise Missing
    return found


def _at(body: Any, item: Any, path: str, otherwise: Any) -> Any:
    """What stands at `$`, `$.a.b.0` or `$item.a`."""
    root, *steps = path.split(".")
    found = item if root == "$item" else body
    for step in steps:
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isascii() and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        else:
            return otherwise
    return found


def _check(connection: Any, request: Any) -> None:
    config, secret = connection.config, connection.secrets.get("webhook_secret", "")
    if config.get("unsigned") is True:
        return
    if not secret:
        raise Refused("the connection has no webhook_secret to check the sender by")
    if "token" in config:
        given = request.headers.get(str(config["token"]).lower(), "")
        if not hmac.compare_digest(given.encode(), secret.encode()):
            raise Refused(f"the header {config['token']} does not hold the secret")
        return
    _check_signature(config.get("signature", {}), secret, connection, request)


def _check_signature(how: dict[str, Any], secret: str, connection: Any, request: Any) -> None:
    header = str(how.get("header", "x-signature"))
    given, signed = request.headers.get(header.lower(), ""), request.body
    if "timestamp_header" in how:
        at = request.headers.get(str(how["timestamp_header"]).lower(), "")
        if not at.isascii() or not at.isdigit():
            raise Refused(f"the header {how['timestamp_header']} is no Unix time")
        if abs(connection.now - int(at)) > how.get("tolerance_s", TOLERANCE_S):
            raise Refused("the webhook is too old, or from the future")
        signed = at.encode() + b"." + request.body
    mac = hmac.new(secret.encode(), signed, ALGORITHMS[how.get("algorithm", "sha256")])
    written = base64.b64encode(mac.digest()).decode() if how.get("encoding") == "base64" else mac.hexdigest()
    if not hmac.compare_digest(given.encode(), (str(how.get("prefix", "")) + written).encode()):
        raise Refused(f"the signature in {header} does not match")
