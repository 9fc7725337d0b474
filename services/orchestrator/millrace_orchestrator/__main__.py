"""`python -m millrace_orchestrator`: the orchestrator as a process."""

from millrace_orchestrator.settings import OrchestratorSettings
from millrace_orchestrator.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("orchestrator", OrchestratorSettings, wire)
