"""`python -m millrace_dispatcher`: the dispatcher as a process."""

from millrace_dispatcher.settings import DispatcherSettings
from millrace_dispatcher.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("dispatcher", DispatcherSettings, wire)
