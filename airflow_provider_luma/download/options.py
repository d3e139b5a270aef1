# SPDX-License-Identifier: Apache-2.0
"""Check a user's options for a download. Cheap to import, because parsing a Dag imports it."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from airflow_provider_luma.client.artifacts import Artifact, check_artifacts
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.validation import positive_seconds, shown, whole_number

OnExisting = Literal["skip", "replace", "fail"]

_FIELDS: Final = ("id", "artifact", "ext")
# A bound that excludes 1e7 itself.
_MAX_SECONDS: Final = math.nextafter(1e7, 0)


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """
    Select which files are downloaded, how they are named, and within what bounds.

    :param artifacts: Which files of a task to download.
    :param file_name: Their names: text with the fields ``{id}``, ``{artifact}`` and ``{ext}``, the extension
        with its dot. Slashes make folders.
    :param on_existing: What to do about a file that exists. ``skip`` keeps it if it is complete, that is, it
        has the size that its host announces and the right format; otherwise it is downloaded again.
        ``replace`` downloads it again. ``fail`` fails before anything is downloaded.
    :param max_bytes: The largest file to accept.
    :param file_timeout: Seconds for one file, with all attempts and pauses.
    :param max_concurrency: How many files to download at a time.
    :param attempts: How many attempts in a row may break without receiving more than those before.
    :param backoff: Seconds of the first pause between attempts; each further one is twice as long.
    :param backoff_max: Seconds of the longest pause, unless the host asks for a longer one.
    :raises LumaConfigError: naming the option that can't be used.
    """

    artifacts: Sequence[Artifact] = ("video",)
    file_name: str = "{id}_{artifact}{ext}"
    on_existing: OnExisting = "skip"
    max_bytes: int = 2 * 1024**3
    file_timeout: float = 3600.0
    max_concurrency: int = 8
    attempts: int = 5
    backoff: float = 0.5
    backoff_max: float = 10.0

    def __post_init__(self) -> None:
        check_artifacts(self.artifacts)
        if not self.artifacts:
            raise LumaConfigError("artifacts must name at least one, such as 'video'; got an empty list.")
        _check_file_name(self.file_name, self.artifacts)
        if self.on_existing not in ("skip", "replace", "fail"):
            raise LumaConfigError(
                f"on_existing must be 'skip', 'replace' or 'fail'; got {shown(self.on_existing)}."
            )
        for name in ("max_bytes", "max_concurrency", "attempts"):
            whole_number(name, getattr(self, name), least=1)
        for name in ("file_timeout", "backoff", "backoff_max"):
            positive_seconds(name, getattr(self, name), most=_MAX_SECONDS)

    def name(self, *, task_id: str, artifact: Artifact, extension: str) -> str:
        """Return a file's name, made of trusted values only and never of a URL."""
        return self.file_name.format(id=task_id, artifact=artifact, ext=extension)


def _check_file_name(template: str, artifacts: Sequence[str]) -> None:
    if reason := _flaw_of_file_name(template, artifacts):
        raise LumaConfigError(
            f"file_name must be a name with {{id}}, {{artifact}} and {{ext}} such as "
            f"{DownloadOptions.file_name!r}; got {shown(template)}, {reason}."
        )


def _flaw_of_file_name(template: str, artifacts: Sequence[str]) -> str | None:
    try:
        parts = list(string.Formatter().parse(template))
    except (TypeError, ValueError) as error:
        return f"which can't be parsed ({error})"
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    if any(field not in _FIELDS or spec or conversion for field, spec, conversion in fields):
        return "which has other fields"
    folders = template.split("/")
    if any(folder in ("", ".", "..") for folder in folders) or "\\" in template or not template.isprintable():
        return "which is not a name inside a folder"
    names = {field for field, *_ in fields}
    if "id" not in names or (len(set(artifacts)) > 1 and "artifact" not in names):
        return "which gives several files one name"
    return None
