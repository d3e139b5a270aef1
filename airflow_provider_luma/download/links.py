# SPDX-License-Identifier: Apache-2.0
"""Links to artifacts: asked for shortly before they are used, because they expire."""

from __future__ import annotations

from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.artifacts import Artifact, artifact_urls
from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.exceptions import LumaMissingArtifactError
from airflow_provider_luma.text import clean_text


def artifact_links(task: LumaTask | None, task_id: str, artifact: Artifact) -> tuple[str, ...]:
    """
    Return the links under which one of a task's files may be found, the preferred one first.

    :param task: The task, or None when the relay doesn't know it.
    :param task_id: Its id.
    :param artifact: Which file.
    :raises LumaMissingArtifactError: when there is no link, saying why.
    """
    if task is None:
        lack, final = "the relay doesn't know this id", True
    elif task.problem is not None:
        lack, final = task.problem, False
    elif links := artifact_urls(task, artifact):
        return links
    else:
        reason = f" ({clean_text(task.failure_reason)})" if task.failure_reason else ""
        lack, final = f"{task.state.value}{reason}, without a link to it", task.state is TaskState.FAILED
    raise LumaMissingArtifactError(
        f"The {artifact} of Luma task {task_id} can't be kept: {lack}.",
        retryable=not final,
        task_ids=[task_id],
    )


class LinkSource:
    """
    Gives the links to one file: at first those that are at hand, then fresh ones.

    :param client: Asks the relay.
    :param task_id: The task.
    :param artifact: Which of its files.
    :param links: The links at hand, if there are any.
    """

    def __init__(
        self, client: LumaClient, task_id: str, artifact: Artifact, links: tuple[str, ...] = ()
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._artifact: Artifact = artifact
        self._links = links

    def __call__(self) -> tuple[str, ...]:
        """
        Return the links, the preferred one first; called again, fresh ones.

        :raises LumaMissingArtifactError: when there is none.
        :raises LumaError: when the relay can't be asked.
        """
        links, self._links = self._links, ()
        if not links:
            tasks = self._client.get_tasks([self._task_id])
            links = artifact_links(tasks.get(self._task_id), self._task_id, self._artifact)
        return links
