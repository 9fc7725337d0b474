"""Where a message ends, whatever pieces it comes in."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace_devstack import http1


def _taken(body: http1.Body, pieces: list[bytes]) -> int:
    taken = 0
    for piece in pieces:
        if body.done:
            break
        step = body.take(piece)
        taken += step
        if step < len(piece):
            break
    return taken


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(points)]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    trailers=st.lists(st.just(b"x-sum: 1\r\n"), max_size=2),
    following=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_a_chunked_body_ends_where_it_ends(
    chunks: list[bytes], trailers: list[bytes], following: bytes, cuts: list[int]
) -> None:
    whole = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    whole += b"0\r\n" + b"".join(trailers) + b"\r\n"
    body = http1.Chunked()
    assert _taken(body, _cut(whole + following, cuts)) == len(whole)
    assert body.done


@given(content=st.binary(max_size=60), following=st.binary(max_size=20), cuts=st.lists(st.integers(0, 90), max_size=8))
def test_a_sized_body_ends_where_it_ends(content: bytes, following: bytes, cuts: list[int]) -> None:
    body = http1.Sized(len(content))
    assert _taken(body, _cut(content + following, cuts)) == len(content)
    assert body.done


@pytest.mark.parametrize(
    ("head", "method", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4", b"GET", http1.Sized),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", b"GET", http1.Chunked),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4", b"HEAD", http1.Sized),
        (b"HTTP/1.1 204 No Content", b"GET", http1.Sized),
        (b"HTTP/1.1 200 OK", b"GET", http1.UntilClose),
        (b"HTTP/1.1 101 Switching Protocols", b"GET", http1.UntilClose),
    ],
)
def test_how_a_response_is_framed(head: bytes, method: bytes, kind: type[http1.Body]) -> None:
    body = http1.response_body(http1.parse_head(head), method=method)
    assert type(body) is kind
    assert body.done == (method == b"HEAD" or b"204" in head)


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense",
        b"POST / HTTP/1.1\r\nno colon here",
        b"POST / HTTP/1.1\r\ncontent-length: -1",
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked",
    ],
)
def test_what_is_not_http_is_refused(head: bytes) -> None:
    with pytest.raises(http1.MalformedError):
        http1.parse_head(head)


def test_a_chunk_without_a_size_is_refused() -> None:
    with pytest.raises(http1.MalformedError):
        http1.Chunked().take(b"zz\r\n")
