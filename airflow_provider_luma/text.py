# SPDX-License-Identifier: Apache-2.0
"""
Make text from outside safe to log, store and print.

A relay's texts reach logs, XComs, terminals and browsers. They may carry escape sequences, characters that
reverse the reading direction, the API key in one of many spellings, or megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_TEXT: Final = 500
"""Characters of a reason or a message that are kept."""

MAX_PROMPT: Final = 6_000
"""Characters of a prompt that are kept: more than any API takes."""

_SHOWN: Final = 120
_SHOWN_OF_FIELDS: Final = 200
# A shorter key is a placeholder such as "key", which ordinary words may contain.
SHORTEST_MASKED: Final = 8
_LONGEST_SPELLING: Final = 8
_BLANKS: Final = re.compile("[\t-\r\x85\u2028\u2029]+")
# Controls, soft hyphen, marks of direction, invisible operators, tags, and halves of surrogate pairs. The
# joiners U+200C and U+200D stay: Persian words and emoji need them.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class Cleaner:
    """
    Clean text from outside: one line, no invisible characters, no API key, and a bounded length.

    :param secret: The API key; each spelling of it becomes ``***``. Empty when there is none.
    """

    def __init__(self, secret: str = "") -> None:
        self._plain = secret
        self._secret = _spellings(secret) if len(secret) >= SHORTEST_MASKED else None
        self._margin = _LONGEST_SPELLING * len(secret)

    def __call__(self, text: str, limit: int = MAX_TEXT) -> str:
        """
        Clean one text and keep *limit* characters of it; a longer one ends with an ellipsis.

        The work is bounded by *limit*, however long the text is.
        """
        head = text[: 4 * limit + self._margin]
        if not head.isprintable():
            head = _UNSAFE.sub("", _BLANKS.sub(" ", head))
        if self._secret is not None:
            # The search for every spelling is slow, and most texts can't contain one.
            if self._plain in head or "\\" in head or "%" in head or "&#" in head:
                head = self._secret.sub("***", head)
            if len(text) > 4 * limit + self._margin:
                # The end may be a part of the key, which the search doesn't find.
                head = head[: -self._margin]
        return head if len(head) <= limit else f"{head[:limit]}…"

    def is_needed(self, document: bytes) -> bool:
        """
        Return whether a text in a document, valid JSON in UTF-8, may need more cleaning than a cut.

        Checking the whole document takes a hundredth of the time for all of its texts.
        """
        if not document.isascii() or b"\\" in document or b"\x7f" in document:
            return True
        return self._secret is not None and (
            self._plain.encode("utf-8", "replace") in document or b"%" in document or b"&#" in document
        )


clean_text: Final = Cleaner()
"""Clean where no key is known."""


def shorten(text: str, limit: int = _SHOWN) -> str:
    """Cut a text, such as a prompt or a base64 image, to *limit* characters, and say how long it is."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def shorten_list(items: Sequence[str], limit: int = 10, separator: str = ", ") -> str:
    """Join the first *limit* items of a list, such as ids, and count the rest."""
    named = separator.join(items[:limit])
    return f"{named} and {len(items) - limit} more" if len(items) > limit else named


def shorten_texts(value: Any) -> Any:
    """Cut the long texts in a value: a text, or lists and dictionaries of texts."""
    if isinstance(value, str):
        return shorten(value, _SHOWN_OF_FIELDS)
    if isinstance(value, Mapping):
        return {name: shorten_texts(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [shorten_texts(item) for item in value]
    return value


def _spellings(secret: str) -> re.Pattern[str]:
    """Match a secret as it is, and with any of its characters escaped as in JSON, URLs or HTML."""
    characters = []
    for char in secret:
        code = ord(char)
        escapes = rf"\\+u{code:04x}|\\+x{code:02x}|%(?:25)?{code:02x}|&\#0*{code};|&\#x0*{code:x};"
        characters.append(rf"(?:\\*{re.escape(char)}|{escapes})")
    return re.compile("".join(characters), re.IGNORECASE)
