"""From what went wrong in a use case to the surface's error."""

from millrace_api.application import problems
from millrace_core.errors import Retry
from millrace_web.errors import ApiError, invalid, unavailable

RETRY_AFTER_S = 1


def to_api_error(problem: Exception) -> ApiError:
    """The one place where a native problem becomes a status and a code."""
    message = str(problem)
    match problem:
        case problems.NotFound():
            return ApiError(404, message)
        case problems.Invalid():
            wrong = [{"where": f"body.{where}", "problem": reason} for where, reason in problem.wrong]
            return invalid(f"{problem.where}: {message}", details={"errors": wrong})
        case problems.Forbidden():
            return ApiError(403, message)
        case problems.Conflict():
            return ApiError(409, message)
        case problems.KeyReused():
            return ApiError(409, message, code="IDEMPOTENCY_CONFLICT")
        case problems.NotYetInForce():
            return ApiError(
                503,
                message,
                code="NOT_YET_IN_FORCE",
                details={"ids": list(problem.ids)},
                headers={"retry-after": str(RETRY_AFTER_S)},
            )
        case problems.NotYetReadable():
            return unavailable(message, retry_after_s=RETRY_AFTER_S, code="NOT_YET_READABLE")
        case problems.Unavailable():
            return unavailable(message, retry_after_s=RETRY_AFTER_S)
        case Retry():
            # What a client library says may name hosts.
            return unavailable("Something behind the API is away. Try again shortly.", retry_after_s=RETRY_AFTER_S)
    raise problem
