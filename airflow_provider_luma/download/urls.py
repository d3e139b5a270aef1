# SPDX-License-Identifier: Apache-2.0
"""URLs of artifacts, requested shortly before they are used, because they expire."""

from __future__ import annotations

from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.artifacts import Artifact, artifact_urls, missing_artifacts
from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.exceptions import LumaMissingArtifactError


def urls_to_download(task: LumaTask | None, task_id: str, artifact: Artifact) -> tuple[str, ...]:
    """
    Return the URLs of one of a task's files, the preferred one first.

    :param task: The task, or ``None`` when the relay doesn't know it.
    :param task_id: Its id.
    :param artifact: Which file.
    :raises LumaMissingArtifactError: when there is no URL, saying why.
    """
    if missing := missing_artifacts(task, [artifact]):
        raise LumaMissingArtifactError(
            f"The {artifact} of Luma task {task_id} can't be downloaded: {missing.reason}.",
            retryable=missing.retryable,
            task_ids=[task_id],
        )
    return artifact_urls(task, artifact)


class UrlSource:
    """
    Return the URLs of one file: first those at hand, then fresh ones from the relay.

    :param client: Queries the relay.
    :param task_id: The task.
    :param artifact: Which of its files.
    :param urls: The URLs at hand, if there are any.
    """

    def __init__(
        self, client: LumaClient, task_id: str, artifact: Artifact, urls: tuple[str, ...] = ()
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._artifact: Artifact = artifact
        self._urls = urls

    def __call__(self) -> tuple[str, ...]:
        """
        Return the URLs, the preferred one first; from the second call on, fresh ones.

        :raises LumaMissingArtifactError: when there is none.
        :raises LumaError: when the query fails.
        """
        urls, self._urls = self._urls, ()
        if not urls:
            tasks = self._client.get_tasks([self._task_id])
            urls = urls_to_download(tasks.get(self._task_id), self._task_id, self._artifact)
        return urls
