# SPDX-License-Identifier: Apache-2.0
"""Test a live Airflow whose proxy disconnects after a submit; the sandbox counts the generations."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from airflow_provider_luma.sandbox import LumaSandbox
from tests.support.authority import Authority
from tests.support.live_airflow import LiveAirflow
from tests.support.proxies import DroppingProxy, for_tunnels

DAGS = """
from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_luma.operators.generate import LumaGenerateVideoOperator

for way in ("forward", "tunnel"):
    with DAG(way, schedule=None):
        LumaGenerateVideoOperator(
            task_id="generate",
            luma_conn_id=f"luma_{way}",
            prompt="a cat that dances",
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxied")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def sandboxes(folder: Path, authority: Authority) -> Iterator[dict[str, LumaSandbox]]:
    tls = for_tunnels(authority.host(folder, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))))
    with LumaSandbox() as forward, LumaSandbox(tls=tls) as tunnel:
        yield {"forward": forward, "tunnel": tunnel}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DroppingProxy]:
    with DroppingProxy(tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def airflow(
    folder: Path, authority: Authority, sandboxes: dict[str, LumaSandbox], proxy: DroppingProxy
) -> Iterator[LiveAirflow]:
    dags = folder / "dags"
    dags.mkdir()
    (dags / "proxied.py").write_text(DAGS)
    bundle = folder / "authority.pem"
    bundle.write_bytes(authority.certificate)

    def connection(way: str, **extra: object) -> str:
        sandbox = sandboxes[way]
        fields = {"host": sandbox.base_url, "password": sandbox.api_key, "extra": extra}
        return json.dumps({"conn_type": "luma", **fields})

    env = {
        "AIRFLOW_CONN_LUMA_FORWARD": connection("forward", proxies=proxy.by_scheme),
        # The environment names the proxy for https only, which doesn't affect Airflow's own http calls.
        "AIRFLOW_CONN_LUMA_TUNNEL": connection("tunnel", verify=str(bundle)),
        "HTTPS_PROXY": proxy.url,
    }
    with LiveAirflow(dags, env=env) as airflow:
        yield airflow


@pytest.mark.parametrize("way", ["forward", "tunnel"])
def test_a_submit_whose_proxy_disconnected_after_the_post_is_not_sent_again(
    airflow: LiveAirflow, sandboxes: dict[str, LumaSandbox], proxy: DroppingProxy, way: str
) -> None:
    proxy.pass_on()
    proxy.drop("before_answer")

    airflow.trigger(way, run_id="dropped")

    assert airflow.wait_for_run(way, "dropped", timeout=300) == "failed"
    assert len(sandboxes[way].generations) == 1
    target = f"127.0.0.1:{sandboxes[way].port}"
    assert proxy.requests == [f"CONNECT {target}" if way == "tunnel" else f"POST {target}"]
    # One of four tries was used.
    assert airflow.task(way, "dropped", "generate")["try_number"] == 1
    path = f"/dags/{way}/dagRuns/dropped/taskInstances/generate/logs/1"
    log = airflow.api("GET", path, params={"full_content": "true"}).text
    assert "unknown whether the relay" in log


def test_a_submit_whose_tunnel_was_refused_is_sent_by_a_retry(
    airflow: LiveAirflow, sandboxes: dict[str, LumaSandbox], proxy: DroppingProxy
) -> None:
    before = len(sandboxes["tunnel"].generations)
    proxy.pass_on()
    proxy.drop("502", times=1)

    airflow.trigger("tunnel", run_id="refused")

    assert airflow.wait_for_run("tunnel", "refused", timeout=300) == "success"
    assert len(sandboxes["tunnel"].generations) == before + 1
    assert airflow.task("tunnel", "refused", "generate")["try_number"] == 2
