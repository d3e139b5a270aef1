# SPDX-License-Identifier: Apache-2.0
"""Run the fetch operator in real Dag runs: records, URLs, manifests, and errors for missing artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, Param, XComArg, task

from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.sandbox import LumaSandbox, TaskScript, faults

ANSWER = (Path(__file__).parent / "tasks-response.json").read_bytes()
SEED = json.loads(ANSWER)[0]

FOLDER = "https://storage.cdn-luma.com/dream-machine/b0d67582-c6f0-4973-a89c-3fea9d46d5e9"
VIDEO = f"{FOLDER}/35049450-c008-4607-b1d0-0b025599f15d/video0b6619468da8e409da860706bbf26bbad.mp4"
RECORD = {
    "id": "4665a07c-7641-4809-a133-10786201bb56",
    "video_url": VIDEO,
    "video_raw_url": VIDEO,
    "thumbnail_url": (
        "https://imagedelivery.net/1KomXrSWiTojGGip43n0SQ/e4268de5-4a74-45ff-67b8-dc46df12de00/public"
    ),
    "last_frame_url": f"{FOLDER}/606108d9-9daf-4265-84fb-595f18240ac5/video_0_last_frame.jpg",
    "width": 1360,
    "height": 752,
    "duration": 5.041667,
    "prompt": "cat dance",
    "aspect_ratio": "16:9",
    "created_at": "2024-12-22T13:38:40.139000+00:00",
}


@pytest.fixture
def fetch(run_dag: Callable[..., Any], connected: LumaSandbox) -> Callable[..., Any]:
    """Run a Dag with one fetch operator."""

    def fetch(ids: Any, *, params: dict[str, Any] | None = None, **arguments: Any) -> Any:
        with DAG("fetch", schedule=None, params=params) as dag:
            LumaFetchArtifactsOperator(
                task_id="fetch", luma_task_ids=ids, retry_delay=timedelta(0), **arguments
            )
        return run_dag(dag)

    return fetch


class TestRecords:
    @pytest.mark.parametrize("dialect", ["bare"], indirect=True)
    def test_the_documented_answer_gives_every_field_of_the_record(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        connected.fail_next("batch", faults.answer(200, ANSWER))

        run = fetch([SEED["id"]])

        assert run.xcom("fetch") == [RECORD]
        assert run.xcom("fetch", "video_urls") == [VIDEO]
        assert connected.calls[0].body == {"ids": [SEED["id"]]}

    @pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
    def test_both_dialects_give_the_same_record(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        fields = ("created_at", "request", "video", "video_raw", "thumbnail", "last_frame")
        connected.add_task(SEED["id"], state="completed", overrides={field: SEED[field] for field in fields})

        assert fetch([SEED["id"]]).xcom("fetch") == [RECORD]

    @pytest.mark.every_airflow
    def test_records_stand_in_the_order_of_the_ids_and_once_each(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed", prompt=f"number {n}") for n in range(5)])

        run = fetch([*ids, ids[0]])

        records = run.xcom("fetch")
        assert [record["id"] for record in records] == ids
        assert [record["prompt"] for record in records] == [f"number {n}" for n in range(5)]
        assert run.xcom("fetch", "video_urls") == [record["video_url"] for record in records]

    def test_urls_are_fetched_again_in_batches(
        self,
        fetch: Callable[..., Any],
        connected: LumaSandbox,
        connect: Callable[..., None],
    ) -> None:
        connect(connected.base_url, connected.api_key, batch_size=2)
        ids = connected.add_tasks([TaskScript(state="completed")] * 5)

        fetch(ids)
        fetch(ids)

        assert [len(call.ids) for call in connected.calls] == [2, 2, 1] * 2

    def test_no_ids_give_no_records_and_no_call(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        run = fetch([])

        assert run.xcom("fetch") == []
        assert run.xcom("fetch", "video_urls") == []
        assert connected.count("batch") == 0

    @pytest.mark.parametrize("template", ["{{ params.ids }}", "{{ params.ids | tojson }}"])
    def test_the_ids_may_be_a_template(
        self, fetch: Callable[..., Any], connected: LumaSandbox, template: str
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 2)

        run = fetch(template, params={"ids": Param(ids)})

        assert [record["id"] for record in run.xcom("fetch")] == ids

    def test_do_xcom_push_false_pushes_nothing(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        run = fetch([connected.add_task(state="completed")], do_xcom_push=False)

        assert run.task_state("fetch") == "success"
        assert run.xcom("fetch") is None
        assert run.xcom("fetch", "video_urls") is None


class TestHandingOn:
    def test_each_link_gets_a_mapped_task_of_its_own(
        self, run_dag: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 3)
        with DAG("onward", schedule=None) as dag:
            fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=ids)

            @task
            def publish(video_url: str) -> str:
                return video_url

            publish.expand(video_url=fetch.output.map(lambda record: record["video_url"]))

        run = run_dag(dag)

        urls = run.xcom("fetch", "video_urls")
        assert [run.xcom("publish", map_index=index) for index in range(3)] == urls
        assert all(task_id in url for task_id, url in zip(ids, urls, strict=True))

    def test_each_record_gets_a_mapped_task_of_its_own(
        self, run_dag: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 2)
        with DAG("onward", schedule=None) as dag:
            fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=ids)

            @task
            def publish(id: str, duration: float, **rest: Any) -> list[Any]:
                return [id, duration]

            publish.expand_kwargs(fetch.output)

        run = run_dag(dag)

        assert [run.xcom("publish", map_index=index)[0] for index in range(2)] == ids

    def test_all_links_go_to_one_task_as_a_list(
        self, run_dag: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 2)
        with DAG("onward", schedule=None) as dag:
            fetch = LumaFetchArtifactsOperator(task_id="fetch", luma_task_ids=ids)

            @task
            def publish(video_urls: Any) -> Any:
                return video_urls

            publish(XComArg(fetch, "video_urls"))

        run = run_dag(dag)

        assert run.xcom("publish") == run.xcom("fetch", "video_urls") != []


class TestMissingArtifacts:
    def test_a_failed_task_is_final_and_named_with_its_reason(
        self, fetch: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        good = connected.add_task(state="completed")
        bad = connected.add_task(state="failed", fails_with="moderation says no")

        run = fetch([good, bad], retries=2)

        assert run.task_state("fetch") == "failed"
        assert run.task("fetch").try_number == 1
        text = log_text()
        assert f"1 of 2 Luma tasks lack artifacts. {bad}: failed (moderation says no)" in text
        assert run.xcom("fetch") is None

    def test_an_unknown_id_is_final_and_named(
        self, fetch: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        run = fetch(["unknown-id"], retries=2)

        assert run.task_state("fetch") == "failed"
        assert run.task("fetch").try_number == 1
        assert "unknown-id: the relay doesn't know this id" in log_text()

    def test_a_task_that_is_not_finished_is_retried(
        self, fetch: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        slow = connected.add_task(state="processing")

        run = fetch([slow], retries=1)

        assert run.task_state("fetch") == "failed"
        assert run.task("fetch").try_number == 2
        assert f"{slow}: processing, no video" in log_text()

    def test_a_link_that_is_late_comes_with_a_retry(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        late = connected.add_task(state="completed", without_video_for=1)

        run = fetch([late], retries=1)

        assert run.task("fetch").try_number == 2
        assert run.xcom("fetch")[0]["id"] == late

    def test_one_that_can_still_come_makes_the_rest_worth_a_retry(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = [connected.add_task(state="processing"), connected.add_task(state="failed")]

        assert fetch(ids, retries=1).task("fetch").try_number == 2

    def test_only_the_chosen_artifacts_have_to_exist(
        self, fetch: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        bald = connected.add_task(
            state="completed",
            overrides={"artifact": None, "thumbnail": None, "video": {"thumbnail": None}},
        )

        assert fetch([bald], artifacts=["video", "last_frame"]).task_state("fetch") == "success"
        assert fetch([bald], artifacts=["video", "thumbnail"]).task_state("fetch") == "failed"
        assert f"{bald}: completed, no thumbnail" in log_text()

    def test_without_wanted_artifacts_every_record_comes_as_it_is(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        filtered = connected.add_task(state="completed", without_video=True)
        good = connected.add_task(state="completed")

        run = fetch([filtered, good], artifacts=[])

        assert [record["video_url"] is None for record in run.xcom("fetch")] == [True, False]
        assert run.xcom("fetch", "video_urls") == [run.xcom("fetch")[1]["video_url"]]

    def test_many_missing_ones_are_counted(
        self, fetch: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        fetch([f"unknown-{number}" for number in range(50)])

        text = log_text()
        assert "50 of 50 Luma tasks lack artifacts" in text
        assert "and 30 more" in text

    def test_an_illegible_record_is_retried(
        self, fetch: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        broken = connected.add_task(state="completed", overrides={"state": 17}, row_overrides={"status": 17})

        run = fetch([broken], retries=1)

        assert run.task("fetch").try_number == 2
        assert f"{broken}: the relay's record of this task can't be read" in log_text()


class TestRelayErrors:
    def test_a_wrong_key_is_final(
        self,
        fetch: Callable[..., Any],
        connected: LumaSandbox,
        connect: Callable[..., None],
        log_text: Callable[[], str],
    ) -> None:
        connect(connected.base_url, "wrong-key")

        run = fetch([connected.add_task(state="completed")], retries=2)

        assert run.task_state("fetch") == "failed"
        assert run.task("fetch").try_number == 1
        assert "refuses the API key" in log_text()

    def test_a_web_page_in_place_of_an_answer_is_retried(
        self, fetch: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        connected.fail_next("batch", faults.ok_html())

        run = fetch([connected.add_task(state="completed")], retries=1)

        assert run.task_state("fetch") == "success"
        assert run.task("fetch").try_number == 2


class TestManifest:
    @pytest.mark.parametrize("form", ["path", "url", "object"])
    def test_records_go_to_the_file_and_xcom_stays_small(
        self, fetch: Callable[..., Any], connected: LumaSandbox, tmp_path: Path, form: str
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 120)
        path = tmp_path / "a folder" / "run.jsonl"
        url = f"file://{path}"
        given = {"path": str(path), "url": url, "object": ObjectStoragePath(url)}[form]

        run = fetch(ids, manifest_path=given)

        returned = run.xcom("fetch")
        assert returned["count"] == 120
        assert set(returned) == {"manifest_path", "count"}
        assert ObjectStoragePath(returned["manifest_path"]).read_text() == path.read_text()
        assert run.xcom("fetch", "video_urls") is None
        lines = path.read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == ids
        assert set(json.loads(lines[0])) == set(RECORD)

    def test_a_template_names_the_file(
        self, fetch: Callable[..., Any], connected: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = connected.add_task(state="completed", prompt="eine Katze, die tanzt: 猫")

        run = fetch(
            [task_id],
            manifest_path="{{ params.folder }}/{{ dag.dag_id }}.jsonl",
            params={"folder": Param(str(tmp_path))},
        )

        (line,) = (tmp_path / "fetch.jsonl").read_text().splitlines()
        assert json.loads(line)["prompt"] == "eine Katze, die tanzt: 猫"
        assert run.xcom("fetch")["manifest_path"].endswith("/fetch.jsonl")

    def test_an_old_manifest_is_replaced_only_by_a_whole_new_one(
        self, fetch: Callable[..., Any], connected: LumaSandbox, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.jsonl"
        path.write_text("old\n" * 1000)

        fetch([connected.add_task(state="failed")], manifest_path=str(path))
        assert path.read_text() == "old\n" * 1000

        task_id = connected.add_task(state="completed")
        fetch([task_id], manifest_path=str(path))
        assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [task_id]

    def test_no_records_make_an_empty_manifest(
        self, fetch: Callable[..., Any], connected: LumaSandbox, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.jsonl"

        run = fetch([], manifest_path=str(path))

        assert path.read_text() == ""
        assert run.xcom("fetch")["count"] == 0

    @pytest.mark.every_airflow
    def test_the_next_task_reads_the_manifest(
        self, run_dag: Callable[..., Any], connected: LumaSandbox, tmp_path: Path
    ) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 3)
        with DAG("onward", schedule=None) as dag:
            fetch = LumaFetchArtifactsOperator(
                task_id="fetch", luma_task_ids=ids, manifest_path=f"file://{tmp_path}/run.jsonl"
            )

            @task
            def read(manifest: Any) -> list[str]:
                lines = ObjectStoragePath(manifest["manifest_path"]).read_text().splitlines()
                return [json.loads(line)["id"] for line in lines]

            read(fetch.output)

        assert run_dag(dag).xcom("read") == ids
