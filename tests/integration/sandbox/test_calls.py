# SPDX-License-Identifier: Apache-2.0
"""The relay's calls as a client sees them, and their records."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_luma.sandbox import LumaSandbox, TaskScript
from tests.support.patience import PATIENCE


class TestQueries:
    def test_a_batch_answers_the_tasks_that_it_knows(self, sandbox: LumaSandbox, client: Any) -> None:
        done, failed = (
            sandbox.add_task(state="completed"),
            sandbox.add_task(state="failed", fails_with="moderated"),
        )
        answer = client.batch(done, failed, "unknown")
        assert answer.status_code == 200
        assert {task["id"]: task["state"] for task in answer.json()} == {done: "completed", failed: "failed"}

    def test_a_single_query_answers_one_task(self, sandbox: LumaSandbox, client: Any) -> None:
        task_id = sandbox.add_task(state="processing")
        assert client.single(task_id).json()["state"] == "processing"

    def test_a_single_query_for_an_unknown_task_is_a_400(self, client: Any) -> None:
        answer = client.single("unknown")
        assert (answer.status_code, answer.json()["code"]) == (400, "task_not_exist")

    @pytest.mark.parametrize("body", [{}, {"ids": "one"}, {"ids": [5]}, [], None])
    def test_a_batch_without_a_list_of_ids_is_a_400(self, client: Any, body: object) -> None:
        assert client.request("POST", "/luma/tasks", json=body).status_code == 400

    def test_a_body_that_is_not_json_is_a_400(self, client: Any) -> None:
        assert client.request("POST", "/luma/tasks", data=b"{\xff").status_code == 400

    def test_tasks_follow_advance(self, sandbox: LumaSandbox, client: Any) -> None:
        task_id = sandbox.add_task()
        seen = []
        for seconds in (0, 3, 6):
            sandbox.advance(seconds)
            seen.append(client.single(task_id).json()["state"])
        assert seen == ["pending", "processing", "completed"]

    def test_tasks_follow_the_clock(self, client_of: Any) -> None:
        with LumaSandbox(pending_seconds=0.05, processing_seconds=0.05) as sandbox:
            client = client_of(sandbox)
            task_id = sandbox.add_task()
            deadline = time.monotonic() + PATIENCE
            while client.single(task_id).json()["state"] != "completed":
                assert time.monotonic() < deadline
            answered_at, completed_at = sandbox.when(task_id).first_answered_at, sandbox.completed_at(task_id)
            assert answered_at is not None
            assert completed_at is not None
            assert answered_at >= completed_at

    def test_the_envelope_wraps_every_answer(self, client_of: Any) -> None:
        with LumaSandbox(dialect="envelope") as sandbox:
            client = client_of(sandbox)
            task_id = sandbox.add_task(state="completed")
            assert client.batch("unknown").json() == {"code": "success", "message": "", "data": None}
            assert client.batch(task_id).json()["data"][0]["data"]["id"] == task_id
            assert client.single(task_id).json()["data"]["task_id"] == task_id
            assert client.submit().json()["data"]["status"] == "NOT_START"
            url = client.request("GET", f"/luma/generations/{task_id}/download_video_url").json()["data"][
                "url"
            ]
            assert url.endswith(f"/media/{task_id}/video.mp4")


class TestAccess:
    @pytest.mark.parametrize("key", [None, "Bearer wrong", "sandbox-key", "Bearer schlüssel".encode()])
    def test_a_wrong_key_is_a_401(self, client: Any, key: str | bytes | None) -> None:
        headers = {} if key is None else {"Authorization": key}
        answer = client.batch("one", headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "new_api_error")

    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/luma/task"), ("GET", "/luma/tasks"), ("DELETE", "/luma/generations/x"), ("GET", "/")],
    )
    def test_a_path_that_it_does_not_have_is_an_invalid_url(
        self, sandbox: LumaSandbox, client: Any, method: str, path: str
    ) -> None:
        answer = client.request(method, path)
        assert answer.status_code == 404
        assert f"Invalid URL ({method} {path})" in answer.text
        assert sandbox.count("unknown") == 1

    def test_a_prefix_is_part_of_the_base_url_and_nothing_answers_without_it(self, client_of: Any) -> None:
        with LumaSandbox(prefix="/x/y") as sandbox:
            client = client_of(sandbox)
            assert sandbox.base_url == f"http://127.0.0.1:{sandbox.port}/x/y"
            assert client.batch("one").json() == []
            bare = client.session.post(
                f"{sandbox.root_url}/luma/tasks", json={"ids": []}, headers=client.headers
            )
            assert bare.status_code == 404

    def test_every_answer_sets_a_cookie(self, client: Any) -> None:
        for answer in (client.batch("one"), client.single("unknown"), client.request("GET", "/nowhere")):
            assert "session=" in answer.headers["set-cookie"]


class TestSubmits:
    def test_a_submit_is_answered_and_counted_once(self, sandbox: LumaSandbox, client: Any) -> None:
        answer = client.submit("a cat", resolution="720p", mystery=[1, 2])
        (generation,) = sandbox.generations
        assert (answer.status_code, answer.json()["id"]) == (200, generation.id)
        assert generation.body == {"user_prompt": "a cat", "resolution": "720p", "mystery": [1, 2]}
        assert generation.at == pytest.approx(time.time(), abs=60)
        assert sandbox.calls[-1].generation == generation.id

    def test_a_submit_can_answer_201(self, client_of: Any) -> None:
        with LumaSandbox(submit_status=201) as sandbox:
            assert client_of(sandbox).submit().status_code == 201

    def test_an_extend_is_a_generation_with_a_parent(self, sandbox: LumaSandbox, client: Any) -> None:
        parent = sandbox.add_task(state="completed")
        child = client.extend(parent).json()["id"]
        assert [(generation.id, generation.parent) for generation in sandbox.generations] == [(child, parent)]

    def test_refusals_are_no_generations(self, sandbox: LumaSandbox, client: Any) -> None:
        statuses = [client.submit("ab").status_code, client.submit("so nsfw").status_code]
        statuses.append(client.extend("unknown").status_code)
        assert statuses == [400, 400, 400]
        assert sandbox.generations == []

    def test_a_used_up_balance_is_a_403(self, client_of: Any) -> None:
        with LumaSandbox(balance_usd=0.5, price_usd=0.2) as sandbox:
            client = client_of(sandbox)
            assert [client.submit().status_code for _ in range(3)] == [200, 200, 403]
            subscription = client.request("GET", "/v1/dashboard/billing/subscription").json()
            usage = client.request("GET", "/v1/dashboard/billing/usage").json()
            assert (subscription["hard_limit_usd"], usage["total_usage"]) == (0.5, 40.0)
            assert (sandbox.balance, sandbox.spent_usd) == (0.1, 0.4)

    def test_an_unlimited_key_has_a_high_limit(self, client: Any) -> None:
        subscription = client.request("GET", "/v1/dashboard/billing/subscription").json()
        assert subscription["hard_limit_usd"] == 100_000_000


class TestDownloadUrl:
    def test_it_returns_the_url_of_the_video(self, sandbox: LumaSandbox, client: Any) -> None:
        task_id = sandbox.add_task(state="completed")
        url = client.request("GET", f"/luma/generations/{task_id}/download_video_url").json()["url"]
        assert client.session.get(url, timeout=PATIENCE).content[4:8] == b"ftyp"

    @pytest.mark.parametrize("state", [None, "processing"])
    def test_without_a_video_it_is_a_400(self, sandbox: LumaSandbox, client: Any, state: str | None) -> None:
        task_id = sandbox.add_task(state=state) if state else "unknown"
        assert client.request("GET", f"/luma/generations/{task_id}/download_video_url").status_code == 400


class TestRecords:
    def test_a_call_is_recorded_with_request_and_answer(self, sandbox: LumaSandbox, client: Any) -> None:
        before = time.monotonic()
        client.batch("one", "two")
        (call,) = sandbox.calls
        assert (call.name, call.method, call.path, call.status) == ("batch", "POST", "/luma/tasks", 200)
        assert (call.ids, call.body) == (("one", "two"), {"ids": ["one", "two"]})
        assert call.headers["authorization"] == "Bearer sandbox-key"
        assert before <= call.monotonic <= time.monotonic()

    def test_calls_are_counted_by_kind(self, sandbox: LumaSandbox, client: Any) -> None:
        client.batch("one")
        client.batch("one")
        client.single("one")
        client.submit()
        assert {name: count for name, count in sandbox.counts.items() if count} == {
            "batch": 2,
            "single": 1,
            "submit": 1,
        }

    def test_reset_forgets(self, sandbox: LumaSandbox, client: Any) -> None:
        client.submit()
        sandbox.reset()
        assert (sandbox.generations, sandbox.calls) == ([], [])

    def test_ten_thousand_tasks_are_added_at_once(self, sandbox: LumaSandbox, client: Any) -> None:
        ids = sandbox.add_tasks([TaskScript(state="completed")] * 10_000)
        assert len(set(ids)) == 10_000
        assert {task["id"] for task in client.batch(*ids[:100]).json()} == set(ids[:100])

    def test_a_wrong_script_is_an_error_that_names_the_field(self, sandbox: LumaSandbox) -> None:
        with pytest.raises(ValueError, match="colour"):
            sandbox.add_task(colour="red")
        with pytest.raises(ValueError, match=r"completes_after.*-1"):
            sandbox.add_task(completes_after=-1)
