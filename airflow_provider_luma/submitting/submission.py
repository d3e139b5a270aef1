# SPDX-License-Identifier: Apache-2.0
"""What is to be bought, and how it is recognised again after a crash."""

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


class Submission(msgspec.Struct, frozen=True):
    """
    One submit.

    :param request: What to generate, or how to go on.
    :param extends: Id of the task whose video goes on; ``None`` for a new video.
    """

    request: GenerationRequest | ExtensionRequest
    extends: str | None = None

    def send(self, client: LumaClient) -> LumaTask:
        """Send it, exactly once. Parameters and errors are those of the client's calls."""
        if isinstance(self.request, ExtensionRequest):
            return client.extend(self.extends or "", self.request)
        return client.generate(self.request)

    def fingerprint(self, connection: str) -> str:
        """
        Return a digest by which the same job on the same connection is recognised.

        :param connection: What identifies the connection; not its key, which may be rotated.
        """
        identity = [connection, self.extends, self.request.body()]
        return hashlib.sha256(msgspec.json.encode(identity, order="deterministic")).hexdigest()[:24]

    @property
    def short_prompt(self) -> str:
        """The prompt as an XCom can bear it."""
        return shorten(self.request.prompt, 500)

    def __str__(self) -> str:
        what = f"extension of {self.extends}" if self.extends else "video"
        return f"{what} {shorten(self.request.prompt)!r}"


def submission_keys(submissions: Sequence[Submission], connection: str) -> list[str]:
    """
    Key each job by what it asks for, so that a changed order of the list doesn't matter.

    :param submissions: The submissions; of equal ones each has a key of its own.
    :param connection: See :meth:`Submission.fingerprint`.
    """
    seen: Counter[str] = Counter()
    keys = []
    for submission in submissions:
        fingerprint = submission.fingerprint(connection)
        seen[fingerprint] += 1
        keys.append(f"{fingerprint}_{seen[fingerprint]}")
    return keys
