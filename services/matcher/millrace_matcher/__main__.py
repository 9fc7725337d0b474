"""`python -m millrace_matcher`: the matcher as a process."""

from millrace_matcher.settings import MatcherSettings
from millrace_matcher.wiring import wire
from millrace_runtime.service import main

if __name__ == "__main__":
    main("matcher", MatcherSettings, wire)
