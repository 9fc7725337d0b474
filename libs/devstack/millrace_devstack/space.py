"""Room on the disk, asked for before a server is started on it rather than found out in its log."""

import shutil
from pathlib import Path

from millrace_devstack.errors import StackError

FREE_BYTES_MIN = 256 * 1_048_576


def require_space(folder: Path, *, what: str, free_bytes_min: int = FREE_BYTES_MIN) -> None:
    """Raise StackError when the disk below `folder` (which exists) has less than that free."""
    free = shutil.disk_usage(folder).free
    if free < free_bytes_min:
        raise StackError(
            f"the disk of {folder} is full: {free >> 20} MiB free, {what} wants {free_bytes_min >> 20} MiB. "
            "Free some space, or run `make clean` to drop the development data."
        )
