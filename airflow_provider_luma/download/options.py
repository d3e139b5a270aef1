# SPDX-License-Identifier: Apache-2.0
"""What a user can say about a download, checked. Cheap to import, because parsing a Dag does."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from airflow_provider_luma.client.artifacts import Artifact, check_artifacts
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.validation import whole_number

OnExisting = Literal["skip", "replace", "fail"]

DEFAULT_FILE_NAME: Final = "{id}_{artifact}{ext}"
_FIELDS: Final = ("id", "artifact", "ext")


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """
    Which files are kept, how they are named, and within what bounds.

    :param artifacts: Which files of a task are kept.
    :param file_name: How they are named: text with the fields ``{id}``, ``{artifact}`` and ``{ext}``, the
        extension with its dot. Slashes make folders.
    :param on_existing: What to do about a file that is there already. ``skip`` keeps it if it is whole: of
        the size that its host announces, and of the right format; if it isn't, it is fetched again.
        ``replace`` fetches it again. ``fail`` ends before anything is fetched.
    :param max_bytes: The largest file that is taken.
    :param file_timeout: Seconds for one file, with all attempts and pauses.
    :param max_concurrency: How many files are fetched at a time.
    :param attempts: How many attempts in a row may break without coming further than those before.
    :param backoff: Seconds of the first pause between attempts; each further one is twice as long.
    :param backoff_max: Seconds of the longest pause, unless the host asks for a longer one.
    :raises LumaConfigError: naming what can't be used.
    """

    artifacts: Sequence[Artifact] = ("video",)
    file_name: str = DEFAULT_FILE_NAME
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
            raise LumaConfigError("artifacts is empty: name at least one, such as 'video'.")
        _check_file_name(self.file_name, self.artifacts)
        if self.on_existing not in ("skip", "replace", "fail"):
            raise LumaConfigError(
                f"on_existing must be 'skip', 'replace' or 'fail', got {self.on_existing!r}."
            )
        for name in ("max_bytes", "max_concurrency", "attempts"):
            whole_number(name, getattr(self, name), least=1)
        for name in ("file_timeout", "backoff", "backoff_max"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e7:
                raise LumaConfigError(f"{name} must be a positive number of seconds, got {value!r}.")

    def name(self, *, task_id: str, artifact: Artifact, extension: str) -> str:
        """Return a file's name: made of what is known here, never of what a link says."""
        return self.file_name.format(id=task_id, artifact=artifact, ext=extension)


def _check_file_name(template: str, artifacts: Sequence[str]) -> None:
    right = f"right is a name with {{id}}, {{artifact}} and {{ext}} such as {DEFAULT_FILE_NAME!r}"
    try:
        parts = list(string.Formatter().parse(template))
    except (TypeError, ValueError) as error:
        raise LumaConfigError(f"file_name is {template!r} ({error}): {right}.") from None
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    if any(field not in _FIELDS or spec or conversion for field, spec, conversion in fields):
        raise LumaConfigError(f"file_name is {template!r}, which has other fields: {right}.")
    folders = template.split("/")
    if any(folder in ("", ".", "..") for folder in folders) or "\\" in template or not template.isprintable():
        raise LumaConfigError(f"file_name is {template!r}, which is no name within a folder: {right}.")
    names = {field for field, *_ in fields}
    if "id" not in names or (len(set(artifacts)) > 1 and "artifact" not in names):
        raise LumaConfigError(f"file_name is {template!r}, which gives several files one name: {right}.")
