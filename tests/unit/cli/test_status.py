# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import math
from typing import Any

import pytest
from pytest_mock import MockerFixture

from airflow_provider_luma.cli.commands import status
from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.cli.output import Output
from airflow_provider_luma.client.models import LumaTask, Media, TaskState

GOOD = LumaTask(
    id="good-1",
    state=TaskState.COMPLETED,
    prompt="a paper boat",
    video=Media(url="https://cdn.test/a.mp4", width=640, height=352, duration=5),
)


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize(
    "number", [10**400, -(10**400), 10**5000, 2**64, math.nan, math.inf], ids=lambda n: f"{type(n).__name__}"
)
def test_an_impossible_number_does_not_lose_the_table(
    number: Any, as_json: bool, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Media(url="https://cdn.test/b.mp4", width=number, height=number, duration=number)
    tasks = {"good-1": GOOD, "odd-2": LumaTask(id="odd-2", state=TaskState.COMPLETED, video=odd)}
    settings = mocker.patch.object(status, "find_relay").return_value.settings
    settings.client.return_value.__enter__.return_value.get_tasks.return_value = tasks

    code = status.run(argparse.Namespace(ids=list(tasks), conn_id=None, watch=False), Output(as_json=as_json))

    out = capsys.readouterr().out
    assert code == Exit.OK
    if as_json:
        assert [(row["id"], row["width"]) for row in json.loads(out)] == [("good-1", 640), ("odd-2", None)]
    else:
        assert "640x352" in out
        assert "odd-2" in out
