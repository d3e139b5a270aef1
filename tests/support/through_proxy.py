# SPDX-License-Identifier: Apache-2.0
"""
Send all http requests of a test run through a proxy, as a pytest plugin.

::

    python -m pytest -p tests.support.through_proxy tests/integration/test_download.py

The run fails if the proxy received no request.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.proxies import DroppingProxy


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    with tempfile.TemporaryDirectory() as folder, DroppingProxy(Path(folder)) as proxy:
        # Not earlier, because the suite's own conftest removes the developer's proxies.
        os.environ["HTTP_PROXY"] = os.environ["http_proxy"] = proxy.url
        result = yield
        if not proxy.requests:
            raise session.Failed("Nothing went through the proxy.")
    return result
