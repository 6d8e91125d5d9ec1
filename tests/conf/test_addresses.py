"""The forms of BIND."""

from __future__ import annotations

import pytest

from django_wspbus.conf.addresses import Address, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("inet", "127.0.0.1", 8000)),
        ("127.0.0.1:0", Address("inet", "127.0.0.1", 0)),
        ("Shop.example.:80", Address("inet", "shop.example.", 80)),
        (":8000", Address("inet", "0.0.0.0", 8000)),
        ("0:8000", Address("inet", "0.0.0.0", 8000)),
        ("*:8000", Address("inet", "0.0.0.0", 8000)),
        ("[::1]:8000", Address("inet6", "::1", 8000)),
        ("[0::0]:65535", Address("inet6", "::", 65535)),
        ("unix:/run/site.sock", Address("unix", path="/run/site.sock")),
        ("unix:///run/site.sock", Address("unix", path="/run/site.sock")),
        ("systemd", Address("systemd")),
        ("systemd:web", Address("systemd", name="web")),
    ],
)
def test_every_form_is_parsed_and_its_text_parses_to_the_same(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an address"),
        ("8000", "not an address"),
        ("127.0.0.1", "not an address"),
        ("::1:8000", "not an address"),
        ("a b:8000", "not an address"),
        ("http://shop:80", "not an address"),
        ("127.0.0.1:", "no port number"),
        ("127.0.0.1:http", "no port number"),
        ("127.0.0.1:-1", "no port number"),
        ("127.0.0.1:\u0663", "no port number"),
        ("127.0.0.1:65536", "out of range"),
        ("127.0.0.256:80", "no IPv4 address"),
        ("-shop:80", "no host name"),
        ("[shop]:80", "no IPv6 address"),
        ("[]:80", "no IPv6 address"),
        ("systemd:", "lacks the name"),
        ("unix:", "lacks an absolute path"),
        ("unix:site.sock", "lacks an absolute path"),
        ("unix:/" + "x" * 107, "107 bytes"),
    ],
)
def test_an_invalid_address_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", ":80", True),
        ("[::]:80", "[::1]:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "[::1]:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("systemd:a", "systemd:a", True),
        ("systemd:a", "systemd", False),
    ],
)
def test_two_addresses_clash_if_only_one_can_be_bound(one: str, other: str, clash: bool) -> None:
    assert parse(one).clashes_with(parse(other)) is clash
    assert parse(other).clashes_with(parse(one)) is clash
