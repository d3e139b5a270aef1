# SPDX-License-Identifier: Apache-2.0
"""Configure Sphinx, which ``make docs`` runs."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

# The reference imports the package, and that imports Airflow, which writes a configuration into its home.
if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-provider-luma-docs-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from airflow_provider_luma import __version__

project = "airflow-provider-luma"
author = "the airflow-provider-luma contributors"
project_copyright = author
version = release = __version__

extensions = ["luma_tables", "myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"airflow-provider-luma {__version__}"
html_copy_source = False
# The copied text leaves out the prompt.
copybutton_prompt_text = "$ "

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True}
# These names belong to other projects, whose inventories a build without a network can't read.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(airflow|collections|datetime|enum|logging|msgspec|pathlib|requests|ssl|types|typing)(\..*)?",
    ),
    # Names that are imported for type checking alone.
    ("py:class", r"ObjectStoragePath|OnExisting|TimeLimit|XComArg|timedelta"),
    # Bounds of a number's annotation.
    ("py:class", r"g[et]=.*"),
]
