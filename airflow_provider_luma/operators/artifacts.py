# SPDX-License-Identifier: Apache-2.0
"""Fetch the URLs of completed Luma tasks' artifacts for the next task."""

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
    from airflow.sdk import Context, XComArg

    from airflow_provider_luma.client.artifacts import Artifact


class LumaFetchArtifactsOperator(BaseOperator):
    """
    Fetch the artifact URLs of completed Luma tasks and return them.

    URLs expire, so each run of this task fetches new ones; that is free of charge and safe to retry.

    Returns one flat record per id, in input order, with the fields ``id``, ``video_url``,
    ``video_raw_url``, ``thumbnail_url``, ``last_frame_url``, ``width``, ``height`` (pixels), ``duration``
    (seconds), ``prompt``, ``aspect_ratio`` and ``created_at`` (ISO 8601). Pushes ``video_urls``, the list
    of the video URLs, as a second XCom: ``fetch.output["video_urls"]``. Airflow maps tasks only over return
    values, so use ``.expand(video_url=fetch.output.map(lambda record: record["video_url"]))`` for one mapped
    task per URL.

    With ``manifest_path`` the records are written to that file as JSON Lines, and the return value is only
    ``{"manifest_path": …, "count": …}``: use it for thousands of ids.

    The task fails if a required URL is missing, and names the ids: without retries if the Luma task failed or
    the relay doesn't know it; with retries if it isn't completed or its URL is late.

    :param luma_task_ids: A list of ids, one id, or a template that renders to either. (templated)
    :param luma_conn_id: Id of the Airflow connection. (templated)
    :param artifacts: Which URLs must exist: any of ``video``, ``video_raw``, ``thumbnail``, ``last_frame``.
    :param manifest_path: An ``ObjectStoragePath`` or its URL, such as ``s3://bucket/run.jsonl``; an existing
        file is replaced. (templated)
    """

    template_fields: Sequence[str] = ("luma_task_ids", "luma_conn_id", "manifest_path")
    ui_color = "#e3e8ff"

    def __init__(
        self,
        *,
        luma_task_ids: Sequence[str | XComArg] | str | XComArg,
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
        # Airflow can't render a path object as a template.
        self.manifest_path = (
            str(manifest_path) if isinstance(manifest_path, ObjectStoragePath) else manifest_path
        )

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """Fetch the records; return them or write them to the manifest."""
        with final_errors_fail_the_task():
            ids = parse_task_ids(self.luma_task_ids)
            tasks = LumaHook(self.luma_conn_id).client.get_tasks(ids)
            self._check(ids, tasks)
        records = [ArtifactRecord.of(tasks[task_id]) for task_id in ids]
        self.log.info("Fetched the URLs of %d Luma tasks.", len(records))
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
