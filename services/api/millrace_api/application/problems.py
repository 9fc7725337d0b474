"""Why a use case could not do what was asked, in words for the caller. Surfaces turn them into statuses and codes.

A message never holds a secret, nor anything that another account owns. Not here: HTTP.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from millrace_core.errors import MillraceError, Reject


class Problem(MillraceError):
    """The request could not be done."""


class NotFound(Problem):
    """There is no such thing in this account."""

    def __init__(self, what: str, id: str) -> None:
        super().__init__(f"There is no {what} {id!r}.")
        self.what = what
        self.id = id


class NoSuchId(NotFound):
    """Nothing can have this id: it is none, or of another kind. Nobody need wait for it."""


class Invalid(Problem):
    """The request can be read, but not accepted. `where` names the member, as `filter` or `steps.0.config`; `wrong` has
    several members, each with its problem."""

    def __init__(self, message: str, *, where: str, wrong: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.where = where
        self.wrong = tuple(wrong) or ((where, message),)


class Forbidden(Problem):
    """The key may not do this."""


class Conflict(Problem):
    """The thing is in a state, or in a use, that forbids it."""


class BeingChanged(Conflict):
    """A change of it is on its way: soon it can be used again."""


class KeyReused(Problem):
    """This Idempotency-Key stood for another request within the last 24 hours: use a new key for a new request."""


class NotYetInForce(Problem):
    """The change was made, but is not known to be in force."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        super().__init__(
            "The change was made and stands, but it is not yet known to be in force everywhere. Do not repeat it: "
            "read it back until it is there."
        )
        self.ids = ids


class NotYetReadable(Problem):
    """The read models have not come as far as X-Millrace-Position asks. Try again shortly."""


class Unavailable(Problem):
    """Something behind the API is away. Try again shortly."""


@contextmanager
def at(where: str) -> Iterator[None]:
    """What core refuses inside is refused for this member of the request."""
    try:
        yield
    except Reject as error:
        raise Invalid(str(error), where=where) from None
