"""`python -m millrace_executor`: the executor as a process."""

from millrace_executor.settings import ExecutorSettings
from millrace_executor.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("executor", ExecutorSettings, wire)
