"""`python -m millrace_scheduler`: the scheduler as a process."""

from millrace_runtime.service import main
from millrace_scheduler.settings import SchedulerSettings
from millrace_scheduler.wiring import wire

if __name__ == "__main__":
    main("scheduler", SchedulerSettings, wire)
