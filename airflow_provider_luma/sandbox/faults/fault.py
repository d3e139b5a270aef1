# SPDX-License-Identifier: Apache-2.0
"""The value that says how an answer goes wrong."""

from __future__ import annotations

from typing import Literal

import msgspec

from airflow_provider_luma.sandbox.rewrites import Rewrite

CallName = Literal["batch", "single", "submit", "extend", "download_url", "billing", "media", "unknown"]
Ending = Literal[
    "whole", "chunked", "short", "truncated", "chunk_cut", "unframed", "stalled", "reset", "closed"
]
JSON = "application/json; charset=utf-8"
CUSTOM = "custom"


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Describe one way in which an answer goes wrong.

    :param name: Name in the records of calls. Default: ``custom``.
    :param status: HTTP status. None keeps that of the true answer.
    :param headers: Headers added to the answer.
    :param body: Bytes sent instead of the true answer. None sends the true answer.
    :param content_type: Content type of ``body``.
    :param repeat: How many times ``body`` is sent in a row, as one streamed body.
    :param rewrite: What is changed in the true answer.
    :param delay: Seconds before anything is sent.
    :param drip: Seconds between any two bytes of the body. 0 sends it at once.
    :param header_drip: Seconds between any two bytes of the status line and the headers.
    :param ending: ``whole``, ``chunked`` (whole, without Content-Length), ``short`` (cut, with a
        Content-Length that fits), ``truncated`` (cut, with the Content-Length of the whole), ``chunk_cut``
        (chunked, without the last chunk), ``unframed`` (cut, with neither length nor chunks), ``stalled``
        (silence until the client leaves), ``reset`` (TCP RST) or ``closed``.
    :param keep: The part of the body, 0 to 1, that is sent before an ending that cuts it. With ``stalled``,
        ``reset`` and ``closed``, 0 also suppresses the status line.
    :param ranges: False makes the media host ignore ``Range`` and not offer it.
    :param etag: ETag of a media file instead of its own.
    :param total_off: Bytes by which the total in a Content-Range differs from the file's size.
    :raises ValueError: A number is out of its range.
    """

    name: str = CUSTOM
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = JSON
    repeat: int = 1
    rewrite: Rewrite | None = None
    delay: float = 0.0
    drip: float = 0.0
    header_drip: float = 0.0
    ending: Ending = "whole"
    keep: float = 1.0
    ranges: bool = True
    etag: str | None = None
    total_off: int = 0

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1; got {self.repeat!r}.")
        for name in ("delay", "drip", "header_drip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more seconds; got {getattr(self, name)!r}.")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep must be a part of the body between 0 and 1; got {self.keep!r}.")

    @property
    def silent(self) -> bool:
        """Whether not even a status line is sent."""
        return self.ending in ("stalled", "reset", "closed") and self.keep == 0

    @property
    def needs_true_answer(self) -> bool:
        """Whether the fault spoils the relay's true answer, so that the relay acts first."""
        return self.body is None and not self.silent


# Stands for the absence of a fault: the true answer, whole and at once.
NO_FAULT = Fault(name="")
