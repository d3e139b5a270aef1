# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
from pytest_mock import MockerFixture

from airflow_provider_luma.cli import follow as module
from airflow_provider_luma.cli.follow import follow
from airflow_provider_luma.client.api import LumaClient
from airflow_provider_luma.client.models import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import LumaInterruptedError
from airflow_provider_luma.waiting.progress import Progress, WaitPolicy
from airflow_provider_luma.waiting.tracker import Tracker


@pytest.mark.parametrize("where", ["poll", "pause"])
def test_an_interrupted_wait_names_the_ids_that_keep_running(mocker: MockerFixture, where: str) -> None:
    done = LumaTask(id="done-1", state=TaskState.COMPLETED, video=Media(url="https://cdn.test/a.mp4"))
    client = mocker.create_autospec(LumaClient, instance=True, batch_size=100)
    client.get_tasks.side_effect = [{"done-1": done}, KeyboardInterrupt]
    mocker.patch.object(module.time, "sleep", side_effect=[KeyboardInterrupt] if where == "pause" else None)
    tracker = Tracker(Progress.of(["done-1", "open-2", "open-3"]), WaitPolicy(), logging.getLogger(__name__))

    with pytest.raises(LumaInterruptedError, match="2 of 3 videos keep running at the relay: open-2, open-3"):
        follow(client, tracker, interval=1)
