"""JSON Schema 2020-12 for what a caller hands over: checked where it is saved, bounded in what it may cost.

Nothing is ever fetched: a `$ref` may point into the schema itself and nowhere else. Patterns run in linear time. A
refusal names the member and the rule and repeats no value.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.event import check_depth

_PROBLEMS_SHOWN_MAX = 20
_MASK = "the value"


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises Reject with what is wrong with a schema: too large, too deep, no schema, or one that points outside."""
    compiled(_bytes(schema))


def problems(schema: Mapping[str, Any], value: Any) -> tuple[tuple[str, str], ...]:
    """What is wrong with the value: (member, problem), the first 20. None = it is right. The schema was checked."""
    found: list[tuple[str, str]] = []
    for error in compiled(_bytes(schema)).iter_errors(value):
        if len(found) == _PROBLEMS_SHOWN_MAX:
            break
        found.append((".".join(str(part) for part in error.instance_path), str(error.message)))
    return tuple(found)


@lru_cache(maxsize=limits.SCHEMAS_KEPT_MAX)
def compiled(schema: bytes) -> jsonschema_rs.Validator:
    """The validator of a schema, made once. Raises Reject."""
    if len(schema) > limits.SCHEMA_BYTES_MAX:
        raise Reject(f"the schema has {len(schema)} bytes: at most {limits.SCHEMA_BYTES_MAX}")
    loaded = orjson.loads(schema)
    check_depth(loaded)
    _check_references(loaded)
    try:
        return jsonschema_rs.Draft202012Validator(
            loaded,
            validate_formats=True,
            mask=_MASK,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=limits.SCHEMA_PATTERN_BYTES_MAX),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        said = str(getattr(error, "message", error)).split("\n", 1)[0]
        raise Reject(f"not a JSON Schema (2020-12): {said}") from None


def _check_references(value: Any) -> None:
    """A reference leads into the schema itself."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("$ref", "$dynamicRef") and not (isinstance(inner, str) and inner.startswith("#")):
                raise Reject("a $ref points into the schema itself and begins with '#': nothing is fetched")
            if name == "$id" and isinstance(inner, str):
                raise Reject("$id is not taken: a schema here has no address")
            _check_references(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_references(inner)


def _bytes(schema: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise Reject(f"the schema is not JSON: {error}") from None
