# SPDX-License-Identifier: Apache-2.0
"""Describe what to submit, and recognise it after a crash."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_luma.client.requests import ExtensionRequest, GenerationRequest
from airflow_provider_luma.text import shorten

if TYPE_CHECKING:
    from airflow_provider_luma.client.api import LumaClient
    from airflow_provider_luma.client.models import LumaTask

_XCOM_PROMPT_LENGTH = 500


class Submission(msgspec.Struct, frozen=True):
    """
    Describe one submit.

    :param request: What to generate, or how to continue a video.
    :param extends: Id of the Luma task whose video to continue; ``None`` for a new video.
    """

    request: GenerationRequest | ExtensionRequest
    extends: str | None = None

    def send(self, client: LumaClient) -> LumaTask:
        """Send the request exactly once. Parameters and errors are those of the client's calls."""
        if isinstance(self.request, ExtensionRequest):
            return client.extend(self.extends or "", self.request)
        return client.generate(self.request)

    def fingerprint(self, connection: str) -> str:
        """
        Return a digest that is the same for equal requests on the same connection.

        :param connection: What identifies the connection; not its key, which may be rotated.
        """
        identity = [connection, self.extends, self.request.body()]
        return hashlib.sha256(msgspec.json.encode(identity, order="deterministic")).hexdigest()[:24]

    @property
    def short_prompt(self) -> str:
        """Return the prompt, cut to what an XCom should hold."""
        return shorten(self.request.prompt, _XCOM_PROMPT_LENGTH)

    def __str__(self) -> str:
        what = f"extension of {self.extends}" if self.extends else "video"
        return f"{what} {shorten(self.request.prompt)!r}"


def submission_keys(submissions: Sequence[Submission], connection: str) -> list[str]:
    """
    Return a key for each submission that depends on its request, not on its place; equal ones differ.

    :param connection: See :meth:`Submission.fingerprint`.
    """
    seen: Counter[str] = Counter()
    keys = []
    for submission in submissions:
        fingerprint = submission.fingerprint(connection)
        seen[fingerprint] += 1
        keys.append(f"{fingerprint}_{seen[fingerprint]}")
    return keys
