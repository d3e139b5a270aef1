# SPDX-License-Identifier: Apache-2.0
"""The commands as part of ``airflow``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox
from tests.integration.cli.conftest import API_KEY


@pytest.fixture(scope="module")
def airflow_parser() -> Any:
    """Airflow's own parser, with the commands of all providers."""
    from airflow.cli import cli_parser

    return cli_parser.get_parser()


@pytest.mark.parametrize("dialect", ["bare"])
class TestThroughAirflow:
    def test_the_commands_have_their_options(
        self, airflow_parser: Any, sandbox: LumaSandbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        parsed = airflow_parser.parse_args(["luma", "wait", task_id, "--max-failed", "any", "--json"])

        with pytest.raises(SystemExit) as caught:
            parsed.func(parsed)

        assert caught.value.code == Exit.OK
        assert json.loads(capsys.readouterr().out)["completed"] == [task_id]

    def test_the_sandbox_gets_its_options(self, airflow_parser: Any) -> None:
        parsed = airflow_parser.parse_args(["luma", "sandbox", "--port", "0", "--help"])

        assert parsed.arguments == ["--port", "0", "--help"]

    def test_its_help_shows_examples_and_exit_codes(
        self, airflow_parser: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            airflow_parser.parse_args(["luma", "--help"])

        text = capsys.readouterr().out
        assert 'airflow luma generate "a paper boat at dawn"' in text
        assert "exit codes" in text

    @pytest.mark.usefixtures("metadata_database")
    def test_a_connection_of_the_metadata_database_is_found(self, sandbox: LumaSandbox) -> None:
        from airflow.models.connection import Connection
        from airflow.utils.session import create_session

        connection = Connection(
            conn_id="luma_in_database", conn_type="luma", host=sandbox.base_url, password=API_KEY
        )
        with create_session() as session:
            session.add(connection)
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "airflow", "luma", "check", "--conn-id", "luma_in_database", "--json"],
                capture_output=True,
                text=True,
            )
        finally:
            with create_session() as session:
                session.delete(connection)

        assert finished.returncode == Exit.OK, finished.stderr
        assert json.loads(finished.stdout)["source"] == "connection luma_in_database"
        assert API_KEY not in finished.stdout + finished.stderr

    def test_warnings_that_airflow_logs_stay_out_of_the_json(self, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(state="dancing")
        finished = subprocess.run(
            [sys.executable, "-m", "airflow", "luma", "status", task_id, "--json"],
            capture_output=True,
            text=True,
        )

        assert json.loads(finished.stdout)[0]["state"] == "unknown"
        assert "dancing" in finished.stderr
