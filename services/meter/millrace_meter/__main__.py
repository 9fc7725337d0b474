"""`python -m millrace_meter`: the meter as a process."""

from millrace_meter.settings import MeterSettings
from millrace_meter.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("meter", MeterSettings, wire)
