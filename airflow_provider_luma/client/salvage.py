# SPDX-License-Identifier: Apache-2.0
"""
Read damaged JSON as far as it is legible, so that one broken record doesn't affect the others.

This is used only after the ordinary decoder has refused an answer. The scan looks only at strings and
brackets and keeps no stack, so deep nesting, bad numbers and bad UTF-8 affect only the part they are in.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

# A string that is cut off is one token up to the end; else each of its quotes would start another scan. A run
# of brackets is one token, so that deep nesting costs no more than text.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]++|[\]}]++|,', re.DOTALL)
_SEAM: Final = re.compile(rb"\}\s*+,\s*+(?=\{)")
_GAP: Final = re.compile(rb"[\s,]*+")
_COLON: Final = re.compile(rb"\s*+:?\s*+")
_CLOSING: Final = re.compile(rb"[\s,]*+[\]}]")

_MAX_DIGITS: Final = 40
_MAX_LEVELS: Final = 8
_MAX_PARTS: Final = 1000

ILLEGIBLE: Final = object()
"""Stand for a value that can't be read."""

_is_whole: Final = msgspec.json.Decoder(msgspec.Raw).decode


class ArrayCutter:
    """
    Cut the array that a document begins with into chunks to decode at once, and bad chunks into elements.

    So neither a flood of records nor a broken one costs more than its chunk. Anything after the array is
    ignored. An array that is cut off gives its whole elements and then the broken one.

    :param document: The document.
    :param size: How many bytes a chunk has at least.
    """

    def __init__(self, document: bytes, *, size: int = 1 << 18) -> None:
        self._document, self._size = document, size
        self._at, self._end = 1, 0
        self.done = False

    def chunk(self) -> bytes:
        """
        Return the next elements as an array.

        It ends at ``}, {``. That may be inside a text or a list; then the chunk isn't valid JSON.
        """
        seam = _SEAM.search(self._document, self._at + self._size)
        self._end = len(self._document) if seam is None else seam.end()
        if seam is None:
            return b"[" + self._document[self._at :] if self._at > 1 else self._document
        return b"[%b]" % self._document[self._at : seam.start() + 1]

    def accept(self) -> None:
        """Move on to the next chunk, because this one was valid."""
        self._at, self.done = self._end, self._end == len(self._document)

    def elements(self) -> Iterator[bytes]:
        """Yield the chunk's elements one by one, and move on to the next chunk."""
        for start, end, closed in _elements(self._document, self._at):
            self._at, self.done = end, closed
            if end > start:
                yield self._document[start:end]
            if end >= self._end:
                break
        else:
            self.done = True
        self._at = _after(_GAP, self._document, self._at)


def array_elements(document: bytes) -> Iterator[bytes]:
    """
    Yield the top-level elements of the array that *document* begins with.

    Anything after the array is ignored. An array that is cut off yields its whole elements and then the
    broken one.
    """
    for start, end, _ in _elements(document, 1):
        if end > start:
            yield document[start:end]


def object_members(document: bytes) -> dict[bytes, bytes]:
    """Return the members of the object that *document* begins with, undecoded; nameless ones are left out."""
    members: dict[bytes, bytes] = {}
    start, closed = _after(_GAP, document, 1), False
    while not closed and start < len(document):
        name = _TOKEN.match(document, start)
        if name is None or not name.group().startswith(b'"'):
            end, closed = _part_end(document, start)
        else:
            value = _after(_COLON, document, name.end())
            # An array may be most of the answer, and finding its elements is faster than finding its tokens.
            behind = _array_end(document, value) if document.startswith(b"[", value) else value
            end, closed = _part_end(document, behind)
            members[name.group()[1:-1]] = document[value:end].strip()
        start = _after(_GAP, document, end)
    return members


def first_document(text: bytes) -> bytes:
    """Return the array or object that *text* begins with, without anything after it."""
    for depth, token in _tokens(text, 0):
        if depth <= 0:
            return text[: token.end() + depth]
    return text


def loose_json(document: bytes, *, levels: int = _MAX_LEVELS) -> object:
    """
    Decode JSON and text close to it; a value that can't be read is :data:`ILLEGIBLE` and affects no other.

    ``NaN`` and ``Infinity`` are null. Halves of surrogate pairs and invalid UTF-8 stay in the texts as
    surrogates. Numbers of hundreds of digits are illegible. Broken JSON is searched *levels* deep.
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
            loose_json(element, levels=levels - 1) for element in islice(array_elements(document), _MAX_PARTS)
        ]
    return ILLEGIBLE


def _integer(digits: str) -> object:
    return int(digits) if len(digits) <= _MAX_DIGITS else ILLEGIBLE


_LOOSE: Final = json.JSONDecoder(strict=False, parse_int=_integer, parse_constant=lambda _: None)


def _tokens(document: bytes, start: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Yield each token with the depth after it."""
    depth = 0
    for token in _TOKEN.finditer(document, start):
        match token.group()[:1]:
            case b"[" | b"{":
                depth += token.end() - token.start()
            case b"]" | b"}":
                depth -= token.end() - token.start()
        yield depth, token


def _part_end(document: bytes, start: int) -> tuple[int, bool]:
    """Find where the part at *start* ends, and whether its array or object ends there too."""
    for depth, token in _tokens(document, start):
        if depth < 0:
            # The run of brackets closes as many levels too many as it has brackets from there on.
            return token.end() + depth, True
        if depth == 0 and token.group() == b",":
            return token.start(), False
    return len(document), True


def _after(gap: re.Pattern[bytes], document: bytes, start: int) -> int:
    found = gap.match(document, start)
    return start if found is None else found.end()


def _array_end(document: bytes, start: int) -> int:
    """Find where the array at *start* ends."""
    ends = (end for _, end, _ in _elements(document, start + 1))
    last = deque(ends, maxlen=1) or [start + 1]
    found = _CLOSING.match(document, last[0])
    return len(document) if found is None else found.end()


def _elements(document: bytes, start: int) -> Iterator[tuple[int, int, bool]]:
    """
    Yield where each element of an array begins and ends, and whether the array ends with it.

    An object that is followed by another one usually ends at the next ``}, {``. It does so certainly when the
    text before it is valid JSON; then no token needs to be read.
    """
    view = memoryview(document)
    seams = _SEAM.finditer(document, start)
    seam = next(seams, None)
    while (start := _after(_GAP, document, start)) < len(document):
        while seam is not None and seam.start() < start:
            seam = next(seams, None)
        if seam is not None and document[start] == ord("{"):
            try:
                _is_whole(view[start : seam.start() + 1])
            except (msgspec.DecodeError, RecursionError):
                pass
            else:
                yield start, seam.start() + 1, False
                start = seam.end()
                continue
        end, closed = _part_end(document, start)
        yield start, start + len(document[start:end].rstrip()), closed
        if closed:
            return
        start = end
