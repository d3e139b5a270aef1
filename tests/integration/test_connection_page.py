# SPDX-License-Identifier: Apache-2.0
"""The connection's form and its Test button, by the routes that Airflow's page uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from airflow_provider_luma.connection_fields import EXTRA_FIELDS
from airflow_provider_luma.sandbox import LumaSandbox

API_KEY = "sk-a-key-of-this-test"

pytestmark = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")


@pytest.fixture
def page(metadata_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Airflow's API as an administrator's browser calls it."""
    from airflow.api_fastapi.app import create_app, purge_cached_app

    for name, value in {
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test, long enough for its algorithm, and longer",
    }.items():
        monkeypatch.setenv(name, value)
    with TestClient(create_app(apps="all")) as client:
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
    purge_cached_app()


class TestThePage:
    @pytest.mark.every_airflow
    def test_its_form_has_our_fields_and_its_button_says_what_is_wrong(self, page: TestClient) -> None:
        forms = {form["connection_type"]: form for form in page.get("/ui/connections/hook_meta").json()}
        with LumaSandbox(api_key=API_KEY) as sandbox:
            filled_in: dict[str, Any] = {
                "connection_id": "luma_new",
                "conn_type": "luma",
                "host": sandbox.base_url,
                "password": API_KEY,
                "extra": json.dumps({field.name: field.default for field in EXTRA_FIELDS}),
            }
            good = page.post("/api/v2/connections/test", json=filled_in).json()
            wrong_key = page.post(
                "/api/v2/connections/test", json={**filled_in, "password": "sk-another"}
            ).json()
        wrong_host = page.post("/api/v2/connections/test", json=filled_in).json()

        assert list(forms["luma"]["extra_fields"]) == [field.name for field in EXTRA_FIELDS]
        assert forms["luma"]["standard_fields"]["password"]["title"] == "API key"
        assert good["status"]
        assert "answers and accepts the API key" in good["message"]
        assert not wrong_key["status"]
        assert "refuses the API key. Check the connection's password field" in wrong_key["message"]
        assert not wrong_host["status"]
        assert "Check the connection's host" in wrong_host["message"]
        assert API_KEY not in json.dumps([forms["luma"], good, wrong_key, wrong_host])
