# SPDX-License-Identifier: Apache-2.0
"""Test downloads over real HTTP: complete files or clear errors, and nothing else under a file's name."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pytest_mock import MockerFixture

from airflow_provider_luma.client.settings import RelaySettings
from airflow_provider_luma.download import resumable
from airflow_provider_luma.download.downloader import Downloader, FileFailure, FileRecord
from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.download.transport import Route
from airflow_provider_luma.exceptions import (
    LumaAuthError,
    LumaConfigError,
    LumaDownloadError,
    LumaFileExistsError,
    LumaInterruptedError,
    LumaMissingArtifactError,
    LumaStorageError,
)
from airflow_provider_luma.sandbox import LumaSandbox, RecordedCall, faults
from airflow_provider_luma.sandbox.faults import Fault
from airflow_provider_luma.sandbox.media_host import media_file
from tests.support.bad_disks import FullDisk, NoRename
from tests.support.patience import PATIENCE

SIZE = 3_000_000


@pytest.fixture
def sandbox() -> Iterator[LumaSandbox]:
    with LumaSandbox(video_bytes=SIZE) as sandbox:
        yield sandbox


class Result(NamedTuple):
    records: dict[tuple[str, str], FileRecord]
    failures: list[FileFailure]


class Lab:
    """Download from a sandbox into a folder."""

    def __init__(self, sandbox: LumaSandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.settings = RelaySettings.from_fields(
            host=sandbox.base_url, password=sandbox.api_key, extra=f'{{"read_timeout": {PATIENCE}}}'
        )

        self.client = self.settings.client()

    def expect(self, fault: Fault) -> None:
        """Shorten the read timeout for faults that leave a response out."""
        if fault.name in ("hang", "stall"):
            self.settings = msgspec.structs.replace(self.settings, read_timeout=0.5)

    def close(self) -> None:
        self.client.close()

    def downloader(
        self,
        *,
        fs: AbstractFileSystem | None = None,
        known: Sequence[FileRecord] = (),
        on_progress: Any = None,
        **options: Any,
    ) -> Downloader:
        return Downloader(
            self.client,
            FileStore(fs or LocalFileSystem(), str(self.folder), label=str(self.folder), owner="lab"),
            Route.of(self.settings),
            options=DownloadOptions(**{"backoff": 0.01, "backoff_max": 0.05, **options}),
            known=known,
            on_progress=on_progress,
        )

    def run(self, *ids: str, **arguments: Any) -> Result:
        with closing(self.downloader(**arguments).run(ids)) as outcomes:
            done = list(outcomes)
        return Result(
            {(one.id, one.artifact): one for one in done if isinstance(one, FileRecord)},
            [one for one in done if isinstance(one, FileFailure)],
        )

    def video(self, **script: Any) -> str:
        return self.sandbox.add_task(state="completed", **script)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    def media_calls(self) -> list[RecordedCall]:
        return [call for call in self.sandbox.calls if call.name == "media"]


@pytest.fixture
def lab(sandbox: LumaSandbox, tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(sandbox, tmp_path / "videos")) as lab:
        yield lab


def true_bytes(task_id: str, name: Any = "video.mp4", size: int = SIZE) -> bytes:
    file = media_file(task_id, name, size)
    return b"".join(bytes(piece) for piece in file.slices(0, file.size))


def assert_kept(lab: Lab, task_id: str, result: Result, size: int = SIZE) -> None:
    """Assert that the video is complete, with a true record, and that no other file exists."""
    assert result.failures == []
    path = lab.folder / f"{task_id}_video.mp4"
    body = true_bytes(task_id, size=size)
    assert path.read_bytes() == body
    record = result.records[task_id, "video"]
    assert (record.bytes, record.sha256) == (size, hashlib.sha256(body).hexdigest())
    assert lab.names() == [path.name]


def assert_failed(lab: Lab, result: Result) -> LumaDownloadError | LumaMissingArtifactError:
    """Assert that neither the file nor any part of it exists."""
    assert result.records == {}
    assert lab.names() == []
    [failure] = result.failures
    assert failure.error.task_ids == (failure.id,)
    return failure.error


class TestCompleteFiles:
    def test_every_artifact_is_stored_and_recorded(self, lab: Lab) -> None:
        task_id = lab.video()

        result = lab.run(task_id, artifacts=["video", "video_raw", "thumbnail", "last_frame"])

        assert result.failures == []
        assert lab.names() == [
            f"{task_id}_last_frame.jpg",
            f"{task_id}_thumbnail.jpg",
            f"{task_id}_video.mp4",
            f"{task_id}_video_raw.mp4",
        ]
        thumbnail = result.records[task_id, "thumbnail"]
        body = true_bytes(task_id, "thumbnail.jpg")
        assert Path(thumbnail.path).read_bytes() == body
        assert msgspec.structs.asdict(thumbnail) == {
            "id": task_id,
            "artifact": "thumbnail",
            "path": f"{lab.folder}/{task_id}_thumbnail.jpg",
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "content_type": "image/jpeg",
            "seconds": thumbnail.seconds,
        }
        assert thumbnail.seconds > 0

    def test_a_file_name_may_contain_folders(self, lab: Lab) -> None:
        task_id = lab.video()

        result = lab.run(task_id, file_name="run-1/{id}/{artifact}{ext}")

        assert result.records[task_id, "video"].path == f"{lab.folder}/run-1/{task_id}/video.mp4"
        assert (lab.folder / "run-1" / task_id / "video.mp4").stat().st_size == SIZE

    def test_a_complete_body_needs_no_length(self, lab: Lab, sandbox: LumaSandbox) -> None:
        for fault in (Fault(name="chunked", ending="chunked"), faults.unframed(keep=1)):
            task_id = lab.video()
            sandbox.fail_next("media", fault)
            assert_kept(lab, task_id, lab.run(task_id))
            (lab.folder / f"{task_id}_video.mp4").unlink()
        assert len(lab.media_calls()) == 2

    def test_connections_are_reused(self, lab: Lab, mocker: MockerFixture) -> None:
        ids = [lab.video() for _ in range(6)]
        create_connection = mocker.spy(socket, "create_connection")

        lab.run(*ids, artifacts=["video", "thumbnail"], max_concurrency=1)

        assert len(lab.media_calls()) == 12
        assert create_connection.call_count == 1

    def test_no_ids_need_no_request(self, lab: Lab, sandbox: LumaSandbox) -> None:
        assert lab.run() == ({}, [])
        assert sandbox.calls == []


class TestBrokenDownloads:
    @pytest.mark.parametrize(
        "fault",
        [
            faults.truncated(),
            faults.truncated(0.0005),
            faults.chunk_cut(),
            faults.unframed(),
            faults.reset(),
            faults.reset(0.5),
            faults.drop(),
            faults.stall(),
            faults.hang(),
            faults.do_request_failed(),
            faults.bad_gateway(),
            faults.edge_timeout(),
            faults.too_many_requests(),
            faults.too_many_requests(retry_after=0.1),
        ],
        ids=lambda fault: f"{fault.name}-{fault.keep}",
    )
    def test_a_download_that_breaks_twice_ends_in_a_complete_file(
        self, lab: Lab, sandbox: LumaSandbox, fault: Fault
    ) -> None:
        task_id = lab.video()
        lab.expect(fault)
        sandbox.fail_next("media", fault, times=2)

        assert_kept(lab, task_id, lab.run(task_id))

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (faults.truncated(0.5), "1500000 of 3000000 bytes"),
            (faults.chunk_cut(), "IncompleteRead"),
            (faults.unframed(), "mid-file"),
            (faults.reset(), "Connection reset by peer"),
            (faults.drop(), "RemoteDisconnected"),
            (faults.hang(), "timed out"),
            (faults.bad_gateway(), "HTTP 502"),
            (faults.truncated(0), "0 of 3000000 bytes"),
        ],
        ids=lambda value: value if isinstance(value, str) else value.name,
    )
    def test_a_download_that_always_breaks_ends_in_a_clear_error(
        self, lab: Lab, sandbox: LumaSandbox, fault: Fault, reason: str
    ) -> None:
        lab.expect(fault)
        sandbox.fail_when("media", msgspec.structs.replace(fault, ranges=False))

        error = assert_failed(lab, lab.run(lab.video(), attempts=2))

        assert reason in str(error)
        assert "attempts: 2" in str(error)
        assert error.retryable

    def test_a_broken_download_is_resumed(self, lab: Lab, sandbox: LumaSandbox) -> None:
        task_id = lab.video()
        sandbox.fail_next("media", faults.truncated(0.5))

        assert_kept(lab, task_id, lab.run(task_id))

        first, second = lab.media_calls()
        assert "range" not in first.headers
        assert second.headers["range"] == "bytes=1500000-"
        assert second.headers["if-range"] == media_file(task_id, "video.mp4", SIZE).etag
        assert second.status == 206

    def test_a_download_is_resumed_as_long_as_more_arrives(self, lab: Lab, sandbox: LumaSandbox) -> None:
        task_id = lab.video()
        sandbox.fail_next("media", faults.truncated(0.5), times=5)

        assert_kept(lab, task_id, lab.run(task_id, attempts=2))

        assert len(lab.media_calls()) == 6

    @pytest.mark.parametrize("fault", [faults.no_ranges(), faults.changed_etag()], ids=lambda f: f.name)
    def test_it_restarts_where_the_host_can_not_resume(
        self, lab: Lab, sandbox: LumaSandbox, fault: Fault
    ) -> None:
        task_id = lab.video()
        sandbox.fail_next("media", faults.truncated(0.5))
        sandbox.fail_next("media", fault)

        assert_kept(lab, task_id, lab.run(task_id))

        assert [call.status for call in lab.media_calls()] == [200, 200]

    def test_a_file_that_was_replaced_by_a_shorter_one_is_restarted(
        self, lab: Lab, sandbox: LumaSandbox
    ) -> None:
        task_id = lab.video()
        sandbox.fail_next("media", faults.truncated(0.5))
        sandbox.fail_next("media", faults.status(416))

        assert_kept(lab, task_id, lab.run(task_id))

        assert len(lab.media_calls()) == 3

    def test_a_file_that_fails_does_not_affect_the_others(self, lab: Lab, sandbox: LumaSandbox) -> None:
        ids = [lab.video() for _ in range(6)]
        sandbox.fail_when("media", faults.drop(), ids=[ids[2]])

        result = lab.run(*ids, attempts=2)

        assert [failure.id for failure in result.failures] == [ids[2]]
        assert {task_id for task_id, _ in result.records} == {*ids} - {ids[2]}
        assert len(lab.names()) == 5


class TestUrls:
    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_a_refused_url_is_replaced_by_a_fresh_one(
        self, lab: Lab, sandbox: LumaSandbox, status: int
    ) -> None:
        task_id = lab.video()
        sandbox.fail_next("media", faults.media_error(status))

        assert_kept(lab, task_id, lab.run(task_id))

        assert (sandbox.count("batch"), sandbox.count("media")) == (2, 2)

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_a_fresh_url_that_is_refused_is_a_retryable_error(
        self, lab: Lab, sandbox: LumaSandbox, status: int
    ) -> None:
        sandbox.fail_when("media", faults.media_error(status))

        error = assert_failed(lab, lab.run(lab.video()))

        assert f"HTTP {status} although" in str(error)
        assert error.retryable
        assert sandbox.count("media") == 2

    def test_a_url_that_expires_during_the_run_is_replaced_by_a_fresh_one(self, tmp_path: Path) -> None:
        with (
            LumaSandbox(video_bytes=SIZE, links_expire_after=60) as sandbox,
            closing(Lab(sandbox, tmp_path / "videos")) as lab,
        ):
            ids = [lab.video() for _ in range(4)]
            outcomes = lab.downloader(max_concurrency=1).run(ids)
            with closing(outcomes):
                kept = [next(outcomes)]
                sandbox.advance(61)
                kept += outcomes

        assert all(isinstance(one, FileRecord) for one in kept)
        assert len(lab.names()) == 4
        assert {call.status for call in lab.media_calls()} >= {200, 403}

    def test_a_broken_download_is_resumed_from_a_fresh_url(self, tmp_path: Path) -> None:
        with (
            LumaSandbox(video_bytes=SIZE, link_uses=1) as sandbox,
            closing(Lab(sandbox, tmp_path / "videos")) as lab,
        ):
            task_id = lab.video()
            sandbox.fail_next("media", faults.truncated(0.5), times=1)

            assert_kept(lab, task_id, lab.run(task_id))

        assert [call.status for call in lab.media_calls()] == [200, 403, 206]

    def test_urls_are_queried_in_batches_as_they_are_needed(self, lab: Lab, sandbox: LumaSandbox) -> None:
        ids = [lab.video(video_bytes=200_000) for _ in range(24)]

        result = lab.run(*ids, artifacts=["video", "thumbnail"], max_concurrency=2)

        assert len(result.records) == 48
        calls = sandbox.calls
        batches = [index for index, call in enumerate(calls) if call.name == "batch"]
        assert [len(calls[index].ids) for index in batches] == [4] * 6
        # At each query, all files of previous batches but the last four are being downloaded or complete.
        for number, index in enumerate(batches):
            assert sum(call.name == "media" for call in calls[:index]) >= 8 * number - 4

    def test_an_artifact_without_a_url_fails_alone(self, lab: Lab, sandbox: LumaSandbox) -> None:
        good = lab.video()
        failed = sandbox.add_task(fails_after=0, fails_with="moderated")
        pending = sandbox.add_task(state="pending")

        result = lab.run(good, failed, pending, "unknown-id")

        assert lab.names() == [f"{good}_video.mp4"]
        errors = {failure.id: (str(failure.error), failure.error.retryable) for failure in result.failures}
        assert "failed (moderated), no video" in errors[failed][0]
        assert "pending, no video" in errors[pending][0]
        assert "doesn't know this id" in errors["unknown-id"][0]
        assert [errors[task_id][1] for task_id in (failed, pending, "unknown-id")] == [False, True, False]

    def test_a_relay_that_refuses_the_key_fails_the_run(self, lab: Lab, sandbox: LumaSandbox) -> None:
        sandbox.fail_next("batch", faults.unauthorized())

        with pytest.raises(LumaAuthError):
            lab.run(lab.video())

    def test_an_id_with_a_path_is_refused(self, lab: Lab, sandbox: LumaSandbox) -> None:
        for task_id in ("../../etc/cron.d/evil", "a/b", "..", "a\0b", ""):
            with pytest.raises(LumaConfigError):
                lab.run(task_id)
        assert lab.names() == []

    def test_an_id_that_the_relay_invents_is_not_used(self, lab: Lab, tmp_path: Path) -> None:
        good, evil = lab.video(), lab.video(overrides={"id": "../evil"})

        [failure] = lab.run(good, evil).failures

        assert failure.id == evil
        assert "doesn't know this id" in str(failure.error)
        assert lab.names() == [f"{good}_video.mp4"]
        assert not list(tmp_path.rglob("*evil*"))


class TestExistingFiles:
    def test_a_complete_file_is_skipped(self, lab: Lab, sandbox: LumaSandbox) -> None:
        task_id = lab.video()
        first = lab.run(task_id)
        inode = (lab.folder / lab.names()[0]).stat().st_ino

        second = lab.run(task_id)

        assert_kept(lab, task_id, second)
        assert (lab.folder / lab.names()[0]).stat().st_ino == inode
        kept = second.records[task_id, "video"]
        assert kept == msgspec.structs.replace(first.records[task_id, "video"], seconds=0.0)
        assert [call.headers.get("range") for call in lab.media_calls()] == [None, "bytes=0-0"]

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", true_bytes("any")[:-1], b"x" * SIZE], ids=["empty", "page", "short", "other"]
    )
    def test_an_incomplete_file_is_downloaded_again(self, lab: Lab, body: bytes) -> None:
        task_id = lab.video()
        lab.folder.mkdir()
        (lab.folder / f"{task_id}_video.mp4").write_bytes(body)

        assert_kept(lab, task_id, lab.run(task_id))

    def test_without_an_announced_size_the_files_structure_decides(
        self, lab: Lab, sandbox: LumaSandbox
    ) -> None:
        whole, part = lab.video(), lab.video()
        lab.folder.mkdir()
        (lab.folder / f"{whole}_video.mp4").write_bytes(true_bytes(whole))
        (lab.folder / f"{part}_video.mp4").write_bytes(true_bytes(part)[:-5])
        sandbox.fail_when("media", Fault(name="chunked", ending="chunked", ranges=False))

        result = lab.run(whole, part)

        assert result.records[whole, "video"].seconds == 0
        assert result.records[part, "video"].seconds > 0
        assert (lab.folder / f"{part}_video.mp4").read_bytes() == true_bytes(part)

    def test_a_complete_file_can_be_replaced(self, lab: Lab) -> None:
        task_id = lab.video()
        lab.run(task_id)

        result = lab.run(task_id, on_existing="replace")

        assert_kept(lab, task_id, result)
        assert [call.headers.get("range") for call in lab.media_calls()] == [None, None]

    def test_a_file_that_can_not_be_replaced_stays(self, lab: Lab, sandbox: LumaSandbox) -> None:
        task_id = lab.video()
        lab.run(task_id)
        sandbox.fail_when("media", faults.truncated(0.1))

        result = lab.run(task_id, on_existing="replace", attempts=1)

        assert len(result.failures) == 1
        assert (lab.folder / f"{task_id}_video.mp4").read_bytes() == true_bytes(task_id)
        assert len(lab.names()) == 1

    def test_an_existing_file_can_be_an_error_before_any_download(
        self, lab: Lab, sandbox: LumaSandbox
    ) -> None:
        there, missing = lab.video(), lab.video()
        lab.run(there)
        calls = len(sandbox.calls)

        with pytest.raises(LumaFileExistsError, match="exist: 1 of 2") as caught:
            lab.run(missing, there, on_existing="fail")

        assert f"{there}_video.mp4" in str(caught.value)
        assert len(sandbox.calls) == calls
        assert lab.names() == [f"{there}_video.mp4"]

    @pytest.mark.parametrize("on_existing", ["skip", "replace", "fail"])
    def test_a_file_of_a_previous_try_needs_no_request(
        self, lab: Lab, sandbox: LumaSandbox, on_existing: str
    ) -> None:
        task_id = lab.video()
        record = lab.run(task_id).records[task_id, "video"]
        calls = len(sandbox.calls)

        result = lab.run(task_id, on_existing=on_existing, known=[record])

        assert_kept(lab, task_id, result)
        assert len(sandbox.calls) == calls

    @pytest.mark.parametrize("on_existing", ["skip", "replace", "fail"])
    @pytest.mark.parametrize("damage", ["gone", "shorter", "one byte"])
    def test_a_file_that_no_longer_matches_its_record_is_downloaded_again(
        self, lab: Lab, on_existing: str, damage: str
    ) -> None:
        task_id = lab.video()
        record = lab.run(task_id).records[task_id, "video"]
        path = Path(record.path)
        if damage == "gone":
            path.unlink()
        elif damage == "shorter":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"?")

        assert_kept(lab, task_id, lab.run(task_id, on_existing=on_existing, known=[record]))


class TestStores:
    @pytest.mark.parametrize("room", [0, 1_000_000])
    def test_a_full_disk_fails_the_run_and_leaves_nothing(self, lab: Lab, room: int) -> None:
        ids = [lab.video() for _ in range(20)]

        with pytest.raises(LumaStorageError, match="No space left on device"):
            lab.run(*ids, fs=FullDisk(room), max_concurrency=2)

        assert lab.names() == []
        assert len(lab.media_calls()) < 20

    def test_a_store_that_fails_at_commit_leaves_nothing(self, lab: Lab) -> None:
        with pytest.raises(LumaStorageError, match="Can't commit"):
            lab.run(lab.video(), fs=NoRename())

        assert lab.names() == []


class TestInterrupting:
    @pytest.mark.parametrize(
        "fault", [faults.stall(), faults.hang(), faults.drip(0.01), faults.bad_gateway()]
    )
    def test_downloads_stop_at_once_and_leave_nothing(
        self, lab: Lab, sandbox: LumaSandbox, fault: Fault
    ) -> None:
        lab.settings = msgspec.structs.replace(lab.settings, read_timeout=600)
        downloader = lab.downloader(backoff=600, backoff_max=600)

        def interrupt(call: RecordedCall) -> bool:
            downloader.interrupt()
            return True

        sandbox.fail_when("media", fault, interrupt)
        threads = threading.active_count()

        with pytest.raises(LumaInterruptedError):
            list(downloader.run([lab.video() for _ in range(3)]))

        assert lab.names() == []
        assert threading.active_count() == threads

    def test_closing_the_outcomes_stops_the_rest(self, lab: Lab, sandbox: LumaSandbox) -> None:
        good, stalled = lab.video(), lab.video()
        lab.settings = msgspec.structs.replace(lab.settings, read_timeout=600)
        sandbox.fail_when("media", faults.stall(), ids=[stalled])
        threads = threading.active_count()

        with closing(lab.downloader().run([good, stalled])) as outcomes:
            next(outcomes)

        assert lab.names() == [f"{good}_video.mp4"]
        assert threading.active_count() == threads


class TestBounds:
    def test_concurrency_is_bounded(self, lab: Lab, sandbox: LumaSandbox) -> None:
        ids = [lab.video(video_bytes=200_000) for _ in range(12)]
        most = 0

        def count(call: RecordedCall) -> bool:
            nonlocal most
            most = max(most, sum(one.name.startswith("luma-download_") for one in threading.enumerate()))
            return True

        sandbox.fail_when("media", faults.latency(0.05), count)
        lab.run(*ids, max_concurrency=3)

        assert most == 3

    def test_progress_of_slow_files_is_reported(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resumable, "_PROGRESS_SECONDS", 0.0)
        reports: list[tuple[Any, ...]] = []
        task_id = lab.video()

        lab.run(task_id, on_progress=lambda *report: reports.append(report))

        assert reports[-1] == (task_id, "video", SIZE, SIZE)
        assert [received for *_, received, _ in reports] == sorted(received for *_, received, _ in reports)
        assert len(reports) > 5
