"""What is read of a request, and what its client prefers."""

from __future__ import annotations

import random

import pytest

from django_wspbus.development.error_page.request import LONGEST_HEAD, Malformed, Request, parse

JQUERY = "application/json, text/javascript, */*; q=0.01"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "sent", "preferred"),
    [
        ("", "", "text"),
        ("*/*", "", "text"),
        ("image/png", "", "text"),
        (BROWSER, "", "html"),
        (BROWSER, "application/json", "html"),
        ("application/xhtml+xml", "", "html"),
        ("application/json, text/plain, */*", "", "json"),
        (JQUERY, "", "json"),
        ("application/vnd.api+json", "", "json"),
        ("text/html, application/json", "", "html"),
        ("application/json, text/html", "", "json"),
        ("text/html;q=0.5, application/json;charset=utf-8;q=0.9", "", "json"),
        ("text/html; q = 0.9, application/json;q=0.5", "", "html"),
        ("text/html;q=0, application/json;q=0.1", "", "json"),
        ("text/plain, application/json;q=0.5", "", "text"),
        ("text/html;q=high", "", "html"),
        ("*/*", "application/json; charset=utf-8", "json"),
        ("", "application/vnd.api+json", "json"),
        ("*/*", "text/html", "text"),
        (";;,,q=1,", "", "text"),
    ],
)
def test_a_client_gets_what_it_prefers(accept, sent, preferred):
    assert Request("GET", "/", {"accept": accept, "content-type": sent}).preferred() == preferred


def test_a_head_is_read_when_it_is_all_there():
    data = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: a\r\nACCEPT:b\r\nContent-Length: 3\r\n\r\nabc"
    end = len(data) - 3
    for length in range(end):
        assert parse(data[:length]) is None
    request, size = parse(data)
    assert (request.method, request.target, size) == ("POST", "/a?b=c", end)
    assert request.headers == {"host": "x", "accept": "a, b", "content-length": "3"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\0",
        b"GET /\r\n",
        b"hello\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET /" + b"a" * LONGEST_HEAD,
    ],
)
def test_what_is_no_request_is_malformed(data):
    with pytest.raises(Malformed):
        parse(data)


def test_bytes_of_any_kind_are_read_or_malformed():
    source = random.Random(1)
    pieces = [
        b"GET ",
        b"/ ",
        b"HTTP/1.1",
        b"\r\n",
        b"\n",
        b"Content-Length: ",
        b"12",
        b"\xff",
        b"\0",
        b":",
        b" ",
    ]
    malformed = 0
    for _ in range(3000):
        data = b"".join(source.choices(pieces, k=source.randrange(12)))
        try:
            parse(data)
        except Malformed:
            malformed += 1
    assert malformed


@pytest.mark.parametrize(
    ("headers", "body", "is_all"),
    [
        ({}, b"", True),
        ({"content-length": "3"}, b"ab", False),
        ({"content-length": "3"}, b"abc", True),
        ({"content-length": "3", "expect": "100-continue"}, b"", True),
        ({"transfer-encoding": "chunked"}, b"", False),
        ({"transfer-encoding": "chunked"}, b"1\r\na\r\n", False),
        ({"transfer-encoding": "chunked"}, b"1\r\na\r\n0\r\n\r\n", True),
        ({"transfer-encoding": "Chunked"}, b"0\r\n\r\n", True),
    ],
)
def test_a_body_is_read_to_its_end(headers, body, is_all):
    assert Request("POST", "/", headers).has_body(body) is is_all
