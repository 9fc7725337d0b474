"""The pages as HTML, made of texts. Pure.

Everything that comes from a form or from who fills it in is escaped, in texts and attributes. A page loads nothing and
runs nothing: its policy allows the one style sheet that stands in it, by its hash, and posting to where it came from.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Final

from starlette.responses import HTMLResponse

from millrace_core.form_data import NO, NONCE, TRAP, YES, Given
from millrace_core.forms import Field

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:38rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.6rem;line-height:1.25}
form>div,fieldset{margin:0 0 1.25rem;padding:0;border:0}
label,legend{display:block;font-weight:600;padding:0}
fieldset label{font-weight:400}
input,textarea,select{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #8893a5;
border-radius:4px;background:#fff;color:inherit}
input[type=checkbox]{width:auto;margin-right:.5rem}
textarea{min-height:8rem}
button{font:inherit;font-weight:600;padding:.6rem 1.4rem;border:0;border-radius:4px;background:#1d4f91;color:#fff}
:focus-visible{outline:3px solid #f0a500;outline-offset:1px}
small{display:block;color:#4a5568}
.wrong{color:#a61b1b;margin:.25rem 0}
.trap{position:absolute;left:-10000px;width:1px;height:1px;overflow:hidden}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
_TRAP: Final = (
    '<div class="trap" aria-hidden="true"><label>Leave this empty '
    f'<input name="{TRAP}" tabindex="-1" autocomplete="off"></label></div>'
)


def page(title: str, body: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """A whole page. `title` is a text, `body` is HTML."""
    written = _PAGE.format(title=escape(title), style=_STYLE, body=body)
    return HTMLResponse(written, status_code=status, headers={**(headers or {}), **_HEADERS})


def said(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def form(
    description: str | None,
    fields: Sequence[Field],
    *,
    action: str,
    nonce: str,
    given: Given = MappingProxyType({}),
    problems: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The form, which is sent once under its nonce. What was given is shown again, and each problem beside its field;
    those of no field stand above."""
    names = {field.name for field in fields}
    above = [f'<p class="wrong">{escape(text)}</p>' for name, text in problems.items() if name not in names]
    if problems:
        above.insert(0, '<p class="wrong" role="alert">Nothing was sent yet: see what is asked for below.</p>')
    rows = [_row(field, given.get(field.name, ()), problems.get(field.name)) for field in fields]
    return "\n".join(
        [
            said(description) if description else "",
            *above,
            f'<form method="post" action="{escape(action)}" accept-charset="utf-8">',
            *rows,
            # A browser that fills in again what stood here before would send a new answer under an old nonce.
            f'<input type="hidden" name="{NONCE}" value="{escape(nonce)}" autocomplete="off">',
            _TRAP,
            '<div><button type="submit">Send</button></div>',
            "</form>",
        ]
    )


def _row(field: Field, texts: Sequence[str], problem: str | None) -> str:
    id = f"field-{escape(field.name)}"
    label = escape(field.label or field.name) + ("" if field.required else " <small>optional</small>")
    notes = [] if field.description is None else [f'<small id="{id}-note">{escape(field.description)}</small>']
    if field.type == "datetime":
        notes.append("<small>In UTC.</small>")
    if problem is not None:
        notes.append(f'<p class="wrong" id="{id}-problem">This {escape(problem)}.</p>')
    below = "".join(notes)
    if field.type == "multiselect":
        return f'<fieldset id="{id}"><legend>{label}</legend>{_boxes(field, texts)}{below}</fieldset>'
    attributes = _attributes(field, id, problem)
    return f'<div><label for="{id}">{label}</label>{_CONTROLS[field.type](field, attributes, texts)}{below}</div>'


def _attributes(field: Field, id: str, problem: str | None) -> str:
    described = [f"{id}-note"] if field.description is not None else []
    described += [f"{id}-problem"] if problem is not None else []
    given = {
        "id": id,
        "name": escape(field.name),
        "required": "" if field.required else None,
        "aria-invalid": None if problem is None else "true",
        "aria-describedby": " ".join(described) or None,
        "minlength": field.min_length,
        "maxlength": field.max_length,
        "min": _number(field.min),
        "max": _number(field.max),
    }
    return " ".join(f'{name}="{value}"' for name, value in given.items() if value is not None)


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _input(kind: str, more: str = "") -> Callable[[Field, str, Sequence[str]], str]:
    def written(_: Field, attributes: str, texts: Sequence[str]) -> str:
        return f'<input type="{kind}" {attributes}{more} value="{escape(_first(texts))}">'

    return written


def _area(_: Field, attributes: str, texts: Sequence[str]) -> str:
    # The first line break after the tag is not part of the text.
    return f"<textarea {attributes}>\n{escape(_first(texts))}</textarea>"


def _choice(field: Field, attributes: str, texts: Sequence[str]) -> str:
    return _select(attributes, [(option, option) for option in field.options], texts)


def _yes_or_no(_: Field, attributes: str, texts: Sequence[str]) -> str:
    return _select(attributes, [(YES, "Yes"), (NO, "No")], texts)


def _select(attributes: str, options: Sequence[tuple[str, str]], texts: Sequence[str]) -> str:
    chosen = _first(texts)
    written = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(label)}</option>'
        for value, label in options
    )
    return f'<select {attributes}><option value=""></option>{written}</select>'


def _boxes(field: Field, texts: Sequence[str]) -> str:
    return "".join(
        f'<label><input type="checkbox" name="{escape(field.name)}" value="{escape(option)}"'
        f"{' checked' if option in texts else ''}>{escape(option)}</label>"
        for option in field.options
    )


def _first(texts: Sequence[str]) -> str:
    return texts[0] if texts else ""


_CONTROLS: Mapping[str, Callable[[Field, str, Sequence[str]], str]] = MappingProxyType(
    {
        "text": _input("text"),
        "textarea": _area,
        "email": _input("email", ' autocomplete="email"'),
        "phone": _input("tel", ' autocomplete="tel"'),
        "url": _input("url"),
        "number": _input("number", ' step="any"'),
        "integer": _input("number", ' step="1"'),
        "boolean": _yes_or_no,
        "date": _input("date"),
        "datetime": _input("datetime-local"),
        "select": _choice,
    }
)
