# SPDX-License-Identifier: Apache-2.0
"""Every Python example of the guides is run, against the sandbox; its Dags and its tests as well."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_luma.sandbox import LumaSandbox

DOCS = Path(__file__).parents[2] / "docs"
DAGS = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
# The id that the guides use.
TASK_ID = "4665a07c-7641-4809-a133-10786201bb56"
# The sandbox needn't be polled as rarely as a relay.
FASTER = {
    r"\bpoke_interval=\d+": "poke_interval=0.2",
    r"\bpause=3\b": "pause=0",
    r"\bwait_for_completion=True": "wait_for_completion=True, poll_interval=0.2",
}


def examples() -> list[tuple[str, int]]:
    return [
        (path.name, number)
        for path in sorted(DOCS.glob("*.md"))
        for number in range(len(blocks_of(path.name)))
    ]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


class Example:
    """A block as a file of its own; where it holds a Dag, in the dags folder."""

    def __init__(self, page: str, number: int, folder: Path) -> None:
        code = blocks_of(page)[number].replace("/data/luma", str(folder / "data"))
        for pattern, faster in FASTER.items():
            code = re.sub(pattern, faster, code)
        named = re.match(r"# \w+/(\w+)\.py\n", code)
        self.module = named[1] if named else f"{page.removesuffix('.md').replace('-', '_')}_{number}"
        self.path = (DAGS if "DAG(" in code else folder) / f"{self.module}.py"
        self.path.write_text(code)

    def remove(self) -> None:
        self.path.unlink()
        sys.modules.pop(self.module, None)


@pytest.fixture
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(pending_seconds=0.1, processing_seconds=0.1) as sandbox:
        sandbox.add_task(TASK_ID, state="completed")
        yield sandbox


@pytest.mark.usefixtures("connected", "metadata_database")
@pytest.mark.parametrize(("page", "number"), examples())
def test_an_example_runs(
    page: str,
    number: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for folder in (DAGS, tmp_path):
        monkeypatch.syspath_prepend(folder)
    # A test may import the Dag that stands before it.
    page_so_far = [Example(page, each, tmp_path) for each in range(number + 1)]
    try:
        module = importlib.import_module(page_so_far[-1].module)

        functions = inspect.getmembers(module, inspect.isfunction)
        tests = [function for name, function in functions if name.startswith("test_")]
        for test in tests:
            fixtures = inspect.signature(test).parameters
            test(**{fixture: request.getfixturevalue(fixture) for fixture in fixtures})
        dag: Any = vars(module).get("dag")
        if isinstance(dag, DAG) and not tests:
            assert dag.test().state == "success"
    finally:
        for example in page_so_far:
            example.remove()
