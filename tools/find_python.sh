#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the path of the first Python among the given minor versions ("3.11 3.12") that is on this machine:
# on PATH, from pyenv or from uv.
set -euo pipefail

runs_as() {
    [[ $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$2" ]]
}

for version in "$@"; do
    candidates=("python$version" python3)
    for root in "${PYENV_ROOT:-}" "$HOME/.pyenv"; do
        [[ -n $root ]] && candidates+=("$root"/versions/"$version"*/bin/python3)
    done
    if command -v uv >/dev/null && managed=$(uv python find --managed-python "$version" 2>/dev/null); then
        candidates+=("$managed")
    fi
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null && runs_as "$candidate" "$version"; then
            "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
            exit 0
        fi
    done
done
versions=$*
echo "No Python ${versions// / or } on this machine." >&2
exit 1
