# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.client.address import parse_base_url
from airflow_provider_luma.exceptions import LumaConfigError


@pytest.mark.parametrize(
    ("given_as", "means"),
    [
        ("https://xuedingmao.online", "https://xuedingmao.online"),
        ("xuedingmao.online", "https://xuedingmao.online"),
        ("http://127.0.0.1:8321", "http://127.0.0.1:8321"),
        ("127.0.0.1:8321", "https://127.0.0.1:8321"),
        ("localhost:8321/relay", "https://localhost:8321/relay"),
        ("https://relay.test/", "https://relay.test"),
        ("https://relay.test/a/b///", "https://relay.test/a/b"),
        ("HTTPS://relay.test", "https://relay.test"),
        ("https://[::1]:8321/x", "https://[::1]:8321/x"),
        ("[::1]", "https://[::1]"),
        ("https://bücher.test/pfad", "https://bücher.test/pfad"),
    ],
)
def test_an_address_is_normalised(given_as: str, means: str) -> None:
    assert parse_base_url(given_as) == means
    assert parse_base_url(means) == means


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "empty"),
        ("   ", "blanks"),
        ("https://relay .test", "blanks"),
        ("https://relay.test/a b", "blanks"),
        ("https://relay.test\n", "blanks"),
        ("https:\\\\relay.test", "blanks"),
        ("https://relay\x00.test", "blanks"),
        ("https://relay\x7f.test", "blanks"),
        ("https://relay.test/\ud83d", "blanks"),
        ("ftp://relay.test", "scheme 'ftp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://:8321", "no host"),
        ("//relay.test", "no host"),
        ("https://relay.test:port", "not a valid URL"),
        ("https://relay.test:99999", "not a valid URL"),
        ("https://[::1", "not a valid URL"),
        ("https://::1", "not a valid URL|no host"),
        ("https://relay..test", "not a valid URL"),
        ("https://.relay.test", "not a valid URL"),
        (f"https://{'a' * 64}.test", "not a valid URL"),
        ("https://*.relay.test", "not a valid URL"),
        ("https://relay.test?x=1", "query"),
        ("https://relay.test/path?", "query"),
        ("https://relay.test#top", "fragment"),
        ("https://user:secret@relay.test", "credentials"),
        ("secret@relay.test", "credentials"),
        ("https://@relay.test", "credentials"),
    ],
)
def test_an_unusable_address_is_refused_with_its_problem_and_what_is_right(
    address: str, problem: str
) -> None:
    with pytest.raises(LumaConfigError, match=problem) as caught:
        parse_base_url(address)
    assert "base_url" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", [None, 5, b"https://relay.test", ["relay.test"]])
def test_an_address_that_is_no_text_is_refused(address: Any) -> None:
    with pytest.raises(LumaConfigError, match="base_url"):
        parse_base_url(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://user:secret@relay.test",
        "https://user:sec/secret@relay.test",
        "https://user:secret/ret@relay.test",
        "https://user:secret@relay.test:port",
        "https://user\n:secret@relay.test",
        "https://user: secret@relay.test",
        "https://user:secret℀@relay.test",
        "user:secret@relay.test",
        "ftp://user:secret@relay.test",
        "https:/user:secret@relay.test",
        "https://secret@relay@.test",
        "https://relay.test?key=secret",
        "https://relay.test/#secret",
        "https://user:secret\\@relay.test",
    ],
)
def test_what_may_be_a_secret_in_an_address_is_in_no_error(address: str) -> None:
    with pytest.raises(LumaConfigError) as caught:
        parse_base_url(address)
    shown = repr(caught.value) + repr(caught.value.__cause__)
    assert "secret" not in shown
    assert "***" in shown


@given(st.text() | st.from_regex(r"https?://[\[\]:@?#./a-z0-9-]*", fullmatch=True))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_base_url(text)
    except LumaConfigError:
        return
    assert address.startswith(("https://", "http://"))
    assert parse_base_url(address) == address
