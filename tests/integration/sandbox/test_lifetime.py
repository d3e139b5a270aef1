# SPDX-License-Identifier: Apache-2.0
"""Start, steer and stop a sandbox, in a thread or in a process, without leftovers."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_luma.sandbox import LumaSandbox, SandboxProcess, TaskScript, faults
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "airflow_provider_luma.sandbox"]


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class TestThread:
    def test_it_leaves_no_thread_file_or_port_behind(self, client_of: Any) -> None:
        before = set(threading.enumerate())
        descriptors = open_files()
        with LumaSandbox() as sandbox:
            requests.get(sandbox.root_url, timeout=PATIENCE)
        assert set(threading.enumerate()) == before
        assert open_files() == descriptors
        assert refuses(sandbox.port)

    def test_it_stops_while_clients_wait(self, client_of: Any) -> None:
        with LumaSandbox() as sandbox:
            client = client_of(sandbox)
            sandbox.fail_next("batch", faults.hang())
            errors: list[Exception] = []

            def ask() -> None:
                try:
                    client.batch("one")
                except requests.ConnectionError as error:
                    errors.append(error)

            asking = threading.Thread(target=ask)
            asking.start()
            while not sandbox.calls:
                threading.Event().wait(0.005)
        asking.join(PATIENCE)
        assert len(errors) == 1

    def test_it_can_be_set_up_before_it_starts(self, client_of: Any) -> None:
        sandbox = LumaSandbox()
        task_id = sandbox.add_task(state="completed")
        sandbox.fail_next("batch", faults.do_request_failed())
        with sandbox:
            client = client_of(sandbox)
            assert [client.batch(task_id).status_code for _ in range(2)] == [500, 200]

    def test_many_can_run_at_once(self, client_of: Any) -> None:
        with LumaSandbox(api_key="one") as one, LumaSandbox(api_key="two") as two:
            assert one.port != two.port
            client_of(one).submit()
            assert (one.count("submit"), two.count("submit")) == (1, 0)

    def test_the_airflow_connection_has_its_address_and_key(self) -> None:
        with LumaSandbox(prefix="/x", api_key="k") as sandbox:
            connection = json.loads(sandbox.airflow_connection)
        assert connection == {"conn_type": "luma", "host": sandbox.base_url, "password": "k"}

    def test_a_wrong_setting_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"pending_seconds must be .*got -1"):
            LumaSandbox(pending_seconds=-1)


class TestProcess:
    def test_it_is_steered_like_one_in_this_process(self, client_of: Any) -> None:
        with SandboxProcess(dialect="envelope", prefix="/x", balance_usd=1.0) as sandbox:
            client = client_of(sandbox)
            one, two = sandbox.add_tasks([TaskScript(state="completed"), TaskScript(fails_with="moderated")])
            three = sandbox.add_task(hidden_for=1, overrides={"state": "DONE"}, state="completed")
            sandbox.fail_next("batch", faults.invalid_utf8(), skip=1)
            sandbox.fail_when("submit", faults.drop(), containing="dog", accepted=True)
            assert [len(client.batch(one, two, three).json()["data"]), client.batch(one).content] == [
                2,
                faults.invalid_utf8().body,
            ]
            assert client.batch(three).json()["data"][0]["data"]["state"] == "DONE"
            with pytest.raises(requests.ConnectionError):
                client.submit("a dog")
            client.submit("a cat")
            assert [generation.prompt for generation in sandbox.generations] == ["a dog", "a cat"]
            assert (sandbox.count("submit"), sandbox.balance, sandbox.spent_usd) == (2, 0.36, 0.64)
            assert [call.status for call in sandbox.calls] == [200, 200, 200, None, 200]
            sandbox.advance(100)
            assert [times.state for times in sandbox.times([one, two])] == ["completed", "failed"]
            assert sandbox.when(one).first_answered_at is not None
            sandbox.clear_faults()
            assert client.submit("a dog").status_code == 200
            sandbox.reset()
            assert (sandbox.times(), sandbox.calls, sandbox.balance) == ([], [], 1.0)

    def test_ten_thousand_tasks_are_added_at_once(self, client_of: Any) -> None:
        with SandboxProcess() as sandbox:
            ids = sandbox.add_tasks([TaskScript(completes_after=1)] * 10_000)
            assert len(set(ids)) == 10_000

    def test_a_mistake_is_an_error_in_this_process(self) -> None:
        with SandboxProcess() as sandbox:
            with pytest.raises(ValueError, match="there is a task 'one' already"):
                sandbox.add_tasks([TaskScript(id="one"), TaskScript(id="one")])
            with pytest.raises(KeyError, match="unknown-task"):
                sandbox.when("unknown-task")
            with pytest.raises(ValueError, match="predicate can't be sent"):
                sandbox.fail_when("batch", faults.empty(), lambda call: True)
            answer = requests.post(
                f"{sandbox.root_url}/sandbox/faults",
                json={"call": "batch", "fault": "earthquake"},
                timeout=PATIENCE,
            )
            assert answer.status_code == 400
            assert "fault must be one of " in answer.json()["error"]

    def test_faults_can_be_named_by_hand(self, client_of: Any) -> None:
        with SandboxProcess() as sandbox:
            requests.post(
                f"{sandbox.root_url}/sandbox/faults",
                json={
                    "call": "batch",
                    "fault": "too_many_requests",
                    "options": {"retry_after": 7},
                    "times": 1,
                },
                timeout=PATIENCE,
            ).raise_for_status()
            answer = client_of(sandbox).batch("one")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")

    def test_a_verb_without_a_result_answers_with_an_empty_object(self) -> None:
        with LumaSandbox() as sandbox:
            url = f"{sandbox.root_url}/sandbox"
            answers = [
                requests.post(f"{url}/advance", json={"seconds": 1}, timeout=PATIENCE),
                requests.delete(f"{url}/faults", timeout=PATIENCE),
                requests.post(f"{url}/reset", timeout=PATIENCE),
            ]
            assert [answer.json() for answer in answers] == [{}, {}, {}]

    @pytest.mark.parametrize("body", [{"seconds": "soon"}, {"hours": 1}, {}, [], {"seconds": -1}])
    def test_a_wrong_argument_over_http_is_a_400(self, body: object) -> None:
        with LumaSandbox() as sandbox:
            answer = requests.post(f"{sandbox.root_url}/sandbox/advance", json=body, timeout=PATIENCE)
            assert (answer.status_code, list(answer.json())) == (400, ["error"])

    def test_calls_can_be_read_after_a_number(self, client_of: Any) -> None:
        with SandboxProcess() as sandbox:
            client = client_of(sandbox)
            for _ in range(3):
                client.batch("one")
                client.single("one")
            later = requests.get(
                f"{sandbox.root_url}/sandbox/calls?name=batch&after=2", timeout=PATIENCE
            ).json()
            assert [call["number"] for call in later] == [3, 5]

    def test_it_ends_with_its_block(self) -> None:
        with SandboxProcess() as sandbox:
            assert not refuses(sandbox.port)
        assert sandbox.process.returncode == 0
        assert refuses(sandbox.port)

    def test_it_ends_when_its_owner_is_killed(self) -> None:
        program = (
            "from airflow_provider_luma.sandbox import SandboxProcess\n"
            "with SandboxProcess() as sandbox:\n"
            "    print(sandbox.port, flush=True)\n"
            "    sandbox.process.wait()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as owner:
            assert owner.stdout is not None
            port = int(owner.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                # An answered request shows that the sandbox has accepted the connection.
                connection.sendall(b"GET /sandbox/counts HTTP/1.1\r\nHost: sandbox\r\n\r\n")
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
                owner.kill()
                while connection.recv(65_536):
                    continue
        assert refuses(port)

    def test_a_port_that_is_taken_is_an_error(self) -> None:
        with LumaSandbox() as other, pytest.raises(RuntimeError, match="ended with 2 before it was ready"):
            SandboxProcess(port=other.port).__enter__()


class TestCommandLine:
    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
    def test_it_prints_its_address_and_exits_with_0(self, sent: signal.Signals) -> None:
        options = ["--port", "0", "--prefix", "/x", "--dialect", "envelope", "--pending-seconds", "0"]
        with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            base_url = process.stdout.readline().split()[-1]
            connection = process.stdout.readline() + process.stdout.readline()
            answer = requests.post(
                f"{base_url}/luma/tasks",
                json={"ids": ["one"]},
                headers={"Authorization": "Bearer sandbox-key"},
                timeout=PATIENCE,
            )
            process.send_signal(sent)
            assert process.wait(PATIENCE) == 0
        assert answer.json()["data"] is None
        assert base_url.endswith("/x")
        assert f'"host": "{base_url}", "password": "sandbox-key"' in connection

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--pending-seconds", "-1"], "pending_seconds must be"),
            (["--dialect", "klingon"], "invalid choice: 'klingon'"),
            (["--settings", "{"], "truncated"),
        ],
    )
    def test_a_mistake_is_reported_in_one_line(self, options: list[str], message: str) -> None:
        done = subprocess.run(
            [*COMMAND, *options], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_help_explains_every_setting(self) -> None:
        done = subprocess.run(
            [*COMMAND, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=True
        )
        assert "--links-expire-after" in done.stdout
        assert "{bare,envelope}" in done.stdout
