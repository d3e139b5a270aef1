# SPDX-License-Identifier: Apache-2.0
"""
Cut damaged JSON into its parts, so that one broken record doesn't take the others with it.

Only used after the ordinary decoder has refused an answer. The scan looks at strings and brackets
alone and keeps no stack, so nesting of any depth, bad numbers and bad UTF-8 inside a part stay there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# A string that breaks off is one token up to the end: it must not be tried again from each of its quotes.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]|,', re.DOTALL)


def array_elements(document: bytes) -> Iterator[bytes]:
    """
    Yield the top-level elements of the array that *document* begins with.

    What stands behind the array is ignored. An array that breaks off yields the whole elements before
    the break and then the broken one.
    """
    return _parts(document)


def object_members(document: bytes) -> dict[bytes, bytes]:
    """
    Return the top-level members of the object that *document* begins with, values undecoded.

    :raises ValueError: when a member has no name.
    """
    members = {}
    for part in _parts(document):
        name = _TOKEN.match(part)
        if name is None or not part.startswith(b'"'):
            raise ValueError("a member of the object has no name")
        members[name.group()[1:-1]] = part[name.end() :].lstrip().removeprefix(b":").strip()
    return members


def first_document(text: bytes) -> bytes:
    """Return the array or object that *text* begins with, without what is glued behind it."""
    for depth, token in _tokens(text):
        if depth == 0:
            return text[: token.end()]
    return text


def _tokens(document: bytes) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Yield each token with the depth behind it."""
    depth = 0
    for token in _TOKEN.finditer(document):
        match token.group():
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
        yield depth, token


def _parts(document: bytes) -> Iterator[bytes]:
    start = 1
    for depth, token in _tokens(document):
        if depth == 0 or (depth == 1 and token.group() == b","):
            if part := document[start : token.start()].strip():
                yield part
            start = token.end()
        if depth == 0:
            return
    if part := document[start:].strip():
        yield part
