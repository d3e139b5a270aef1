# SPDX-License-Identifier: Apache-2.0
"""Import every public module of the installed package; run with ``python -I`` so that no checkout is seen."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import airflow_provider_luma


def main() -> int:
    location = Path(airflow_provider_luma.__file__).resolve()
    if "site-packages" not in location.parts:
        print(f"Not the installed package: {location}")
        return 1
    names = [
        module.name
        for module in pkgutil.walk_packages(airflow_provider_luma.__path__, "airflow_provider_luma.")
        if not any(part.startswith("_") for part in module.name.split("."))
    ]
    for name in names:
        importlib.import_module(name)
    print(f"Imported {len(names)} modules of airflow-provider-luma {airflow_provider_luma.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
