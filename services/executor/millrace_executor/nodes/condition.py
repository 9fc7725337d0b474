"""Node type `condition`: works out which branch the run takes. Its output is `{"branch": "…"}`.

The expression comes to true, false or a text; the edges behind the node name the branches. Not here: which nodes follow
(`millrace_core.runs` decides by the branch's name alone, so that no expression is worked out where runs are decided).
"""

from typing import Any

import msgspec

from millrace_core import expressions, limits
from millrace_core.errors import Reject
from millrace_core.plans import ConditionConfig
from millrace_executor.ports import Attempt, Done, Tools

_decode_config = msgspec.json.Decoder(ConditionConfig).decode


async def run(attempt: Attempt, tools: Tools) -> Done:
    """Work the expression out."""
    config = _decode_config(attempt.step.config)
    value = expressions.compiled(config.expression).value(attempt.scope)
    return Done(msgspec.json.encode({"branch": _branch(value)}))


def _branch(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise Reject(
            f"a condition comes to true, false or a text, not {type(value).__name__}: compare it with something"
        )
    if len(value) > limits.BRANCH_CHARS_MAX:
        raise Reject(f"a branch has at most {limits.BRANCH_CHARS_MAX} characters")
    return value
