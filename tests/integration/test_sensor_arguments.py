# SPDX-License-Identifier: Apache-2.0
"""What users write around a sensor: templates, mapping, retries, time limits, connections."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, Param, task

from airflow_provider_luma.sandbox import LumaSandbox, TaskScript, faults
from airflow_provider_luma.sensors.luma import LumaTaskSensor
from airflow_provider_luma.waiting.time_limit import TimeLimit
from tests.support.patience import PATIENCE, end_execution_timeout


@pytest.fixture
def dialect() -> str:
    """Dialects make no difference to anything here."""
    return "bare"


@pytest.fixture
def ids(connected: LumaSandbox) -> list[str]:
    """Two tasks; one is completed, the other soon."""
    return [connected.add_task(completes_after=0.3), connected.add_task(completes_after=0)]


# Airflow renders before it looks at how a task waits.
@pytest.mark.parametrize("mode", ["reschedule"], indirect=True)
class TestTemplates:
    @pytest.mark.parametrize(
        "template",
        [
            "{{ params.ids | tojson }}",
            "{{ params.ids }}",
            "  {{ params.ids }}\n",
            ["{{ params.ids[0] }}", "{{ params.ids[1] }}"],
        ],
        ids=["json", "python", "blanks", "each"],
    )
    def test_a_template_may_render_to_the_text_of_a_list(
        self, wait: Callable[..., Any], ids: list[str], template: Any
    ) -> None:
        run = wait(template, dag_arguments={"params": {"ids": Param(ids)}})

        assert run.xcom("wait") == ids

    @pytest.mark.parametrize("native", [True, False])
    def test_a_template_may_render_to_one_id(
        self, wait: Callable[..., Any], ids: list[str], native: bool
    ) -> None:
        run = wait(
            "{{ params.id }}",
            dag_arguments={"params": {"id": Param(ids[0])}, "render_template_as_native_obj": native},
        )

        assert run.xcom("wait") == [ids[0]]

    def test_native_rendering_hands_over_the_list_itself(
        self, wait: Callable[..., Any], ids: list[str]
    ) -> None:
        run = wait(
            "{{ params.ids }}",
            dag_arguments={"params": {"ids": Param(ids)}, "render_template_as_native_obj": True},
        )

        assert run.xcom("wait") == ids

    def test_a_template_that_renders_to_nonsense_fails_at_once_and_shows_it(
        self, wait: Callable[..., Any], log_text: Callable[[], str]
    ) -> None:
        run = wait("{{ params.ids }}", dag_arguments={"params": {"ids": Param("no id!")}}, retries=3)

        assert run.task_state("wait") == "failed"
        assert run.task("wait").try_number == 1
        assert "got 'no id!'" in log_text()

    def test_the_connection_id_is_a_template_too(
        self,
        wait: Callable[..., Any],
        ids: list[str],
        connected: LumaSandbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_OTHER", connected.airflow_connection)
        monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT")

        run = wait(
            ids, luma_conn_id="luma_{{ params.which }}", dag_arguments={"params": {"which": Param("other")}}
        )

        assert run.xcom("wait") == ids


class TestUpstreamTasks:
    def test_the_ids_may_be_what_another_task_returned(
        self, run_dag: Callable[..., Any], mode: dict[str, Any], ids: list[str]
    ) -> None:
        with DAG("upstream", schedule=None) as dag:

            @task
            def submit() -> list[str]:
                return ids

            LumaTaskSensor(
                task_id="wait", luma_task_ids=submit(), poke_interval=0.2, timeout=PATIENCE, **mode
            )

        assert run_dag(dag).xcom("wait") == ids

    def test_an_upstream_list_of_one_id_each_waits_for_all_of_them(
        self, run_dag: Callable[..., Any], mode: dict[str, Any], ids: list[str]
    ) -> None:
        with DAG("upstream", schedule=None) as dag:

            @task
            def submit(number: int) -> str:
                return ids[number]

            LumaTaskSensor(
                task_id="wait",
                luma_task_ids=submit.expand(number=[0, 1]),
                poke_interval=0.2,
                timeout=PATIENCE,
                **mode,
            )

        assert run_dag(dag).xcom("wait") == ids

    @pytest.mark.every_airflow
    def test_mapping_waits_for_each_group_by_itself(
        self, run_dag: Callable[..., Any], mode: dict[str, Any], connected: LumaSandbox, ids: list[str]
    ) -> None:
        bad = connected.add_task(fails_with="no")
        groups = [ids, [connected.add_task(completes_after=0), bad], []]
        with DAG("mapped", schedule=None) as dag:
            LumaTaskSensor.partial(task_id="wait", poke_interval=0.2, timeout=PATIENCE, **mode).expand(
                luma_task_ids=groups
            )

        run = run_dag(dag)

        assert [run.task_state("wait", index) for index in range(3)] == ["success", "failed", "success"]
        assert run.xcom("wait", map_index=0) == ids
        assert run.xcom("wait", "failed", map_index=1) == {bad: "no"}
        assert run.xcom("wait", map_index=2) == []

    def test_completed_ids_are_passed_to_a_mapped_task(
        self, run_dag: Callable[..., Any], mode: dict[str, Any], ids: list[str]
    ) -> None:
        with DAG("onward", schedule=None) as dag:
            wait = LumaTaskSensor(
                task_id="wait", luma_task_ids=ids, poke_interval=0.2, timeout=PATIENCE, **mode
            )

            @task
            def publish(luma_task_id: str) -> str:
                return luma_task_id

            publish.expand(luma_task_id=wait.output)

        run = run_dag(dag)

        assert [run.xcom("publish", map_index=index) for index in range(2)] == ids


class TestIds:
    def test_repeated_ids_are_asked_for_and_returned_once(
        self, wait: Callable[..., Any], connected: LumaSandbox, ids: list[str]
    ) -> None:
        run = wait([ids[0], ids[1], ids[0]])

        assert run.xcom("wait") == ids
        assert connected.calls[0].body == {"ids": ids}

    def test_many_ids_take_as_few_calls_as_batches(
        self, wait: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = connected.add_tasks([TaskScript(completes_after=0, hidden_for=1)] * 250)

        run = wait(ids)

        assert run.xcom("wait") == ids
        # Two polls: the first one finds nothing.
        sizes = [len(call.ids) for call in connected.calls]
        assert [sorted(sizes[:3]), sorted(sizes[3:])] == [[50, 100, 100]] * 2

    def test_what_is_done_is_not_asked_for_again(
        self, wait: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        late = connected.add_task(completes_after=0, hidden_for=2)
        done = connected.add_task(completes_after=0)

        wait([late, done])

        assert [call.ids for call in connected.calls] == [(late, done), (late,), (late,)]


class TestTolerance:
    def test_any_number_may_fail_when_max_failed_is_none(
        self, wait: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = [connected.add_task(fails_with=f"reason {number}") for number in range(3)]

        run = wait(ids, max_failed=None)

        assert run.task_state("wait") == "success"
        assert run.xcom("wait") == []
        assert run.xcom("wait", "failed") == dict(zip(ids, ["reason 0", "reason 1", "reason 2"], strict=True))

    @pytest.mark.parametrize("policy", ["soft_fail", "never_fail"])
    def test_a_wrong_key_skips_under(
        self,
        wait: Callable[..., Any],
        connected: LumaSandbox,
        connect: Callable[..., None],
        ids: list[str],
        policy: str,
    ) -> None:
        connect(connected.base_url, "wrong-key")

        assert wait(ids, **{policy: True}).task_state("wait") == "skipped"

    def test_a_failed_task_skips_under_never_fail(
        self, wait: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = [connected.add_task(fails_with="no")]

        assert wait(ids, never_fail=True).task_state("wait") == "skipped"

    def test_an_unreachable_relay_skips_under_never_fail(
        self,
        wait: Callable[..., Any],
        connected: LumaSandbox,
        connect: Callable[..., None],
        ids: list[str],
    ) -> None:
        connect(connected.base_url, connected.api_key, max_poll_failures=2)
        connected.fail_when("batch", faults.ok_html())

        assert wait(ids, never_fail=True).task_state("wait") == "skipped"

    def test_an_unreachable_relay_fails_the_try_and_is_polled_in_the_next(
        self,
        wait: Callable[..., Any],
        connected: LumaSandbox,
        connect: Callable[..., None],
        ids: list[str],
        log_text: Callable[[], str],
    ) -> None:
        connect(connected.base_url, connected.api_key, max_poll_failures=2)
        # Two for the first try; the third is the second try's first, and forgiven.
        connected.fail_next("batch", faults.ok_html(), times=3)

        run = wait(ids, retries=1)

        assert run.xcom("wait") == ids
        assert run.task("wait").try_number == 2
        assert "Polling Luma tasks failed 2 times in a row" in log_text()


@pytest.mark.parametrize("mode", ["deferrable"], indirect=True)
@pytest.mark.parametrize("also", [{}, {"start_from_trigger": True}], ids=["end", "start and end"])
class TestFromTrigger:
    """dag.test() starts and ends such tasks in workers all the same: with the same results."""

    @pytest.mark.every_airflow
    def test_success(self, wait: Callable[..., Any], connected: LumaSandbox, also: dict[str, Any]) -> None:
        good = connected.add_task(completes_after=0, hidden_for=1)
        bad = connected.add_task(fails_with="no", hidden_for=1)

        run = wait([bad, good], end_from_trigger=True, max_failed=1, **also)

        assert run.task_state("wait") == "success"
        assert run.xcom("wait") == [good]
        assert run.xcom("wait", "failed") == {bad: "no"}

    @pytest.mark.parametrize(("policy", "state"), [({}, "failed"), ({"soft_fail": True}, "skipped")])
    def test_failure(
        self,
        wait: Callable[..., Any],
        connected: LumaSandbox,
        also: dict[str, Any],
        policy: dict[str, Any],
        state: str,
    ) -> None:
        bad = connected.add_task(fails_with="no", hidden_for=1)

        run = wait([bad], end_from_trigger=True, **policy, **also)

        assert run.task_state("wait") == state
        assert run.xcom("wait", "failed") == {bad: "no"}


class TestTimeLimits:
    @pytest.mark.parametrize("mode", ["poke", "deferrable"], indirect=True)
    @pytest.mark.every_airflow
    def test_execution_timeout_fails_the_try_and_may_be_retried(
        self,
        wait: Callable[..., Any],
        connected: LumaSandbox,
        mode: dict[str, Any],
        log_text: Callable[[], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        slow = connected.add_task(state="processing")
        runs_out_at = TimeLimit.runs_out_at
        if mode["deferrable"]:
            # The hour is over when the trigger begins, however long it took to get there.
            monkeypatch.setattr(TimeLimit, "runs_out_at", lambda *given: runs_out_at(*given) - 3600)
        else:
            connected.fail_when("batch", faults.latency(0.1), lambda call: end_execution_timeout())

        run = wait([slow], execution_timeout=timedelta(hours=1), timeout=7200, retries=1)

        assert run.task_state("wait") == "failed"
        assert run.task("wait").try_number == 2
        text = log_text()
        assert "AirflowTaskTimeout" in text
        if mode["deferrable"]:
            assert "not finished after the execution_timeout of 3600 s: 0/1 completed, 1 processing" in text

    @pytest.mark.parametrize("mode", ["deferrable"], indirect=True)
    def test_the_shorter_of_both_time_limits_holds_while_deferred(
        self, wait: Callable[..., Any], connected: LumaSandbox, log_text: Callable[[], str]
    ) -> None:
        slow = connected.add_task(state="processing")

        run = wait([slow], execution_timeout=timedelta(hours=1), timeout=0.5, retries=1)

        assert run.task_state("wait") == "failed"
        assert run.task("wait").try_number == 1
        assert "not finished after the timeout of 0.5 s" in log_text()

    def test_what_completes_before_the_time_is_over_counts_even_with_a_longer_interval(
        self, wait: Callable[..., Any], connected: LumaSandbox
    ) -> None:
        ids = [connected.add_task(completes_after=0.5)]

        assert wait(ids, timeout=1, poke_interval=60).xcom("wait") == ids


class TestConnections:
    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"host": "http://my relay"}, "http://my relay"),
            ({"host": "https://relay.invalid/?key=1"}, "query"),
            ({"host": "ftp://relay.invalid"}, "ftp"),
            ({"password": ""}, "password"),
            ({"password": "two words"}, "password"),
            ({"extra": {"batch_size": 0}}, "batch_size must be"),
            ({"extra": {"read_timeout": "soon"}}, "read_timeout must be"),
            ({"extra": {"verify": 5}}, "verify must be"),
            ({"extra": {"proxies": "none"}}, "proxies"),
            ({"extra": {"max_poll_failures": 0}}, "max_poll_failures must be"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    @pytest.mark.parametrize("mode", ["deferrable"], indirect=True)
    def test_an_unusable_field_fails_the_task_at_once_and_is_named(
        self,
        wait: Callable[..., Any],
        connected: LumaSandbox,
        connect: Callable[..., None],
        log_text: Callable[[], str],
        fields: dict[str, Any],
        named: str,
    ) -> None:
        connect(
            fields.get("host", connected.base_url),
            fields.get("password", connected.api_key),
            **fields.get("extra", {}),
        )

        run = wait([connected.add_task()], retries=3)

        assert run.task_state("wait") == "failed"
        assert run.task("wait").try_number == 1
        text = log_text()
        assert "Connection 'luma_default'" in text
        assert named in text
        assert "two words" not in text
        assert connected.count("batch") == 0

    def test_an_unusable_field_fails_in_every_mode(
        self, wait: Callable[..., Any], connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url, connected.api_key, batch_size=0)

        run = wait([connected.add_task()], retries=3)

        assert run.task_state("wait") == "failed"
        assert run.task("wait").try_number == 1

    def test_a_connection_that_is_not_there_is_named(
        self,
        wait: Callable[..., Any],
        ids: list[str],
        monkeypatch: pytest.MonkeyPatch,
        log_text: Callable[[], str],
    ) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT")

        run = wait(ids)

        assert run.task_state("wait") == "failed"
        assert "The conn_id `luma_default` isn't defined" in log_text()

    @pytest.mark.parametrize("mode", ["deferrable"], indirect=True)
    def test_the_batch_size_of_the_connection_holds_in_worker_and_triggerer(
        self, wait: Callable[..., Any], connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url, connected.api_key, batch_size=2)
        ids = connected.add_tasks([TaskScript(completes_after=0, hidden_for=1)] * 3)

        assert wait(ids).xcom("wait") == ids
        assert sorted(len(call.ids) for call in connected.calls) == [1, 1, 2, 2]


class TestDefaultDeferrable:
    def test_sensors_wait_in_a_worker_unless_airflow_is_configured_otherwise(self) -> None:
        assert LumaTaskSensor(task_id="wait", luma_task_ids=["a"]).deferrable is False

    def test_airflows_own_setting_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
        program = (
            "from airflow_provider_luma.sensors.luma import LumaTaskSensor as Sensor\n"
            "print(Sensor(task_id='a', luma_task_ids='a').deferrable,"
            " Sensor(task_id='b', luma_task_ids='a', deferrable=False).deferrable)"
        )

        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
        )

        assert result.stdout.split() == ["True", "False"]
