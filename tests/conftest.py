# SPDX-License-Identifier: Apache-2.0
"""Settings that must stand before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile

_HOME = tempfile.mkdtemp(prefix="airflow-provider-luma-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# The developer's own Airflow, connections and proxies are none of the tests' business.
for _name in [name for name in os.environ if name.startswith("AIRFLOW_") or name.lower().endswith("_proxy")]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": f"{_HOME}/dags",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # Airflow 3.1 would otherwise run the Dag of the test before that has the same name.
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
}

# Where bytecode isn't kept beside the sources, each of the many processes would compile Airflow for itself.
# The workers of pytest-xdist and all subprocesses inherit the folder.
if sys.dont_write_bytecode and sys.pycache_prefix is None:
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = f"{_HOME}/bytecode"
    sys.dont_write_bytecode = False

# A shell that puts a script's command into the background has it ignore Ctrl-C: the tests of Ctrl-C would
# wait for ever. The subprocesses of a process with a handler don't ignore it either.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
