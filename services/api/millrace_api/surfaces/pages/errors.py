"""What went wrong, as a page for people."""

from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from types import MappingProxyType

from starlette.responses import Response

from millrace_api.surfaces.pages import html
from millrace_web.envelopes import AUTOMATION, Envelope
from millrace_web.errors import ApiError

_TITLES: Mapping[int, str] = MappingProxyType(
    {
        404: "There is no such form",
        409: "This form takes nothing now",
        413: "This is too much",
        429: "Too often",
        503: "Not right now",
    }
)
_TEXTS: Mapping[int, str] = MappingProxyType({404: "It may have been taken back, or its address is incomplete."})


def error_page(error: ApiError, request_id: str) -> Response:
    """The whole answer."""
    title = _TITLES.get(error.status) or HTTPStatus(error.status).phrase
    body = html.said(_TEXTS.get(error.status, error.message))
    if error.status >= 500:
        body += f"<p><small>Request {escape(request_id)}</small></p>"
    return html.page(title, body, status=error.status, headers=error.headers)


PAGES = Envelope("pages", AUTOMATION.error, AUTOMATION.success, page=error_page)
