#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv with the pinned development environment and the package itself, editable.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

constraints=constraints/airflow-3.3.2.txt

if ! python=$(tools/find_python.sh 3.11 3.12 3.13 3.14); then
    echo "Install one, for example: sudo apt-get install python3 python3-venv (Debian 12 and newer)" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$python can't make virtual environments. Install what it lacks:" >&2
    echo "    sudo apt-get install python3-venv" >&2
    exit 1
fi

echo "Creating .venv with $("$python" --version)"
"$python" -m venv --clear .venv
export VIRTUAL_ENV=$PWD/.venv
echo "Installing uv"
.venv/bin/python -m pip install -qq --disable-pip-version-check --constraint "$constraints" uv
echo "Installing Airflow, the development tools and this package (a minute or two on the first run)"
.venv/bin/uv pip install --quiet --constraint "$constraints" --build-constraint "$constraints" \
    --group dev --editable .
touch .venv/.installed
echo "Installed Airflow $(.venv/bin/python -c 'from importlib.metadata import version as v; print(v("apache-airflow"))')"
