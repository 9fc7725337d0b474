"""Whether the process lives and whether it gets its work done.

Live = its event loop turns. Ready = progress: every part that was added says that its own work moves (a consumer has
its partitions and reads, a view is fresh, a producer reaches the broker). Parts are asked when someone asks, so
`ready` must be cheap and must not block.
"""

from collections.abc import Callable

Ready = Callable[[], str | None]
"""None = ready; else the reason why not, for a human."""

STARTING = "starting"
DRAINING = "draining"


class Health:
    """The parts of one process. Not ready before `started`, nor once it drains."""

    def __init__(self) -> None:
        self._parts: dict[str, Ready] = {}
        self._phase: str | None = STARTING

    def add(self, name: str, ready: Ready) -> None:
        """Add a part. The same name again replaces it."""
        self._parts[name] = ready

    def started(self) -> None:
        """All parts have been added and run."""
        if self._phase == STARTING:
            self._phase = None

    def draining(self) -> None:
        """From now on not ready, whatever the parts say."""
        self._phase = DRAINING

    def reasons(self) -> dict[str, str]:
        """Why the process is not ready, by part; empty = ready. A part that raises is not ready."""
        reasons = {"service": self._phase} if self._phase else {}
        for name, ready in self._parts.items():
            try:
                reason = ready()
            except Exception as error:  # the answer to "are you well" is never a crash
                reason = f"{type(error).__name__}: {error}"
            if reason is not None:
                reasons[name] = reason
        return reasons
