"""What a gateway answers (ingest, and `/v1/events/fire`) in OpenAPI 3.1, by hand: its routes are raw ASGI, which no
framework can describe.

`merge_into` adds it to the document of whoever shows it: the gateway's own, and the API's.
"""

from typing import Any

from millrace_core import limits, request_signing

Json = dict[str, Any]

_EVENT_EXAMPLE = {
    "eventType": {"provider": "custom", "name": "user-signup"},
    "properties": {"userId": "12345", "email": "user@example.com", "plan": "pro"},
    "timestamp": "2026-01-31T12:00:00Z",
    "uniqueKey": "signup-12345",
}
_CLOUDEVENT_EXAMPLE = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/shop/orders",
    "type": "order.shipped",
    "time": "2026-01-31T12:00:00Z",
    "data": {"order": 7},
}

SCHEMAS: Json = {
    "PublishEvent": {
        "type": "object",
        "required": ["eventType"],
        "properties": {
            "eventType": {
                "type": "object",
                "required": ["provider", "name"],
                "properties": {
                    "provider": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
                    "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$"},
                },
                "description": "Together the identifier `e:provider/name`. Custom events use the provider `custom`.",
            },
            "properties": {"type": "object", "description": "Kept byte for byte.", "default": {}},
            "timestamp": {
                "type": ["string", "null"],
                "description": "ISO 8601; UTC without a zone; from 1970 to 24 h ahead. Never used for order.",
            },
            "uniqueKey": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": limits.UNIQUE_KEY_CHARS_MAX,
                "description": "Events of one identifier with the same key count once in 24 h: it makes retries safe.",
            },
            "orderingKey": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": limits.ORDERING_KEY_CHARS_MAX,
                "description": "Events of one identifier keep their order; with this, only those of the same key do.",
            },
        },
    },
    "Published": {
        "type": "object",
        "required": ["success", "eventId", "identifier", "receivedAt"],
        "properties": {
            "success": {"const": True},
            "eventId": {"type": "string", "examples": ["evt_0190a5b4c3d27e8f9a0b1c2d3e4f5a6b"]},
            "identifier": {"type": "string", "examples": ["e:custom/user-signup"]},
            "receivedAt": {"type": "string", "format": "date-time"},
        },
    },
    "PublishedBatch": {
        "type": "object",
        "required": ["success", "accepted", "refused", "results"],
        "properties": {
            "success": {"const": True},
            "accepted": {"type": "integer"},
            "refused": {"type": "integer"},
            "results": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index"],
                    "properties": {
                        "index": {"type": "integer"},
                        "eventId": {"type": "string", "description": "The item is on the log."},
                        "message": {"type": "string", "description": "Why the item was refused, and what to do."},
                    },
                },
            },
        },
    },
    "FireEvent": {
        "type": "object",
        "required": ["event"],
        "properties": {
            "event": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$",
                "description": "Its name, such as `invoice.paid`: subscriptions hear it as `e:ops/invoice.paid`.",
            },
            "payload": {"type": ["object", "null"], "description": "Kept byte for byte.", "default": {}},
        },
    },
    "Fired": {
        "type": "object",
        "required": ["id", "event", "received_at"],
        "properties": {
            "id": {"type": "string", "examples": ["evt_0190a5b4c3d27e8f9a0b1c2d3e4f5a6b"]},
            "event": {"type": "string", "examples": ["invoice.paid"]},
            "received_at": {"type": "string", "format": "date-time"},
        },
    },
    "OpsError": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "request_id"],
                "properties": {
                    "code": {"type": "string", "examples": ["validation_failed"]},
                    "message": {"type": "string", "description": "What is wrong, where, and what to do."},
                    "details": {"type": "object"},
                    "request_id": {"type": "string"},
                },
            }
        },
    },
    "IngestError": {
        "type": "object",
        "required": ["message"],
        "properties": {
            "message": {"type": "string", "description": "What is wrong, where, and what to do."},
            "code": {"type": "string"},
            "requestId": {"type": "string"},
        },
    },
}

_HEADERS = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "The request's id, yours if you sent one."},
    "X-RateLimit-Limit": {"schema": {"type": "integer"}, "description": "Requests a minute (or a day) of the plan."},
    "X-RateLimit-Remaining": {"schema": {"type": "integer"}},
    "X-RateLimit-Reset": {"schema": {"type": "integer"}, "description": "Unix seconds at which it is full again."},
}
_POSITION = {
    "X-Millrace-Position": {"schema": {"type": "string"}, "description": "Send it back on a GET to wait for it."}
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
_PARAMETERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "maxLength": limits.UNIQUE_KEY_CHARS_MAX},
        "description": "Stands in for a missing `uniqueKey`, for this API key alone.",
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "schema": {"type": "string"},
        "description": "Yours, of up to 128 characters; a longer one is replaced.",
    },
]


def _error(description: str, headers: Json | None = None, *, of: str = "IngestError") -> Json:
    schema = {"$ref": f"#/components/schemas/{of}"}
    return {
        "description": description,
        "headers": _HEADERS | (headers or {}),
        "content": {"application/json": {"schema": schema}},
    }


def _errors(body_bytes_max: int) -> Json:
    return {
        "400": _error("The body cannot be read, or breaks a rule; the message says which and where."),
        "401": _error("No API key, or one that is unknown, revoked or expired."),
        "403": _error("The key lacks the scope `publish:events`, or the account is closed."),
        "408": _error("The body did not arrive in time: send it again, on a new connection."),
        "413": _error(f"Over {body_bytes_max} bytes, or too many items."),
        "415": _error("A Content-Type, charset or Content-Encoding that is not taken."),
        "429": _error("The account's rate is used up.", _RETRY_AFTER),
        "503": _error(
            "The log is away, too much is in flight, or the log did not confirm in time: then the event may still "
            "come, so repeat it with the same `uniqueKey`.",
            _RETRY_AFTER,
        ),
    }


def _answer(description: str, schema: str) -> Json:
    return {
        "description": description,
        "headers": _HEADERS | _POSITION,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


_FIRE_EXAMPLE = {"event": "order.shipped", "payload": {"customer_id": 421, "order_ref": "NB-9182", "carrier": "DHL"}}
_FIRE_ERRORS: Json = {
    "400": _error("The body cannot be read, or breaks a rule; the message says which and where.", of="OpsError"),
    "401": _error("No key or signature, or one that is not right.", of="OpsError"),
    "403": _error("The key lacks the scope `publish:events`, or the account is closed.", of="OpsError"),
    "408": _error("The body did not arrive in time: send it again, on a new connection.", of="OpsError"),
    "413": _error(f"Over {limits.BODY_BYTES_MAX} bytes.", of="OpsError"),
    "415": _error("A Content-Type, charset or Content-Encoding that is not taken.", of="OpsError"),
    "429": _error("The rate of this endpoint is used up.", _RETRY_AFTER, of="OpsError"),
    "503": _error(
        "The log is away, too much is in flight, or the log did not confirm in time: then the event may still come, so "
        "repeat it with the same `Idempotency-Key`.",
        _RETRY_AFTER,
        of="OpsError",
    ),
}
_OWN = {"$ref": "#/components/schemas/PublishEvent"}
PATHS: Json = {
    "/ingest/event/publish": {
        "post": {
            "tags": ["ingest"],
            "operationId": "publishEvent",
            "summary": "Publish an event",
            "description": "202 means that the event is on the log, acknowledged by every in-sync replica. Also takes "
            "CloudEvents 1.0: structured, batch (answered like a batch), and binary (`ce-*` headers).",
            "security": [{"ApiKey": []}, {"Signature": []}],
            "parameters": _PARAMETERS,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": _OWN, "example": _EVENT_EXAMPLE},
                    "application/cloudevents+json": {"schema": {"type": "object"}, "example": _CLOUDEVENT_EXAMPLE},
                },
            },
            "responses": {"202": _answer("On the log.", "Published")} | _errors(limits.BODY_BYTES_MAX),
        }
    },
    "/v1/events/fire": {
        "post": {
            "tags": ["Ops events"],
            "operationId": "fireEvent",
            "summary": "Fire an event",
            "description": "202 means that the event is on the log. It is of the provider `ops`. A signed request "
            "is taken once: its nonce again is 401. To try again sign again, with the same `Idempotency-Key`.",
            "security": [{"ApiKey": []}, {"Signature": []}],
            "parameters": [
                {
                    **_PARAMETERS[0],
                    "description": "The same key within 24 h is the same event, for this API key alone.",
                },
                _PARAMETERS[1],
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/FireEvent"},
                        "example": _FIRE_EXAMPLE,
                    }
                },
            },
            "responses": {"202": _answer("On the log.", "Fired"), **_FIRE_ERRORS},
        }
    },
    "/ingest/event/publish/batch": {
        "post": {
            "tags": ["ingest"],
            "operationId": "publishEvents",
            "summary": "Publish many events",
            "description": f"Up to {limits.BATCH_ITEMS_MAX} events, each accepted or refused on its own.",
            "security": [{"ApiKey": []}, {"Signature": []}],
            "parameters": _PARAMETERS,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"type": "array", "items": _OWN, "maxItems": limits.BATCH_ITEMS_MAX},
                        "example": [_EVENT_EXAMPLE],
                    },
                    "application/x-ndjson": {"schema": {"type": "string", "description": "One event a line."}},
                    "application/cloudevents-batch+json": {
                        "schema": {"type": "array", "items": {"type": "object"}},
                        "example": [_CLOUDEVENT_EXAMPLE],
                    },
                },
            },
            "responses": {"200": _answer("Each item's own result; what was accepted is on the log.", "PublishedBatch")}
            | _errors(limits.BATCH_BODY_BYTES_MAX),
        }
    },
}


def merge_into(document: Json) -> Json:
    """Add the ingest routes to an OpenAPI document, in place."""
    document.setdefault("paths", {}).update(PATHS)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(SCHEMAS)
    components.setdefault("securitySchemes", {}).setdefault("ApiKey", {"type": "http", "scheme": "bearer"})
    components["securitySchemes"].setdefault(
        "Signature", {"type": "apiKey", "in": "header", "name": request_signing.KEY}
    )
    return document
