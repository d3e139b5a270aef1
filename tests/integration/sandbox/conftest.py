# SPDX-License-Identifier: Apache-2.0
"""A plain HTTP client for the sandbox, independent of the provider's own client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from airflow_provider_luma.sandbox import LumaSandbox, Sandbox
from tests.support.patience import PATIENCE


class Client:
    """Calls a sandbox as any program would."""

    def __init__(self, sandbox: Sandbox, session: requests.Session) -> None:
        self.sandbox = sandbox
        self.session = session
        self.headers = {"Authorization": f"Bearer {sandbox.api_key}", "Accept": "application/json"}
        self.timeout = PATIENCE

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        more = {"headers": self.headers, "timeout": self.timeout, "allow_redirects": False, **more}
        return self.session.request(method, self.sandbox.base_url + path, **more)

    def batch(self, *ids: str, **more: Any) -> requests.Response:
        return self.request("POST", "/luma/tasks", json={"ids": list(ids)}, **more)

    def single(self, task_id: str) -> requests.Response:
        return self.request("GET", f"/luma/generations/{task_id}")

    def submit(self, prompt: str = "a cat that dances", **more: Any) -> requests.Response:
        return self.request("POST", "/luma/generations", json={"user_prompt": prompt, **more})

    def extend(self, task_id: str, prompt: str = "and then it sleeps") -> requests.Response:
        return self.request("POST", f"/luma/generations/{task_id}/extend", json={"user_prompt": prompt})

    def media(self, task_id: str, name: str = "video.mp4", **more: Any) -> requests.Response:
        url = f"{self.sandbox.root_url}/media/{task_id}/{name}"
        return self.session.get(url, **{"timeout": self.timeout, "allow_redirects": False, **more})


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def client_of(session: requests.Session) -> Callable[[Sandbox], Client]:
    return lambda sandbox: Client(sandbox, session)


@pytest.fixture
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox: LumaSandbox, session: requests.Session) -> Client:
    return Client(sandbox, session)
