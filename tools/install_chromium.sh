#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs Debian's Chromium for the browser tests where it is missing.
set -euo pipefail

[[ -n ${CHROMIUM:-} ]] || command -v chromium >/dev/null && exit

if ! command -v apt-get >/dev/null; then
    echo "The browser tests need Chromium: install it and set CHROMIUM to its path" >&2
    exit 1
fi
echo "Installing Chromium"
as_root=()
((EUID == 0)) || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium fonts-liberation >/dev/null
