"""`python -m millrace_projector` is the service; with `rebuild [--drop]` it makes the read models anew and ends, with
`verify-receipts` it makes the receipts' roots again, compares and ends."""

import sys

from millrace_projector.settings import ProjectorSettings
from millrace_projector.wiring import wire
from millrace_runtime import service

if __name__ == "__main__":
    if sys.argv[1:2] == ["rebuild"]:
        from millrace_projector.rebuilding import main

        sys.exit(main(sys.argv[2:]))
    if sys.argv[1:2] == ["verify-receipts"]:
        from millrace_projector.verifying import main

        sys.exit(main(sys.argv[2:]))
    service.main("projector", ProjectorSettings, wire)
