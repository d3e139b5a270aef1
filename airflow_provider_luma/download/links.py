# SPDX-License-Identifier: Apache-2.0
"""Links to artifacts: asked for shortly before they are used, because they expire."""

from __future__ import annotations

from airflow_provider_luma.client.artifacts import Artifact, ArtifactRecord
from airflow_provider_luma.client.luma import LumaClient
from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.exceptions import LumaMissingArtifactError


def artifact_link(task: LumaTask | None, task_id: str, artifact: Artifact) -> str:
    """
    Return the link to one of a task's files.

    :param task: The task, or None when the relay doesn't know it.
    :param task_id: Its id.
    :param artifact: Which file.
    :raises LumaMissingArtifactError: when there is no link, saying why.
    """
    if task is None:
        lack, final = "the relay doesn't know this id", True
    elif task.problem is not None:
        lack, final = task.problem, False
    elif link := ArtifactRecord.of(task).url(artifact):
        return link
    else:
        reason = f" ({task.failure_reason})" if task.failure_reason else ""
        lack, final = f"{task.state.value}{reason}, without a link to it", task.state is TaskState.FAILED
    raise LumaMissingArtifactError(
        f"The {artifact} of Luma task {task_id} can't be kept: {lack}.",
        retryable=not final,
        task_ids=[task_id],
    )


class LinkSource:
    """
    Gives links to one file: at first the one that is at hand, then fresh ones.

    :param client: Asks the relay.
    :param task_id: The task.
    :param artifact: Which of its files.
    :param link: The link at hand, if there is one.
    """

    def __init__(self, client: LumaClient, task_id: str, artifact: Artifact, link: str | None) -> None:
        self._client = client
        self._task_id = task_id
        self._artifact: Artifact = artifact
        self._link = link

    def __call__(self) -> str:
        """
        Return a link that was not returned before.

        :raises LumaMissingArtifactError: when there is none.
        :raises LumaError: when the relay can't be asked.
        """
        link, self._link = self._link, None
        if link is None:
            tasks = self._client.get_tasks([self._task_id])
            link = artifact_link(tasks.get(self._task_id), self._task_id, self._artifact)
        return link
