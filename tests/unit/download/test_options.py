# SPDX-License-Identifier: Apache-2.0
"""Tests of the options of a download."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.exceptions import LumaConfigError


class TestDownloadOptions:
    def test_the_defaults_are_valid(self) -> None:
        options = DownloadOptions()

        assert (options.artifacts, options.on_existing, options.max_concurrency) == (("video",), "skip", 8)
        assert (options.max_bytes, options.file_timeout) == (2 * 1024**3, 3600)

    @pytest.mark.parametrize(
        ("argument", "value", "right"),
        [
            ("artifacts", "video", "list"),
            ("artifacts", ["clip"], "a list of any of video, video_raw"),
            ("artifacts", [], "at least one"),
            ("artifacts", None, "list"),
            ("on_existing", "overwrite", "'replace'"),
            ("on_existing", True, "'replace'"),
            ("max_bytes", 0, "at least 1"),
            ("max_bytes", "1 GiB", "at least 1"),
            ("max_bytes", 1.5, "at least 1"),
            ("max_concurrency", 0, "at least 1"),
            ("max_concurrency", True, "at least 1"),
            ("attempts", -1, "at least 1"),
            ("file_timeout", 0, "positive"),
            ("file_timeout", "1 h", "positive"),
            ("file_timeout", float("inf"), "positive"),
            ("file_timeout", float("nan"), "positive"),
            ("file_timeout", 10_000_000, "positive"),
            ("backoff", -1, "positive"),
            ("backoff", 0, "positive"),
            ("backoff_max", 1e7, "positive"),
        ],
    )
    def test_an_unusable_option_is_named_with_what_it_must_be(
        self, argument: str, value: Any, right: str
    ) -> None:
        with pytest.raises(LumaConfigError, match=argument) as caught:
            DownloadOptions(**{argument: value})

        assert right in str(caught.value)
        assert isinstance(value, list) or repr(value) in str(caught.value)


class TestFileNames:
    def test_a_name_is_made_of_id_artifact_and_extension(self) -> None:
        name = DownloadOptions().name(task_id="task_1", artifact="video", extension=".mp4")

        assert name == "task_1_video.mp4"

    def test_slashes_make_folders(self) -> None:
        options = DownloadOptions(file_name="{id}/{artifact}{ext}")

        assert options.name(task_id="a", artifact="last_frame", extension=".jpg") == "a/last_frame.jpg"

    def test_doubled_braces_are_braces(self) -> None:
        options = DownloadOptions(file_name="{{{id}}}{ext}")

        assert options.name(task_id="a", artifact="video", extension=".mp4") == "{a}.mp4"

    @pytest.mark.parametrize(
        ("file_name", "reason"),
        [
            ("{id}_{prompt}{ext}", "other fields"),
            ("{id.__class__}{ext}", "other fields"),
            ("{id[0]}{ext}", "other fields"),
            ("{id!r}{ext}", "other fields"),
            ("{id:>99999999}{ext}", "other fields"),
            ("{}{ext}", "other fields"),
            ("{id", "expected '}'"),
            ("../{id}{ext}", "not a name inside a folder"),
            ("a/../../{id}{ext}", "not a name inside a folder"),
            ("/data/{id}{ext}", "not a name inside a folder"),
            ("{id}//{ext}", "not a name inside a folder"),
            ("./{id}{ext}", "not a name inside a folder"),
            ("{id}/", "not a name inside a folder"),
            ("..\\{id}{ext}", "not a name inside a folder"),
            ("{id}\n{ext}", "not a name inside a folder"),
            ("{id}\0{ext}", "not a name inside a folder"),
            ("", "not a name inside a folder"),
            ("{artifact}{ext}", "several files one name"),
            ("video.mp4", "several files one name"),
            (None, "got None"),
            (7, "got 7"),
        ],
    )
    def test_a_name_that_can_not_be_used_is_refused(self, file_name: Any, reason: str) -> None:
        with pytest.raises(LumaConfigError, match="file_name") as caught:
            DownloadOptions(file_name=file_name)

        assert reason in str(caught.value)

    def test_several_artifacts_need_the_artifact_in_the_file_name(self) -> None:
        DownloadOptions(file_name="{id}{ext}", artifacts=["video", "video"])
        with pytest.raises(LumaConfigError, match="several files one name"):
            DownloadOptions(file_name="{id}{ext}", artifacts=["thumbnail", "last_frame"])
