"""The four ways a piece of work can fail, and nothing else.

Exactly one function of each loop maps them: Retry → again later, Reject → dead letter, Stale → reload and
decide again, Fatal → the process ends and is started anew. The docstring is the message shown when none is given.
"""


class MillraceError(Exception):
    """Something in Millrace failed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else (self.__doc__ or "").strip()


class Retry(MillraceError):
    """The work could not be done now; the same work may succeed later."""


class Reject(MillraceError):
    """The input can never be handled; park it with its reason and go on."""


class Stale(MillraceError):
    """Someone else moved on; reload and decide again."""


class Fatal(MillraceError):
    """This process cannot go on; end it loudly and let it be started anew."""
