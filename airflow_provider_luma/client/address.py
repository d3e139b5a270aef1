# SPDX-License-Identifier: Apache-2.0
"""The address of a relay and the key to it, checked; this module stays cheap to import."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from airflow_provider_luma.exceptions import LumaConfigError

_RIGHT = "give an address such as 'https://xuedingmao.online' or 'http://127.0.0.1:8321/prefix'"


def parse_base_url(base_url: str) -> str:
    """
    Check and normalise the address of a relay.

    No scheme means https; a path prefix is kept; a trailing slash is dropped.

    :param base_url: For example ``https://xuedingmao.online`` or ``http://127.0.0.1:8321/prefix``.
    :raises LumaConfigError: for blanks, credentials, a query, a fragment, a bad host or port, another scheme.
    """
    if not isinstance(base_url, str):
        raise LumaConfigError(f"base_url is a {type(base_url).__name__}: {_RIGHT}.")
    text = base_url if "://" in base_url else f"https://{base_url}"
    # A rejected address may hold a password or a key, so what stands where they do is not shown.
    shown = re.sub(r"([?#]).*", r"\1***", re.sub(r"//.*@", "//***@", text, flags=re.DOTALL), flags=re.DOTALL)
    if not base_url or re.search(r"[\s\\\x00-\x1f\x7f\ud800-\udfff]", base_url):
        raise LumaConfigError(
            f"base_url {shown!r} is empty or holds blanks, backslashes or control characters: {_RIGHT}."
        )
    if "@" in text:
        raise LumaConfigError(
            f"base_url {shown!r} holds credentials: the API key belongs in the connection's password field."
        )
    if "?" in text or "#" in text:
        raise LumaConfigError(f"base_url {shown!r} holds a query or a fragment: {_RIGHT}.")
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
        # Refuses empty and overlong labels, at which name resolution would stumble.
        host.encode("idna")
    except ValueError as error:
        raise LumaConfigError(f"base_url {shown!r} is not an address ({error}): {_RIGHT}.") from None
    if parts.scheme not in ("http", "https"):
        raise LumaConfigError(f"base_url {shown!r} has the scheme {parts.scheme!r}: use http or https.")
    if not host:
        raise LumaConfigError(f"base_url {shown!r} has no host: {_RIGHT}.")
    if "*" in host:
        raise LumaConfigError(f"base_url {shown!r} is not an address (a wildcard): {_RIGHT}.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def checked_key(api_key: str) -> str:
    """
    Return the key, if it can be sent in a header.

    :raises LumaConfigError: if it can't; the message doesn't show it.
    """
    if not isinstance(api_key, str) or not re.fullmatch(r"[\x21-\x7e]+", api_key):
        raise LumaConfigError(
            "The API key is empty or holds blanks, line breaks or non-ASCII characters: put the key, and "
            "only the key, into the connection's password field."
        )
    return api_key
