# SPDX-License-Identifier: Apache-2.0
"""
Read damaged JSON as far as it is legible, so that one broken record doesn't take the others with it.

Only used after the ordinary decoder has refused an answer. The scan looks at strings and brackets
alone and keeps no stack, so nesting of any depth, bad numbers and bad UTF-8 inside a part stay there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

# A string that breaks off is one token up to the end: it must not be tried again from each of its quotes.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]|,', re.DOTALL)
_SEAM: Final = re.compile(rb"\}\s*+,\s*+(?=\{)")
_GAP: Final = re.compile(rb"[\s,]*+")
_COLON: Final = re.compile(rb"\s*+:?\s*+")
_CLOSING: Final = re.compile(rb"[\s,]*+[\]}]")

_MAX_DIGITS: Final = 20
_MAX_LEVELS: Final = 8
_MAX_PARTS: Final = 1000

ILLEGIBLE: Final = object()
"""Stands for a value that can't be read."""

_is_whole: Final = msgspec.json.Decoder(msgspec.Raw).decode


def array_elements(document: bytes) -> Iterator[bytes]:
    """
    Yield the top-level elements of the array that *document* begins with.

    What stands behind the array is ignored. An array that breaks off yields the whole elements before
    the break and then the broken one.
    """
    for start, end in _elements(document):
        if end > start:
            yield document[start:end]


def object_members(document: bytes) -> dict[bytes, bytes]:
    """
    Return the top-level members of the object that *document* begins with, values undecoded.

    What has no name is left out.
    """
    members: dict[bytes, bytes] = {}
    start, closed = _after(_GAP, document, 1), False
    while not closed and start < len(document):
        name = _TOKEN.match(document, start)
        if name is None or not name.group().startswith(b'"'):
            end, closed = _part_end(document, start)
        else:
            value = _after(_COLON, document, name.end())
            # An array may be the whole answer, and its elements are found faster than its tokens.
            behind = _array_end(document, value) if document.startswith(b"[", value) else value
            end, closed = _part_end(document, behind)
            members[name.group()[1:-1]] = document[value:end].strip()
        start = _after(_GAP, document, end)
    return members


def first_document(text: bytes) -> bytes:
    """Return the array or object that *text* begins with, without what is glued behind it."""
    for depth, token in _tokens(text, 0):
        if depth == 0:
            return text[: token.end()]
    return text


def loose_json(document: bytes, *, levels: int = _MAX_LEVELS) -> object:
    """
    Decode JSON and what comes close to it; what can't be read is :data:`ILLEGIBLE` and hurts nothing else.

    ``NaN`` and ``Infinity`` are null. Halves of surrogate pairs and invalid UTF-8 stay in the texts as
    surrogates. Numbers of hundreds of digits are illegible.

    :param document: One value.
    :param levels: How many levels deep to look for what is legible in broken JSON.
    """
    try:
        value: object = _LOOSE.decode(document.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        pass
    else:
        return value
    if levels and document.startswith(b"{"):
        return {
            name.decode("utf-8", "replace"): loose_json(value, levels=levels - 1)
            for name, value in islice(object_members(document).items(), _MAX_PARTS)
        }
    if levels and document.startswith(b"["):
        return [
            loose_json(element, levels=levels - 1)
            for element in islice(array_elements(document), _MAX_PARTS)
        ]
    return ILLEGIBLE


def _integer(digits: str) -> object:
    return int(digits) if len(digits) <= _MAX_DIGITS else ILLEGIBLE


_LOOSE: Final = json.JSONDecoder(strict=False, parse_int=_integer, parse_constant=lambda _: None)


def _tokens(document: bytes, start: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Yield each token with the depth behind it."""
    depth = 0
    for token in _TOKEN.finditer(document, start):
        match token.group():
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
        yield depth, token


def _part_end(document: bytes, start: int) -> tuple[int, bool]:
    """Find where the part at *start* ends, and whether what it is a part of is closed there."""
    for depth, token in _tokens(document, start):
        if depth < 0:
            return token.start(), True
        if depth == 0 and token.group() == b",":
            return token.start(), False
    return len(document), True


def _after(gap: re.Pattern[bytes], document: bytes, start: int) -> int:
    found = gap.match(document, start)
    return start if found is None else found.end()


def _array_end(document: bytes, start: int) -> int:
    """Find where the array at *start* ends."""
    end = start + 1
    for _, end in _elements(document, start):
        pass
    found = _CLOSING.match(document, end)
    return len(document) if found is None else found.end()


def _elements(document: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """
    Yield where each element of the array at *start* begins and ends.

    An object that another one follows ends, as a rule, where ``}, {`` stands next. If what is before it is
    valid JSON then that is certain, and no token needs to be looked at.
    """
    view = memoryview(document)
    seams = _SEAM.finditer(document, start)
    seam, start = next(seams, None), start + 1
    while (start := _after(_GAP, document, start)) < len(document):
        while seam is not None and seam.start() < start:
            seam = next(seams, None)
        if seam is not None and document[start] == ord("{"):
            try:
                _is_whole(view[start : seam.start() + 1])
            except (msgspec.DecodeError, RecursionError):
                pass
            else:
                yield start, seam.start() + 1
                start = seam.end()
                continue
        end, closed = _part_end(document, start)
        yield start, len(document[start:end].rstrip()) + start
        if closed:
            return
        start = end
