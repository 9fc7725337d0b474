"""A member of a node's config as the template it is."""

from typing import Any

import msgspec
import orjson


def template_of(member: Any) -> Any:
    """The JSON value of a config's member. (msgspec leaves a `Raw` member raw only where its type is nothing else.)"""
    return orjson.loads(bytes(member)) if isinstance(member, msgspec.Raw) else member
