# SPDX-License-Identifier: Apache-2.0
"""Check the base URL of a relay and its API key; this module stays cheap to import."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.validation import shown

_EXAMPLES = "Use a URL such as 'https://xuedingmao.online' or 'http://127.0.0.1:8321/prefix'"


def parse_base_url(base_url: str) -> str:
    """
    Check and normalise the base URL of a relay.

    Without a scheme it is https; a path prefix is kept; a trailing slash is dropped.

    :param base_url: For example ``https://xuedingmao.online`` or ``http://127.0.0.1:8321/prefix``.
    :raises LumaConfigError: for blanks, credentials, a query, a fragment, a bad host or port, another scheme.
    """
    if not isinstance(base_url, str):
        raise LumaConfigError(f"base_url must be a text; got {shown(base_url)}. {_EXAMPLES}.")
    text = base_url if "://" in base_url else f"https://{base_url}"
    # A rejected URL may hold a password or a key, so the parts that could be one are masked.
    masked = re.sub(r"([?#]).*", r"\1***", re.sub(r"//.*@", "//***@", text, flags=re.DOTALL), flags=re.DOTALL)
    if not base_url or re.search(r"[\s\\\x00-\x1f\x7f\ud800-\udfff]", base_url):
        raise LumaConfigError(
            f"base_url {masked!r} is empty or has blanks, backslashes or control characters. {_EXAMPLES}."
        )
    if "@" in text:
        raise LumaConfigError(
            f"base_url {masked!r} has credentials. Put the API key into the connection's password field."
        )
    if "?" in text or "#" in text:
        raise LumaConfigError(f"base_url {masked!r} has a query or a fragment. {_EXAMPLES}.")
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
        # Empty and overlong labels would raise UnicodeError during name resolution.
        host.encode("idna")
    except ValueError as error:
        raise LumaConfigError(f"base_url {masked!r} is not a valid URL ({error}). {_EXAMPLES}.") from None
    if parts.scheme not in ("http", "https"):
        raise LumaConfigError(f"base_url {masked!r} has the scheme {parts.scheme!r}. Use http or https.")
    if not host:
        raise LumaConfigError(f"base_url {masked!r} has no host. {_EXAMPLES}.")
    if "*" in host:
        raise LumaConfigError(f"base_url {masked!r} is not a valid URL (a wildcard). {_EXAMPLES}.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def checked_key(api_key: str) -> str:
    """
    Return the API key, if it can be sent in a header.

    :raises LumaConfigError: if it can't; the message doesn't show it.
    """
    if not isinstance(api_key, str) or not re.fullmatch(r"[\x21-\x7e]+", api_key):
        raise LumaConfigError(
            "The API key is empty or has blanks, line breaks or non-ASCII characters. Put the key, and only "
            "the key, into the connection's password field."
        )
    return api_key
