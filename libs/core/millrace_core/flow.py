"""What the flow of a subscription, or of an account, may ask for: checked when it is saved, read by those who keep it.

Every refusal is a Reject that names the member. Not here: who keeps it (the orchestrator's `admissions`), and the key
and priority of an event (the matcher).
"""

from millrace_core import expressions, filters, identifiers, limits
from millrace_core.errors import Reject
from millrace_core.messages import Batch, CancelOn, Concurrency, Debounce, FlowControl, Throttle

AT_ONCE = FlowControl()
"""No flow to keep: of a subscription that had one."""


def check_flow(flow: FlowControl) -> None:
    """Raises Reject with what cannot be asked for, or not together."""
    for name, expression in (("key", flow.key), ("priority", flow.priority)):
        if expression is not None:
            _compiles(expression, name)
    if flow.concurrency is not None:
        _check_concurrency(flow.concurrency)
    if flow.throttle is not None:
        _check_throttle(flow.throttle)
    if flow.debounce is not None and flow.batch is not None:
        raise Reject('debounce and batch cannot be had together: a debounce whose mode is "all" makes a list too')
    if flow.debounce is not None:
        _check_debounce(flow.debounce)
    if flow.batch is not None:
        _check_batch(flow.batch)
    if flow.cancel_on is not None:
        _check_cancel_on(flow.cancel_on)


def check_account_flow(flow: FlowControl) -> None:
    """The same for a flow over all subscriptions of an account. Their runs execute different plans, so none can stand
    for another."""
    check_flow(flow)
    for name, wanted in (("debounce", flow.debounce), ("batch", flow.batch)):
        if wanted is not None:
            raise Reject(
                f"{name} makes one run of several, which only those of one subscription can be: ask for it there"
            )


def makes_lists(flow: FlowControl) -> bool:
    """Whether inputs of several events may become one run's."""
    return flow.batch is not None or (flow.debounce is not None and flow.debounce.mode == "all")


def _check_concurrency(wanted: Concurrency) -> None:
    for name, number in (("ceiling", wanted.ceiling), ("total", wanted.total)):
        if number is not None and not 1 <= number <= limits.FLOW_CONCURRENCY_MAX:
            raise Reject(f"concurrency.{name} must be 1 to {limits.FLOW_CONCURRENCY_MAX}")
    if wanted.ceiling is None and wanted.total is None:
        raise Reject("concurrency needs a ceiling (of each key), a total (of all), or both")
    if wanted.floor < 0:
        raise Reject("concurrency.floor must not be negative")
    if wanted.floor and wanted.total is None:
        raise Reject("concurrency.floor says which keys go first when the total is reached: name a total")
    most = min(number for number in (wanted.ceiling, wanted.total) if number is not None)
    if wanted.floor > most:
        raise Reject(f"concurrency.floor must not be above ceiling or total, here {most}")


def _check_throttle(wanted: Throttle) -> None:
    if not 1 <= wanted.limit <= limits.FLOW_THROTTLE_LIMIT_MAX:
        raise Reject(f"throttle.limit must be 1 to {limits.FLOW_THROTTLE_LIMIT_MAX}")
    _check_seconds("throttle.period_s", wanted.period_s, limits.FLOW_PERIOD_S_MAX)


def _check_debounce(wanted: Debounce) -> None:
    _check_seconds("debounce.quiet_s", wanted.quiet_s, limits.FLOW_WAIT_S_MAX)
    _check_seconds("debounce.longest_s", wanted.longest_s, limits.FLOW_WAIT_S_MAX)
    if wanted.longest_s < wanted.quiet_s:
        raise Reject("debounce.longest_s must not be below quiet_s")


def _check_batch(wanted: Batch) -> None:
    if not 2 <= wanted.size <= limits.FLOW_BATCH_ITEMS_MAX:
        raise Reject(f"batch.size must be 2 to {limits.FLOW_BATCH_ITEMS_MAX}")
    _check_seconds("batch.wait_s", wanted.wait_s, limits.FLOW_WAIT_S_MAX)


def _check_cancel_on(wanted: CancelOn) -> None:
    for name, expression in (("where", wanted.where), ("key", wanted.key)):
        if expression is not None:
            _compiles(expression, f"cancel_on.{name}")
    try:
        identifiers.parse_pattern(wanted.pattern)
        if bytes(wanted.filter) != b"null":
            filters.parse_filter(bytes(wanted.filter))
    except Reject as reason:
        raise Reject(f"cancel_on: {reason}") from None


def _check_seconds(name: str, seconds: float, most: float) -> None:
    if not 0.001 <= seconds <= most:
        raise Reject(f"{name} must be 0.001 to {most:g} seconds")


def _compiles(expression: str, name: str) -> None:
    try:
        expressions.compiled(expression)
    except Reject as reason:
        raise Reject(f"{name}: {reason}") from None
