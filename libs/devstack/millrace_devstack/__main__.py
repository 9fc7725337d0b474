"""`python -m millrace_devstack dev` runs the platform; `stopped` fails while one runs; `fetch` fills the cache."""

import os
import signal
import sys

from millrace_devstack import cache, dev, launch, state
from millrace_devstack.errors import StackError
from millrace_devstack.options import Options

USAGE = "usage: python -m millrace_devstack dev [--with-parent] | stopped | fetch"


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        match arguments:
            case ["dev"]:
                return dev.main()
            case ["dev", "--with-parent"]:
                # Under make, which may be killed and would leave us behind.
                launch.bind_to(os.getppid(), signal.SIGTERM)
                return dev.main()
            case ["stopped"]:
                state.Home(Options.from_environment().home).require_stopped()
                return 0
            case ["fetch"]:
                print(f"{len(cache.ensure_jars())} jars are in {cache.cache_root()}")
                return 0
    except StackError as error:
        print(f"millrace: {error}", file=sys.stderr)
        return 1
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
