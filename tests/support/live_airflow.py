# SPDX-License-Identifier: Apache-2.0
"""
A live Airflow for tests and demos: scheduler, triggerer, Dag processor and API server, each a process.

::

    with LiveAirflow(dags_folder, env={"AIRFLOW_CONN_LUMA_DEFAULT": sandbox.airflow_connection}) as airflow:
        run_id = airflow.trigger("example_luma_pipeline", conf={"prompts": ["a red fox"]})
        assert airflow.wait_for_run("example_luma_pipeline", run_id) == "success"
        records = airflow.xcom("example_luma_pipeline", run_id, "fetch")

Where it is
    ``base_url`` (``http://127.0.0.1:<free port>``), ``home``, ``password(user)``, ``token(user)``,
    ``api(method, path, **requests_arguments)`` for the rest of Airflow's REST API (paths below ``/api/v2``).
Dags
    ``trigger(dag_id, conf=None, run_id=None) -> run_id`` (waits until the Dag is parsed),
    ``run_state(dag_id, run_id)``, ``wait_for_run(dag_id, run_id, states=FINISHED, timeout=300) -> state``,
    ``task(dag_id, run_id, task_id, map_index=-1) -> dict`` (``state``, ``try_number``, ``pid``, …),
    ``tasks(dag_id, run_id) -> list``, ``wait_for_task(…, states, timeout=300) -> dict``,
    ``clear(dag_id, run_id, *task_ids)``, ``xcom(dag_id, run_id, task_id, key="return_value", map_index=-1)``,
    ``task_log(dag_id, run_id, task_id, try_number=1, map_index=-1) -> str``.
Crashes
    ``kill(component)`` ends it and its children by SIGKILL, as the loss of its machine would;
    ``start(component)`` and ``restart(component)`` (kill, then start) wait until it is healthy;
    ``pids(component=None)`` lists a component's processes, the first its main one, or every process of this
    Airflow. ``component`` is ``scheduler`` (tasks run below it), ``triggerer``, ``dag-processor`` or
    ``api-server``. A task's own process is ``task(…)["pid"]``.
Waiting
    ``wait_until(condition, what, timeout=300)`` returns the first true value of ``condition()``.
    ``output(component)`` is all that it has printed; every error of this class quotes its end.

Nothing outlives the ``with`` block: all processes are known by the home in their environment and killed,
and the home is removed. When the test's own process is killed, its components end with it (Linux).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import quote

import psutil
import requests

from tests.support.patience import PATIENCE

Component = Literal["scheduler", "triggerer", "dag-processor", "api-server"]
T = TypeVar("T")

COMPONENTS: Final[tuple[Component, ...]] = ("api-server", "dag-processor", "scheduler", "triggerer")
FINISHED: Final = frozenset({"success", "failed"})
TASK_FINISHED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

_JOBS: Final = {
    "scheduler": "SchedulerJob",
    "triggerer": "TriggererJob",
    "dag-processor": "DagProcessorJob",
}
_POLL_SECONDS: Final = 0.2
# Ends a component when this process is gone, however it went.
_TIED: Final = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


class LiveAirflowError(Exception):
    """Airflow didn't do in time what was waited for; the message ends with what it printed last."""


class LiveAirflow:
    """
    An Airflow of its own on 127.0.0.1 and free ports, with a fresh SQLite database.

    :param dags_folder: where the Dags are; read again every few seconds
    :param env: environment of all components: ``AIRFLOW_CONN_…``, ``AIRFLOW__SECTION__KEY``, … An
        ``AIRFLOW_…`` of the caller's own environment is not handed on.
    :param users: name to role (``admin``, ``op``, ``user``, ``viewer``), perhaps followed by ``:team|team``;
        a user's password is made up
    :param before_start: called with this object when the database is there and no component runs yet
    """

    def __init__(
        self,
        dags_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        before_start: Callable[[LiveAirflow], object] | None = None,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="live-airflow-"))
        self._users = dict(users or {"admin": "admin"})
        self._passwords = {name: secrets.token_hex(8) for name in self._users}
        self._before_start = before_start
        self._processes: dict[Component, subprocess.Popen[bytes]] = {}
        self._tokens: dict[str, str] = {}
        self._session = requests.Session()
        self._session.trust_env = False

        port, worker_log_port, trigger_log_port = _free_ports(3)
        self.base_url = f"http://127.0.0.1:{port}"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AIRFLOW_") and not name.lower().endswith("_proxy")
        }
        self._env = {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.base_url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder.resolve()),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                f"{name}:{role}" for name, role in self._users.items()
            ),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # Components write at the same time: wait for the lock instead of failing.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout=60",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log_port),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log_port),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # Else the processes' titles overwrite the environment that they are known by.
            "SPT_NOENV": "1",
            **(env or {}),
        }
        (self.home / "passwords.json").write_text(json.dumps(self._passwords))

    def __enter__(self) -> Self:
        try:
            self.run_cli("db", "migrate")
            # Readers don't wait for writers then.
            with sqlite3.connect(self.home / "airflow.db") as database:
                database.execute("PRAGMA journal_mode=WAL")
            database.close()
            if self._before_start:
                self._before_start(self)
            started = {component: self._launch(component) for component in COMPONENTS}
            for component in COMPONENTS:
                self._wait_until_healthy(component, since=started[component])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process of this Airflow and remove its home."""
        self._session.close()
        for component in self._processes:
            _kill(self._tree(component))
        while processes := self._find_processes():
            _kill(processes)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        shutil.rmtree(self.home, ignore_errors=True)

    # Access

    def password(self, user: str = "admin") -> str:
        return self._passwords[user]

    def token(self, user: str = "admin") -> str:
        """A bearer token of the REST API."""
        if user not in self._tokens:
            answer = self._session.post(
                f"{self.base_url}/auth/token",
                json={"username": user, "password": self.password(user)},
                timeout=PATIENCE,
            )
            answer.raise_for_status()
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def api(
        self, method: str, path: str, *, user: str | None = "admin", **arguments: Any
    ) -> requests.Response:
        """
        Call the REST API and return its answer, whatever the status.

        :param path: below ``/api/v2``, such as ``/dags``
        :param user: None to come without a token
        """
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return self._session.request(
            method, f"{self.base_url}/api/v2{path}", headers=headers, timeout=PATIENCE, **arguments
        )

    def run_cli(self, *arguments: str) -> str:
        """Run ``airflow …`` on this Airflow's database and return what it prints."""
        result = subprocess.run(
            [*_TIED, sys.executable, "-m", "airflow", *arguments],
            env=self._env,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            printed = (result.stdout + result.stderr)[-4000:]
            raise LiveAirflowError(
                f"airflow {' '.join(arguments)} ended with {result.returncode}:\n{printed}"
            )
        return result.stdout

    # Dags

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        timeout: float = PATIENCE,
    ) -> str:
        self.wait_until(
            lambda: self.api("GET", f"/dags/{dag_id}").ok, f"Dag {dag_id} to be parsed", timeout=timeout
        )
        body = {"logical_date": None, "conf": dict(conf or {})} | ({"dag_run_id": run_id} if run_id else {})
        return str(self._json("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self._json("GET", _run_path(dag_id, run_id))["state"])

    def wait_for_run(
        self, dag_id: str, run_id: str, states: Collection[str] = FINISHED, timeout: float = PATIENCE
    ) -> str:
        def state() -> str | None:
            now = self.run_state(dag_id, run_id)
            return now if now in states else None

        what = f"run {run_id} of {dag_id} to be {' or '.join(sorted(states))}"
        return self.wait_until(state, what, timeout=timeout)

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All task instances of a run, as the REST API tells them."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances"
        return list(self._json("GET", path, params={"limit": 1000})["task_instances"])

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return dict(self._json("GET", _task_path(dag_id, run_id, task_id, map_index)))

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str] = TASK_FINISHED,
        map_index: int = -1,
        timeout: float = PATIENCE,
    ) -> dict[str, Any]:
        def instance() -> dict[str, Any] | None:
            # A task that waits to be expanded has no instance of this map index yet.
            answer = self.api("GET", _task_path(dag_id, run_id, task_id, map_index))
            return answer.json() if answer.ok and answer.json()["state"] in states else None

        what = f"{task_id}[{map_index}] of {run_id} to be {' or '.join(sorted(states))}"
        return self.wait_until(instance, what, timeout=timeout)

    def clear(self, dag_id: str, run_id: str, *task_ids: str) -> None:
        """Have tasks run again, as a user's *Clear* does; none named means all."""
        body: dict[str, Any] = {"dry_run": False, "dag_run_id": run_id, "only_failed": False}
        if task_ids:
            body["task_ids"] = list(task_ids)
        self._json("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """
        The value of an XCom.

        :raises LookupError: there is none
        """
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{quote(key, safe='')}"
        answer = self.api("GET", path, params={"map_index": map_index, "deserialize": "true"})
        if answer.status_code == 404:
            raise LookupError(f"{task_id}[{map_index}] of {run_id} has no XCom {key!r}")
        return self._checked(answer)["value"]

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> str:
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        answer = self.api("GET", path, params={"map_index": map_index, "full_content": "true"})
        lines = self._checked(answer)["content"]
        return "\n".join(line if isinstance(line, str) else line["event"] for line in lines)

    # Processes

    def pids(self, component: Component | None = None) -> list[int]:
        if component is None:
            return [process.pid for process in self._find_processes()]
        return [process.pid for process in self._tree(component)]

    def kill(self, component: Component) -> None:
        _kill(self._tree(component))
        self._processes.pop(component).wait()

    def start(self, component: Component) -> None:
        if component in self._processes:
            raise ValueError(f"the {component} is running: kill it first, or restart it")
        self._wait_until_healthy(component, since=self._launch(component))

    def restart(self, component: Component) -> None:
        self.kill(component)
        self.start(component)

    def output(self, component: Component) -> str:
        path = self._output_path(component)
        return path.read_text(errors="replace") if path.exists() else ""

    # Waiting

    def wait_until(self, condition: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
        """
        Wait for the first true value of ``condition()`` and return it.

        :param what: ends the sentence "waited for …" of the error
        :raises LiveAirflowError: when it doesn't come in ``timeout`` seconds, or when a component dies
        """
        deadline = time.monotonic() + timeout
        while True:
            if value := condition():
                return value
            for component, process in self._processes.items():
                if process.poll() is not None:
                    raise LiveAirflowError(
                        f"The {component} ended with {process.returncode} while this was waited for: {what}"
                        f"{self._last_output()}"
                    )
            if time.monotonic() >= deadline:
                raise LiveAirflowError(f"Waited {timeout:g} s for {what}{self._last_output()}")
            time.sleep(_POLL_SECONDS)

    def _launch(self, component: Component) -> datetime:
        since = datetime.now(UTC)
        with self._output_path(component).open("ab") as output:
            self._processes[component] = subprocess.Popen(
                [*_TIED, sys.executable, "-m", "airflow", component],
                env=self._env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for the caller, who then closes this object.
                start_new_session=True,
            )
        return since

    def _wait_until_healthy(self, component: Component, since: datetime) -> None:
        def healthy() -> bool:
            try:
                if component == "api-server":
                    return self.api("GET", "/monitor/health", user=None).ok
                # A job of before a restart counts as alive for a while after its death.
                response = self.api(
                    "GET",
                    "/jobs",
                    params={
                        "job_type": _JOBS[component],
                        "start_date_gte": since.isoformat(),
                        "is_alive": True,
                    },
                )
                return bool(self._checked(response)["jobs"])
            except requests.ConnectionError:
                return False

        self.wait_until(healthy, f"the {component} to be healthy", timeout=PATIENCE)

    def _tree(self, component: Component) -> list[psutil.Process]:
        try:
            main = psutil.Process(self._processes[component].pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _find_processes(self) -> list[psutil.Process]:
        """Every process with this home in its environment, also those that have left their parents."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("AIRFLOW_HOME") == str(self.home):
                    found.append(process)
            except psutil.Error:
                # It has ended, or is somebody else's.
                continue
        return found

    def _output_path(self, component: Component) -> Path:
        return self.home / f"{component}.out"

    def _last_output(self) -> str:
        return "".join(f"\n\n--- {component}:\n{self.output(component)[-2000:]}" for component in COMPONENTS)

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        return self._checked(self.api(method, path, **arguments))

    def _checked(self, answer: requests.Response) -> Any:
        if not answer.ok:
            raise LiveAirflowError(
                f"{answer.request.method} {answer.url} answered {answer.status_code}: {answer.text[:1000]}"
            )
        return answer.json()


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=PATIENCE)
