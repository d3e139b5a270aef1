# SPDX-License-Identifier: Apache-2.0
"""Hand the files of completed Luma tasks to the next task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import BaseOperator, ObjectStoragePath

from airflow_provider_luma.client.artifacts import ArtifactRecord, check_artifacts, missing_artifacts
from airflow_provider_luma.client.models import LumaTask
from airflow_provider_luma.exceptions import LumaMissingArtifactError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.outcomes import final_errors_fail_the_task
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids
from airflow_provider_luma.text import shorten_list

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_luma.client.artifacts import Artifact


class LumaFetchArtifactsOperator(BaseOperator):
    """
    Ask the relay for the files of completed tasks and hand their links on.

    Links expire, so they are asked for afresh each time this task runs; that is free of charge and safe
    to retry.

    Returns one flat record per id, in input order, with the fields ``id``, ``video_url``,
    ``video_raw_url``, ``thumbnail_url``, ``last_frame_url``, ``width``, ``height`` (pixels), ``duration``
    (seconds), ``prompt``, ``aspect_ratio`` and ``created_at`` (ISO 8601); pushes ``video_urls``, the list
    of the video links, as an XCom of its own: ``fetch.output["video_urls"]``. Airflow maps tasks over
    return values alone, so one mapped task per link takes
    ``.expand(video_url=fetch.output.map(lambda record: record["video_url"]))``.

    With ``manifest_path`` the records go to that file as JSON Lines, and the XCom carries only
    ``{"manifest_path": …, "count": …}``: right for thousands of ids.

    The task fails when a wanted link is missing, naming the ids: without retries when the Luma task failed
    or the relay doesn't know it; with retries when it isn't finished or its link is late.

    :param luma_task_ids: A list of ids, one id, or a template that renders to either. (templated)
    :param luma_conn_id: Id of the Airflow connection. (templated)
    :param artifacts: Which links must exist: any of ``video``, ``video_raw``, ``thumbnail``, ``last_frame``.
    :param manifest_path: An ``ObjectStoragePath`` or its text, such as ``s3://bucket/run.jsonl``; the file
        is replaced. (templated)
    """

    template_fields: Sequence[str] = ("luma_task_ids", "luma_conn_id", "manifest_path")
    ui_color = "#e3e8ff"

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str] | str,
        luma_conn_id: str = LumaHook.default_conn_name,
        artifacts: Sequence[Artifact] = ("video",),
        manifest_path: ObjectStoragePath | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_task_ids(luma_task_ids)
        check_artifacts(artifacts)
        self.luma_task_ids = luma_task_ids
        self.luma_conn_id = luma_conn_id
        self.artifacts = artifacts
        # A path object can't be rendered as a template.
        self.manifest_path = (
            str(manifest_path) if isinstance(manifest_path, ObjectStoragePath) else manifest_path
        )

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """Fetch the records and hand them on."""
        with final_errors_fail_the_task():
            ids = parse_task_ids(self.luma_task_ids)
            tasks = LumaHook(self.luma_conn_id).client.get_tasks(ids)
            self._check(ids, tasks)
        records = [ArtifactRecord.of(tasks[task_id]) for task_id in ids]
        self.log.info("Fetched the links of %d Luma tasks.", len(records))
        if self.manifest_path is not None:
            return self._write_manifest(self.manifest_path, records)
        if self.do_xcom_push:
            video_urls = [record.video_url for record in records if record.video_url]
            context["ti"].xcom_push(key="video_urls", value=video_urls)
        return [record.to_dict() for record in records]

    def _check(self, ids: Sequence[str], tasks: Mapping[str, LumaTask]) -> None:
        missing = {i: why for i in ids if (why := missing_artifacts(tasks.get(i), self.artifacts))}
        if missing:
            reasons = [f"{task_id}: {why.reason}" for task_id, why in missing.items()]
            raise LumaMissingArtifactError(
                f"{len(missing)} of {len(ids)} Luma tasks lack artifacts. {shorten_list(reasons, 20, '; ')}. "
                "Put a LumaTaskSensor before this task and pass on the ids that it returns, or ask for "
                "fewer artifacts.",
                retryable=any(why.retryable for why in missing.values()),
                task_ids=list(missing),
            )

    def _write_manifest(self, manifest_path: str, records: Sequence[ArtifactRecord]) -> dict[str, Any]:
        path = ObjectStoragePath(manifest_path)
        if path.protocol in ("", "file"):
            path.parent.mkdir(parents=True, exist_ok=True)
        encode = msgspec.json.Encoder().encode
        with path.open("wb") as file:
            for record in records:
                file.write(encode(record) + b"\n")
        self.log.info("Wrote %d records to %s", len(records), path)
        return {"manifest_path": str(path), "count": len(records)}
