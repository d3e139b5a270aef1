# SPDX-License-Identifier: Apache-2.0
"""
Keeping the files of Luma tasks: whole, verified, and safe against hostile links. Nothing here knows Airflow.

:class:`~airflow_provider_luma.download.batch.Downloader` keeps the files of many tasks in a
:class:`~airflow_provider_luma.download.store.Store`. Below it, each module has one concern: ``addresses``
says where artifacts may come from, ``transport`` sends requests there, ``transfer`` takes one file's bytes,
``fetch`` resumes a transfer that breaks, ``formats`` tells what a file is, ``store`` lets it appear whole.
"""
