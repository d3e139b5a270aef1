# SPDX-License-Identifier: Apache-2.0
"""What the package's source files import, read without running them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_luma"


def imported_names(source: str) -> set[str]:
    """Return the full name of everything that a source file imports: at its top, in functions, for types."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def load_module(path: Path) -> ModuleType:
    """Import a file that is on no path when the tests run against an installed package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
