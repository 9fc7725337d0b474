"""Node type `transform`: data from data, by an expression or a template. Does nothing outside."""

import msgspec

from millrace_core import expressions
from millrace_core.errors import Reject
from millrace_core.plans import TransformConfig
from millrace_executor.nodes.templates import template_of
from millrace_executor.ports import Attempt, Done, Tools

_decode_config = msgspec.json.Decoder(TransformConfig).decode


async def run(attempt: Attempt, tools: Tools) -> Done:
    """Work the expression out."""
    config = _decode_config(attempt.step.config)
    if config.expression is not None:
        value = expressions.compiled(config.expression).value(attempt.scope)
    elif config.value is not msgspec.UNSET:
        value = expressions.render(template_of(config.value), attempt.scope)
    else:
        raise Reject("a transform has one of `expression` and `value`")
    return Done(msgspec.json.encode(value))
