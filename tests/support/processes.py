"""Looking at processes from outside."""

from pathlib import Path


def has_ended(pid: int) -> bool:
    """Whether the process runs no more. A corpse that nobody has collected yet has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in {"Z", "X"}
