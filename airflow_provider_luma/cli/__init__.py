# SPDX-License-Identifier: Apache-2.0
"""The command line: ``airflow luma …`` (Airflow 3.2 and newer) and ``python -m airflow_provider_luma …``."""
