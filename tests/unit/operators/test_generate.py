# SPDX-License-Identifier: Apache-2.0
"""What the submit operators say where a Dag is written: nothing here sends anything."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.operators.generate import (
    LumaExtendVideoOperator,
    LumaGenerateVideoOperator,
    LumaGenerateVideosOperator,
)
from airflow_provider_luma.retries import LumaRetryPolicy
from airflow_provider_luma.version_compat import AIRFLOW_V_3_3_PLUS

PROMPT = "a red fox in the snow"
ID = "4665a07c-7641-4809-a133-10786201bb56"


def video(**arguments: Any) -> LumaGenerateVideoOperator:
    return LumaGenerateVideoOperator(task_id="buy", **{"prompt": PROMPT, **arguments})


def videos(**arguments: Any) -> LumaGenerateVideosOperator:
    return LumaGenerateVideosOperator(task_id="buy", **{"requests": [{"prompt": PROMPT}], **arguments})


def extension(**arguments: Any) -> LumaExtendVideoOperator:
    given = {"luma_task_id": ID, "prompt": PROMPT, **arguments}
    return LumaExtendVideoOperator(task_id="buy", **given)


class TestLiteralsAreCheckedInTheDag:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"prompt": "no"}, "prompt must have 3 to 5000 characters"),
            ({"aspect_ratio": "2:1"}, "aspect_ratio must be .*'2:1'"),
            ({"loop": True, "image_end_url": "https://example.com/z.jpg"}, "loop and image_end_url exclude"),
            ({"duration": 5}, "duration"),
        ],
    )
    def test_a_video(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(LumaConfigError, match=words):
            video(**arguments)

    def test_a_list_names_the_request(self) -> None:
        with pytest.raises(LumaConfigError, match=r"^requests\[1\]: prompt must have 3 to 5000 characters"):
            videos(requests=[{"prompt": PROMPT}, {"prompt": "no"}])

    @pytest.mark.parametrize("wrong", [{"luma_task_id": "a b"}, {"luma_task_id": ""}, {"prompt": "no"}])
    def test_an_extension(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(LumaConfigError, match=next(iter(wrong))):
            extension(**wrong)

    @pytest.mark.parametrize(
        "arguments",
        [{"prompt": "{{ ds }}"}, {"aspect_ratio": "{{ r }}"}, {"loop": "{{ l }}", "image_end_url": "x"}],
    )
    def test_templates_wait_for_their_values(self, arguments: dict[str, Any]) -> None:
        video(**arguments)
        videos(requests=[{"prompt": PROMPT, **arguments}])
        videos(requests="{{ ti.xcom_pull('x') | tojson }}")

    def test_references_to_tasks_wait_for_their_values(self) -> None:
        with DAG("buying", schedule=None):
            other = video()
            LumaGenerateVideoOperator(task_id="prompt", prompt=other.output)  # type: ignore[arg-type]
            LumaGenerateVideosOperator(task_id="list", requests=other.output)  # type: ignore[arg-type]
            LumaExtendVideoOperator(task_id="more", luma_task_id=other.output, prompt=PROMPT)  # type: ignore[arg-type]


class TestArguments:
    @pytest.mark.parametrize("make", [video, videos, extension])
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"on_ambiguous": "retry"}, "on_ambiguous must be 'fail' or 'resubmit'; got 'retry'"),
            ({"on_clear": "never"}, "on_clear must be 'anew' or 'continue'; got 'never'"),
            (
                {"poll_interval": 0},
                "poll_interval must be a positive number of seconds, at most 86400; got 0",
            ),
            ({"timeout": -1}, "timeout must be a positive number of seconds, at most .*; got -1"),
            ({"timeout": timedelta(hours=1)}, "timeout must be a positive number of seconds"),
            ({"timeout": True}, "timeout must be a positive number of seconds"),
            ({"poll_interval": float("nan")}, "poll_interval must be a positive number"),
            ({"timeout": float("inf")}, "timeout must be a positive number of seconds"),
            ({"timeout": 10**400}, "timeout must be a positive number of seconds"),
            ({"poll_interval": float("inf")}, "poll_interval must be a positive number"),
            ({"missing_polls": 0}, "missing_polls"),
        ],
    )
    def test_wrong_ones_are_named(self, make: Any, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(LumaConfigError, match=words):
            make(**arguments)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"max_failed": -1}, "max_failed"),
            ({"max_concurrency": 0}, "max_concurrency"),
            ({"submit_interval": -1}, "submit_interval"),
            ({"submit_interval": 10**400}, "submit_interval"),
        ],
    )
    def test_wrong_ones_of_a_list_are_named(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(LumaConfigError, match=words):
            videos(**arguments)

    @pytest.mark.parametrize("make", [video, videos, extension])
    def test_every_field_of_the_request_is_templated(self, make: Any) -> None:
        operator = make()

        assert "luma_conn_id" in operator.template_fields
        assert all(hasattr(operator, name) for name in operator.template_fields)


class TestRetryPolicy:
    """On Airflow 3.3 and newer; older ones have no such thing."""

    def policy(self, operator: Any) -> Any:
        return getattr(operator, "retry_policy", None)

    def test_it_is_the_provider_s_own_unless_told_otherwise(self) -> None:
        assert isinstance(self.policy(video()), LumaRetryPolicy) == AIRFLOW_V_3_3_PLUS

    def test_one_that_is_given_wins(self) -> None:
        if AIRFLOW_V_3_3_PLUS:
            from airflow.sdk import ExceptionRetryPolicy

            mine = ExceptionRetryPolicy(rules=[])
            assert self.policy(video(retry_policy=mine)) is mine
            with DAG("buying", schedule=None, default_args={"retry_policy": mine}):
                assert self.policy(video()) is mine

    def test_none_means_none(self) -> None:
        arguments = {"retry_policy": None} if AIRFLOW_V_3_3_PLUS else {}
        assert self.policy(video(**arguments)) is None


class TestOnKill:
    def test_before_anything_was_submitted_there_is_nothing_to_say(self, caplog: Any) -> None:
        video().on_kill()

        assert caplog.text == ""
