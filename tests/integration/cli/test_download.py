# SPDX-License-Identifier: Apache-2.0
"""``download`` over real HTTP."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox
from tests.integration.cli.conftest import Luma


class TestDownload:
    def test_files_are_complete_and_their_paths_are_printed(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        ids = [sandbox.add_task(state="completed") for _ in range(3)]

        code, out, err = luma(
            "download", *ids, "--to", str(tmp_path / "new" / "folder"), "--artifact", "video"
        )

        assert code == Exit.OK
        paths = [tmp_path / "new" / "folder" / f"{task_id}_video.mp4" for task_id in ids]
        assert sorted(out.splitlines()) == sorted(map(str, paths))
        assert all(path.read_bytes()[4:8] == b"ftyp" for path in paths)
        assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(paths)
        assert "MiB in" in err

    def test_an_existing_file_is_not_downloaded_again(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        arguments = ("download", task_id, "--to", str(tmp_path), "--json")
        luma(*arguments)

        result = luma(*arguments)

        (record,) = result.json["files"]
        assert result.code == Exit.OK
        assert record["seconds"] == 0
        assert record["path"] == f"{tmp_path}/{task_id}_video.mp4"
        assert "already exists" in result.err

    def test_file_names_and_artifacts_are_configurable(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")

        luma(
            *("download", task_id, "--to", str(tmp_path), "--file-name", "{id}/{artifact}{ext}"),
            *("--artifact", "video", "--artifact", "thumbnail"),
        )

        assert {path.name for path in (tmp_path / task_id).iterdir()} == {"thumbnail.jpg", "video.mp4"}

    def test_a_failure_does_not_stop_the_other_downloads(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        good = sandbox.add_task(state="completed")

        result = luma("download", "unknown-id", good, "--to", str(tmp_path), "--json")

        assert result.code == Exit.TASKS_FAILED
        assert [record["id"] for record in result.json["files"]] == [good]
        (failure,) = result.json["failures"]
        assert (failure["id"], failure["retryable"]) == ("unknown-id", False)
        assert failure["reason"]

    def test_an_existing_file_is_an_error_with_on_existing_fail(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        (tmp_path / f"{task_id}_video.mp4").write_text("mine")

        code, _, err = luma("download", task_id, "--to", str(tmp_path), "--on-existing", "fail")

        assert code == Exit.ERROR
        assert f"{task_id}_video.mp4" in err
        assert (tmp_path / f"{task_id}_video.mp4").read_text() == "mine"

    def test_an_unwritable_folder_is_an_error(self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path) -> None:
        task_id = sandbox.add_task(state="completed")
        (tmp_path / "file").write_text("no folder")

        assert luma("download", task_id, "--to", str(tmp_path / "file")).code == Exit.ERROR
        code, _, err = luma("download", task_id, "--to", "nosuchstore://bucket")
        assert code == Exit.USAGE
        assert "'nosuchstore://bucket'" in err

    def test_the_key_is_not_sent_to_artifact_hosts(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        luma("download", sandbox.add_task(state="completed"), "--to", str(tmp_path))

        fetched = [call for call in sandbox.calls if call.name == "media"]
        assert fetched
        for call in fetched:
            assert "authorization" not in {name.lower() for name in call.headers}
