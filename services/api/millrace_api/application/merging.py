"""A PATCH: the members named in it over what is there."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

W = TypeVar("W")


def merged(kind: type[W], current: object, named: Mapping[str, Any]) -> W:
    """A `kind` (a dataclass) with the members of `named`, the others as `current` has them."""
    kept = {field.name: getattr(current, field.name) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**(kept | dict(named)))
