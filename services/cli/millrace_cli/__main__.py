"""`millrace`: the command line. Commands live in `commands/`, each importing what it needs when it runs.

What goes wrong is one line on standard error and exit code 1; a wrong call is exit code 2.
"""

import sys

import typer

from millrace_cli.commands import development, looking, operations, services
from millrace_core.errors import MillraceError

app = typer.Typer(
    name="millrace",
    help="Events come in, work gets done: run Millrace, look into it, keep it in order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (development, looking, operations, services):
    part.add_to(app)


def main() -> None:
    """The entry point of the `millrace` script."""
    try:
        app()
    except MillraceError as error:
        sys.stderr.write(f"millrace: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
