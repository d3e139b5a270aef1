# SPDX-License-Identifier: Apache-2.0
"""The submit operators in real Dag runs: what they return, push, log and show, and what was bought."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_luma.operators import base as submit_module
from airflow_provider_luma.operators.artifacts import LumaFetchArtifactsOperator
from airflow_provider_luma.operators.generate import (
    LumaExtendVideoOperator,
    LumaGenerateVideoOperator,
    LumaGenerateVideosOperator,
)
from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS
from tests.support.patience import end_execution_timeout

IMAGE = "data:image/png;base64," + "iVBORw0KGgo" * 10_000
WAITS = {
    "in a worker": {"wait_for_completion": True, "deferrable": False, "poll_interval": 0.2},
    "deferred": {"wait_for_completion": True, "deferrable": True, "poll_interval": 0.2},
}


@pytest.fixture
def dialect() -> str:
    # Both dialects are told apart below the operators, and tested there.
    return "envelope"


@pytest.fixture(params=list(WAITS))
def waits(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAITS[request.param]


@pytest.fixture
def run_one(run_dag: Callable[..., Any], connected: LumaSandbox) -> Callable[..., Any]:
    """Run a Dag of one task, ``buy``, to its end; the result's ``errors`` are the words of its errors."""

    def run(
        operator: type[Any],
        *,
        dag_arguments: dict[str, Any] | None = None,
        between_tries: Callable[[], object] = lambda: None,
        **arguments: Any,
    ) -> Any:
        errors: list[str] = []

        def note(context: Any) -> None:
            # Airflow 3.1.0 doesn't say it.
            errors.append(str(context.get("exception")))

        common: dict[str, Any] = {
            "task_id": "buy",
            "retry_delay": timedelta(0),
            "on_failure_callback": note,
            "on_retry_callback": [note, lambda context: between_tries()],
        }
        with DAG("generate", schedule=None, **(dag_arguments or {})) as dag:
            operator(**{**common, **arguments})
        result = run_dag(dag)
        result.errors = errors
        return result

    return run


def bought(sandbox: LumaSandbox) -> list[str]:
    return [generation.prompt for generation in sandbox.generations]


def requests(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt} for prompt in prompts]


class TestOneVideo:
    def test_all_fields_are_rendered_and_sent(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        run = run_one(
            LumaGenerateVideoOperator,
            dag_arguments={"params": {"animal": "fox", "loop": False}},
            prompt="a red {{ params.animal }}",
            model_name="ray-{{ 'v2' }}",
            duration="5s",
            resolution="720p",
            aspect_ratio="{{ '9:16' }}",
            image_url=IMAGE,
            loop="{{ params.loop }}",
            expand_prompt=True,
            notify_hook="https://example.com/{{ run_id | length }}",
            extra_fields={"seed": 7, "style": "{{ params.animal }}-like"},
        )

        (generation,) = connected.generations
        assert run.xcom("buy") == generation.id
        assert generation.body == {
            "user_prompt": "a red fox",
            "model_name": "ray-v2",
            "duration": "5s",
            "resolution": "720p",
            "aspect_ratio": "9:16",
            "image_url": IMAGE,
            "loop": False,
            "expand_prompt": True,
            "notify_hook": f"https://example.com/{len(run.run_id)}",
            "seed": 7,
            "style": "fox-like",
        }

    def test_its_id_prompt_and_time_are_an_xcom(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        run = run_one(LumaGenerateVideoOperator, prompt="x" * 600)

        ((task_id, told),) = run.xcom("buy", "luma_tasks").items()
        assert task_id == run.xcom("buy")
        assert told["index"] == 0
        assert told["prompt"] == "x" * 500 + "… (600 characters)"
        assert told["submitted_at"].startswith("20")

    @pytest.mark.every_airflow
    def test_waiting_returns_the_record_that_the_fetch_operator_returns(
        self, run_dag: Callable[..., Any], connected: LumaSandbox, waits: dict[str, Any]
    ) -> None:
        with DAG("generate", schedule=None) as dag:
            buy = LumaGenerateVideoOperator(task_id="buy", prompt="a red fox", **waits)
            LumaFetchArtifactsOperator(
                task_id="fetch",
                luma_task_ids="{{ ti.xcom_pull('buy', key='luma_tasks') | list | tojson }}",
            ).set_upstream(buy)
        run = run_dag(dag)

        assert run.xcom("buy")["video_url"]
        assert [run.xcom("buy")] == run.xcom("fetch")
        assert run.xcom("buy", "failed") == {}
        assert len(connected.generations) == 1

    def test_a_video_that_fails_fails_the_task_without_retries(
        self,
        run_one: Callable[..., Any],
        connect: Callable[..., None],
        waits: dict[str, Any],
    ) -> None:
        with LumaSandbox(moderation="fail", pending_seconds=0, processing_seconds=0.1) as relay:
            connect(relay.base_url, relay.api_key)
            run = run_one(LumaGenerateVideoOperator, prompt="something nsfw", retries=3, **waits)

            assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
            assert list(run.xcom("buy", "failed").values()) == ["the content was refused by moderation"]
            assert len(relay.generations) == 1

    def test_a_record_that_vanishes_after_the_wait_is_asked_for_again(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        connected.fail_next("batch", faults.answer(200, '{"code": "success", "data": null}'), skip=1)
        run = run_one(
            LumaGenerateVideoOperator,
            prompt="a red fox",
            retries=1,
            **{**WAITS["in a worker"], "poll_interval": 0.4},
        )

        assert len(connected.generations) == 1
        if AIRFLOW_V_3_3_PLUS:
            assert run.task_state("buy") == "success"
            assert "left them out of an answer" in run.errors[0]

    def test_a_retry_waits_for_the_same_video(
        self, run_one: Callable[..., Any], connect: Callable[..., None], waits: dict[str, Any]
    ) -> None:
        with LumaSandbox(pending_seconds=3600, processing_seconds=3600) as relay:
            connect(relay.base_url, relay.api_key)
            run = run_one(
                LumaGenerateVideoOperator,
                prompt="a red fox",
                retries=9,
                timeout=0.5,
                between_tries=lambda: relay.advance(7200),
                **waits,
            )

            assert run.task_state("buy") == "success"
            assert run.task("buy").try_number > 1
            assert run.xcom("buy")["id"] == relay.generations[0].id
            assert len(relay.generations) == 1
            assert "the timeout of 0.5 s" in run.errors[0]


class TestExtension:
    @pytest.mark.every_airflow
    def test_submit_extend_and_fetch(self, run_dag: Callable[..., Any], connected: LumaSandbox) -> None:
        with DAG("generate", schedule=None) as dag:
            buy = LumaGenerateVideoOperator(task_id="buy", prompt="a red fox", **WAITS["deferred"])
            extend = LumaExtendVideoOperator(
                task_id="extend",
                luma_task_id="{{ ti.xcom_pull('buy')['id'] }}",
                prompt="it runs away",
                **WAITS["deferred"],
            )
            buy >> extend
        run = run_dag(dag)

        first, second = connected.generations
        assert (second.parent, second.prompt) == (first.id, "it runs away")
        assert run.xcom("extend")["id"] == second.id

    def test_one_id_is_right(self, run_one: Callable[..., Any], connected: LumaSandbox) -> None:
        run = run_one(
            LumaExtendVideoOperator, luma_task_id="{{ ['a', 'b'] }}", prompt="it runs away", retries=2
        )

        assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
        assert "luma_task_id is a, b: one id is right" in run.errors[0]


class TestList:
    def test_ids_come_back_in_the_order_of_the_requests(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        prompts = [f"prompt {number}" for number in range(60)]
        run = run_one(LumaGenerateVideosOperator, requests=requests(*prompts), max_concurrency=4)

        ids = {generation.prompt: generation.id for generation in connected.generations}
        assert run.xcom("buy") == [ids[prompt] for prompt in prompts]
        assert len(connected.generations) == 60
        assert {told["index"] for told in run.xcom("buy", "luma_tasks").values()} == set(range(60))

    @pytest.mark.every_airflow
    def test_two_of_twenty_may_be_refused(
        self, run_one: Callable[..., Any], connected: LumaSandbox, waits: dict[str, Any]
    ) -> None:
        prompts = [f"prompt {number}{' nsfw' if number in (3, 17) else ''}" for number in range(20)]
        run = run_one(LumaGenerateVideosOperator, requests=requests(*prompts), max_failed=2, **waits)

        assert run.task_state("buy") == "success"
        assert [record["prompt"] for record in run.xcom("buy")] == [p for p in prompts if "nsfw" not in p]
        refused = run.xcom("buy", "refused")
        assert [(one["index"], one["prompt"]) for one in refused] == [
            (3, "prompt 3 nsfw"),
            (17, "prompt 17 nsfw"),
        ]
        assert all("prompt was refused by moderation" in one["reason"] for one in refused)

    def test_refused_and_failed_ones_count_together(
        self, run_one: Callable[..., Any], connected: LumaSandbox, waits: dict[str, Any]
    ) -> None:
        moderated = '{"code": "prompt_moderated", "message": "refused by moderation", "data": null}'
        connected.fail_when("submit", faults.answer(400, moderated), containing="bad")
        connected.relay.settings = msgspec.structs.replace(connected.settings, moderation="fail")
        arguments = {"requests": requests("good one", "bad one", "nsfw one"), "retries": 2, **waits}

        failed = run_one(LumaGenerateVideosOperator, max_failed=1, **arguments)
        tolerated = run_one(LumaGenerateVideosOperator, max_failed=2, **arguments)

        assert (failed.task_state("buy"), failed.task("buy").try_number) == ("failed", 1)
        assert tolerated.task_state("buy") == "success"
        assert [record["prompt"] for record in tolerated.xcom("buy")] == ["good one"]
        assert len(tolerated.xcom("buy", "failed")) == len(tolerated.xcom("buy", "refused")) == 1

    def test_when_all_are_refused_there_is_nothing_to_wait_for(
        self, run_one: Callable[..., Any], connected: LumaSandbox, waits: dict[str, Any]
    ) -> None:
        run = run_one(
            LumaGenerateVideosOperator, requests=requests("nsfw 1", "nsfw 2"), max_failed=None, **waits
        )

        assert run.task_state("buy") == "success"
        assert run.xcom("buy") == []
        assert connected.count("batch") == 0

    @pytest.mark.parametrize("given", [[], "[]", "{{ [] }}"])
    def test_an_empty_list_returns_an_empty_list_without_a_call(
        self, run_one: Callable[..., Any], connected: LumaSandbox, waits: dict[str, Any], given: Any
    ) -> None:
        run = run_one(LumaGenerateVideosOperator, requests=given, **waits)

        assert run.task_state("buy") == "success"
        assert run.xcom("buy") == []
        assert connected.calls == []

    def test_used_up_money_ends_it_and_what_was_bought_is_told(
        self, run_one: Callable[..., Any], connect: Callable[..., None]
    ) -> None:
        with LumaSandbox(balance_usd=1.0, price_usd=0.32) as relay:
            connect(relay.base_url, relay.api_key)
            prompts = [f"prompt {number}" for number in range(8)]
            run = run_one(LumaGenerateVideosOperator, requests=requests(*prompts), retries=3)

            assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
            assert relay.count("submit") == 4
            assert list(run.xcom("buy", "luma_tasks")) == [bought.id for bought in relay.generations]
            (error,) = run.errors
            assert "用户额度不足" in error
            assert "Submitted and billed: 3 (" in error
            assert "Without an id: 5 (requests 3, 4, 5, 6, 7)." in error

    def test_requests_may_come_from_another_task(
        self, run_dag: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        with DAG("generate", schedule=None) as dag:

            @task
            def write() -> list[dict[str, Any]]:
                return requests("{{ not a template }}", "another")

            written = write()
            LumaGenerateVideosOperator(task_id="buy", requests=written)
            LumaGenerateVideosOperator(
                task_id="text", requests="{{ ti.xcom_pull('write') | tojson }}"
            ).set_upstream(written)
        run = run_dag(dag)

        assert run.state == "success"
        assert Counter(bought(connected)) == {"{{ not a template }}": 2, "another": 2}

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("{{ 'no' }}", "requests is the text 'no', which is not JSON"),
            ("{{ {'prompt': 'a fox'} | tojson }}", "requests is {'prompt': 'a fox'}: give a list"),
            ("{{ [{'prompt': 'ok!'}, {'prompt': 'no'}] | tojson }}", r"requests[1]: prompt must have 3 to 5000 characters"),
            ("{{ ['a fox'] | tojson }}", "requests[0]: a request must have"),
        ],
    )
    def test_requests_that_render_to_something_else_are_refused_before_anything_is_sent(
        self, run_one: Callable[..., Any], connected: LumaSandbox, given: str, words: str
    ) -> None:
        run = run_one(LumaGenerateVideosOperator, requests=given, retries=2)

        assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
        assert words in run.errors[0]
        assert connected.calls == []


class TestRetries:
    @pytest.mark.every_airflow
    def test_a_retry_goes_on_with_the_first_that_was_not_sent(
        self, run_one: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        prompts = [f"prompt {number}" for number in range(30)]
        connected.fail_next("submit", faults.too_many_requests(), skip=27)
        run = run_one(LumaGenerateVideosOperator, requests=requests(*prompts), retries=1)

        assert run.task_state("buy") == "success"
        assert bought(connected) == prompts
        assert run.xcom("buy") == [generation.id for generation in connected.generations]
        assert list(run.xcom("buy", "luma_tasks")) == run.xcom("buy")
        assert "of 30 requests 27 are submitted, 0 refused, 3 to be sent" in log_text()

    @pytest.mark.parametrize("most", [1, 3])
    @pytest.mark.every_airflow
    def test_an_execution_timeout_in_mid_list_loses_and_repeats_nothing(
        self, run_one: Callable[..., Any], connected: LumaSandbox, most: int
    ) -> None:
        prompts = [f"prompt {number}" for number in range(12)]
        numbers = itertools.count(1)
        connected.fail_when(
            "submit",
            faults.latency(0.3),
            lambda call: next(numbers) % 4 or end_execution_timeout(),
            accepted=True,
        )
        run = run_one(
            LumaGenerateVideosOperator,
            requests=requests(*prompts),
            execution_timeout=timedelta(hours=1),
            max_concurrency=most,
            retries=12,
        )

        assert run.task("buy").try_number > 1
        assert set(Counter(bought(connected)).values()) == {1}
        if AIRFLOW_V_3_3_PLUS:
            assert run.task_state("buy") == "success"
            assert sorted(bought(connected)) == sorted(prompts)
            assert set(run.xcom("buy")) == {generation.id for generation in connected.generations}
        else:
            # A second try knows nothing of the first, and sends nothing.
            assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 2)

    @pytest.mark.every_airflow
    def test_changed_inputs_buy_what_is_new_and_say_so(
        self, run_one: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        connected.fail_when("submit", faults.too_many_requests(), containing="last", times=1)
        run = run_one(
            LumaGenerateVideosOperator,
            requests=requests("first", "try {{ ti.try_number }}", "last"),
            retries=1,
        )

        assert run.task_state("buy") == "success"
        if AIRFLOW_V_3_3_PLUS:
            assert bought(connected) == ["first", "try 1", "try 2", "last"]
            ids = [generation.id for generation in connected.generations]
            assert run.xcom("buy") == [ids[0], ids[2], ids[3]]
            text = log_text()
            assert "The inputs have changed since an earlier try" in text
            assert f"1 Luma tasks of the earlier inputs go on and are billed: {ids[1]}" in text

    def test_resubmit_sends_an_unclear_request_again_and_warns(
        self, run_one: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        connected.fail_when("submit", faults.drop(), containing="second", times=1, accepted=True)
        run = run_one(
            LumaGenerateVideosOperator,
            requests=requests("first", "second", "third"),
            retries=1,
            on_ambiguous="resubmit",
        )

        assert run.task_state("buy") == "success"
        if AIRFLOW_V_3_3_PLUS:
            assert bought(connected) == ["first", "second", "second", "third"]
            assert "may be billed twice" in log_text()

    @pytest.mark.every_airflow
    def test_an_unclear_request_stops_the_list_and_the_ids_so_far_are_told(
        self, run_one: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        connected.fail_when("submit", faults.bad_gateway(), containing="second", accepted=True)
        run = run_one(LumaGenerateVideosOperator, requests=requests("first", "second", "third"), retries=3)

        assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
        assert bought(connected) == ["first", "second"]
        assert list(run.xcom("buy", "luma_tasks")) == [connected.generations[0].id]
        assert "Without an id: 2 (requests 1, 2)." in log_text()

    @pytest.mark.parametrize("wait", [0.8, 1.5])
    def test_retry_after_is_waited_for(
        self, run_one: Callable[..., Any], connected: LumaSandbox, wait: float
    ) -> None:
        connected.fail_next("submit", faults.too_many_requests(retry_after=wait, http_date=True))
        run_one(LumaGenerateVideoOperator, prompt="a red fox", retries=1)

        first, second = (call.monotonic for call in connected.calls if call.name == "submit")
        # An HTTP date holds whole seconds.
        assert second - first > wait - 1


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 brings the task state store")
@pytest.mark.parametrize("is_lost", [False, True])
def test_state_in_an_object_storage_that_loses_it_is_an_error_and_buys_nothing(
    run_one: Callable[..., Any],
    connected: LumaSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_lost: bool,
) -> None:
    backend = pytest.importorskip("airflow.providers.common.io.state_store.backend")
    # Airflow reads its configuration once in a worker's life.
    path, made = ObjectStoragePath(f"file://{tmp_path}"), backend.StateStoreObjectStorageBackend()
    monkeypatch.setattr(backend, "_get_base_path", lambda: path)
    monkeypatch.setattr("airflow.sdk.execution_time.context._get_worker_state_store_backend", lambda: made)
    connected.fail_next("submit", faults.too_many_requests(), skip=1)
    errors: list[str] = []

    def note(context: Any) -> None:
        errors.append(str(context["exception"]))
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert files
        for file in files if is_lost else []:
            file.unlink()

    run = run_one(
        LumaGenerateVideosOperator,
        requests=requests("first", "second"),
        retries=1,
        on_retry_callback=note,
        on_failure_callback=lambda context: errors.append(str(context["exception"])),
    )

    assert bought(connected) == (["first"] if is_lost else ["first", "second"])
    assert run.task_state("buy") == ("failed" if is_lost else "success")
    assert not is_lost or "has lost the value of 'luma_submits_1_0'" in errors[-1]


class TestWithoutAStore:
    """As on an Airflow before 3.3, which keeps nothing between tries."""

    @pytest.fixture(autouse=True)
    def nothing_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(submit_module, "task_state_store", lambda context: None)

    def test_passing_refusals_are_retried_within_the_first_try(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        prompts = [f"prompt {number}" for number in range(5)]
        connected.fail_when("submit", faults.too_many_requests(), containing="prompt 3", times=2)
        run = run_one(LumaGenerateVideosOperator, requests=requests(*prompts), retries=2)

        assert (run.task_state("buy"), run.task("buy").try_number) == ("success", 1)
        assert bought(connected) == prompts

    def test_and_no_longer_than_there_are_retries(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        connected.fail_when("submit", faults.too_many_requests())
        run = run_one(LumaGenerateVideoOperator, prompt="a red fox", retries=2)

        assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
        assert connected.count("submit") == 3

    def test_a_second_try_sends_nothing_and_says_why(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        connected.fail_when(
            "submit", faults.latency(0.5), lambda call: end_execution_timeout(), accepted=True
        )
        run = run_one(
            LumaGenerateVideosOperator,
            requests=requests("first", "second", "third"),
            execution_timeout=timedelta(hours=1),
            retries=5,
        )

        assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 2)
        assert bought(connected) == ["first"]
        assert "keeps nothing between tries" in run.errors[-1]
        assert "clear this task" in run.errors[-1]

    def test_a_timeout_of_the_wait_does_not_cost_a_retry_that_could_not_help(
        self, run_one: Callable[..., Any], connect: Callable[..., None], waits: dict[str, Any]
    ) -> None:
        with LumaSandbox(pending_seconds=36_000) as relay:
            connect(relay.base_url, relay.api_key)
            run = run_one(LumaGenerateVideoOperator, prompt="a red fox", timeout=0.5, retries=3, **waits)

            assert (run.task_state("buy"), run.task("buy").try_number) == ("failed", 1)
            assert len(relay.generations) == 1

    def test_every_id_is_an_xcom_at_once(
        self, run_one: Callable[..., Any], connected: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed: list[int] = []
        push = submit_module.LumaSubmitOperator._push

        def note(self: Any, context: Any, **xcoms: Any) -> None:
            pushed.extend(len(value) for key, value in xcoms.items() if key == "luma_tasks")
            push(self, context, **xcoms)

        monkeypatch.setattr(submit_module.LumaSubmitOperator, "_push", note)
        run_one(LumaGenerateVideosOperator, requests=requests("first", "second", "third"))

        assert pushed[:3] == [1, 2, 3]


class TestWhatIsShown:
    """Prompts and images don't flood what people look at."""

    def rendered(self, run: Any, task_id: str, map_index: int = -1) -> dict[str, Any]:
        fields = RenderedTaskInstanceFields.get_templated_fields(run.task(task_id, map_index))
        assert fields is not None
        return fields

    @pytest.mark.every_airflow
    def test_airflow_cuts_rendered_fields_and_what_is_sent_is_whole(
        self, run_dag: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        long_prompt = "a very long story " * 200
        with DAG("generate", schedule=None) as dag:
            LumaGenerateVideoOperator(
                task_id="one", prompt=long_prompt, image_url=IMAGE, extra_fields={"mask": IMAGE}
            )
            LumaGenerateVideosOperator(
                task_id="list", requests=[{"prompt": long_prompt, "image_url": IMAGE}, {"prompt": "short"}]
            )
            LumaGenerateVideoOperator.partial(task_id="mapped", image_url=IMAGE).expand(
                prompt=[long_prompt, "short"]
            )
            LumaExtendVideoOperator(
                task_id="extend",
                luma_task_id=connected.add_task(state="completed"),
                prompt=long_prompt,
                image_end_url=IMAGE,
            )
        run = run_dag(dag)

        assert run.state == "success"
        for task_id, map_index in (("one", -1), ("list", -1), ("mapped", 0), ("mapped", 1), ("extend", -1)):
            shown = self.rendered(run, task_id, map_index)
            assert max(len(str(value)) for value in shown.values()) < 5000
        assert self.rendered(run, "one")["prompt"] == long_prompt
        assert self.rendered(run, "mapped", 1)["prompt"] == "short"
        assert IMAGE[:300] not in log_text()
        bodies = [generation.body for generation in connected.generations]
        assert Counter(body.get("image_url") for body in bodies) == {IMAGE: 4, None: 2}
        assert sum(body["user_prompt"] == long_prompt for body in bodies) == 4
        assert run.xcom("mapped", map_index=1) in [generation.id for generation in connected.generations]

    def test_what_is_set_after_rendering_is_what_is_sent(
        self, run_dag: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        class Polite(LumaGenerateVideoOperator):
            def pre_execute(self, context: Any) -> None:
                self.prompt = f"{self.prompt}, please"

        class PoliteList(LumaGenerateVideosOperator):
            def execute(self, context: Any) -> Any:
                self.requests = [{**request, "duration": "5s"} for request in self.requests]
                return super().execute(context)

        with DAG("generate", schedule=None, params={"animal": "fox"}) as dag:
            Polite(task_id="one", prompt="a red {{ params.animal }}")
            Polite.partial(task_id="mapped").expand(prompt=["a blue {{ params.animal }}"])
            PoliteList(task_id="list", requests=[{"prompt": "a grey {{ params.animal }}"}])
        run = run_dag(dag)

        assert run.state == "success"
        bodies = {generation.prompt: generation.body for generation in connected.generations}
        assert set(bodies) == {"a red fox, please", "a blue fox, please", "a grey fox"}
        assert bodies["a grey fox"]["duration"] == "5s"

    def test_errors_show_long_texts_cut(
        self, run_one: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        connected.fail_when("submit", faults.drop())
        run = run_one(LumaGenerateVideoOperator, prompt="long " * 900, image_url=IMAGE)

        assert run.task_state("buy") == "failed"
        assert len(run.errors[0]) < 1500
        assert IMAGE[:300] not in log_text()

    @pytest.mark.every_airflow
    def test_the_link_to_the_videos_is_there_for_good_failed_and_mapped_tasks(
        self, run_dag: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        connected.fail_when("submit", faults.unauthorized(), containing="bad")
        with DAG("generate", schedule=None) as dag:
            LumaGenerateVideoOperator(task_id="good", prompt="good")
            LumaGenerateVideoOperator(task_id="bad", prompt="bad one")
            LumaGenerateVideoOperator.partial(task_id="mapped").expand(prompt=["good", "bad one"])
        run = run_dag(dag)

        key = "_link_LumaVideosLink"
        assert run.task_state("bad") == run.task_state("mapped", 1) == "failed"
        assert run.xcom("good", key).endswith("/tasks/good/plugin/luma")
        assert run.xcom("bad", key).endswith("/tasks/bad/plugin/luma")
        assert run.xcom("mapped", key, 0).endswith("/tasks/mapped/mapped/0/plugin/luma")
        assert run.xcom("mapped", key, 1).endswith("/tasks/mapped/mapped/1/plugin/luma")

    def test_without_xcoms_nothing_is_pushed(
        self, run_one: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        run = run_one(LumaGenerateVideosOperator, requests=requests("first"), do_xcom_push=False)

        assert run.task_state("buy") == "success"
        assert [run.xcom("buy", key) for key in ("return_value", "luma_tasks", "refused")] == [None] * 3
