# SPDX-License-Identifier: Apache-2.0
"""Tests of storing files: complete under their names or not at all."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from pytest_mock import MockerFixture

from airflow_provider_luma.download.file_store import FileStore
from airflow_provider_luma.exceptions import LumaStorageError
from tests.support.bad_disks import FullDisk, NoRename, NoRenameOver


def store_at(folder: Path, fs: AbstractFileSystem | None = None, *, owner: str = "me") -> FileStore:
    return FileStore(
        fs or LocalFileSystem(skip_instance_cache=True), str(folder), label=f"file://{folder}", owner=owner
    )


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class ObjectFile(AbstractBufferedFile):  # type: ignore[misc]
    """Appear when closed, as files of object stores do."""

    def _upload_chunk(self, final: bool = False) -> bool:
        if final:
            if self.fs.fails:
                raise RuntimeError("the store can't complete the upload")
            self.fs.files[self.path] = self.buffer.getvalue()
        return True

    def _initiate_upload(self) -> None:
        self.fs.uploads += 1

    def discard(self) -> None:
        self.fs.uploads -= 1


class ObjectStore(AbstractFileSystem):  # type: ignore[misc]
    """Behave like S3: nothing can be renamed, and there are no folders."""

    protocol = "s3"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.uploads = 0
        self.fails = False

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return ObjectFile(self, path, mode, block_size=5) if mode == "wb" else io.BytesIO(self.files[path])

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if path not in self.files:
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": len(self.files[path])}


class TestFolders:
    def test_a_file_appears_only_when_it_is_committed(self, tmp_path: Path) -> None:
        store = store_at(tmp_path / "new" / "folder")
        store.prepare()
        partial = store.create("a.mp4")
        partial.write(b"hello ")
        partial.write(memoryview(b"world"))

        assert store.size("a.mp4") is None
        partial.commit()

        assert names(tmp_path) == ["new/folder/a.mp4"]
        assert store.size("a.mp4") == 11
        assert b"".join(store.read("a.mp4")) == b"hello world"
        assert store.path("a.mp4") == f"file://{tmp_path}/new/folder/a.mp4"

    def test_a_discarded_file_leaves_nothing(self, tmp_path: Path) -> None:
        store = store_at(tmp_path)
        partial = store.create("a.mp4")
        partial.write(b"x")

        partial.discard()

        assert names(tmp_path) == []

    def test_names_may_contain_folders(self, tmp_path: Path) -> None:
        store = store_at(tmp_path)
        partial = store.create("one/two/a.mp4")
        partial.write(b"x")
        partial.commit()

        assert names(tmp_path) == ["one/two/a.mp4"]

    @pytest.mark.parametrize("fs", [LocalFileSystem(), NoRenameOver()], ids=["renames over", "doesn't"])
    def test_an_existing_file_is_replaced(self, tmp_path: Path, fs: AbstractFileSystem) -> None:
        (tmp_path / "a.mp4").write_bytes(b"old and longer")
        partial = store_at(tmp_path, fs).create("a.mp4")
        partial.write(b"new")

        assert (tmp_path / "a.mp4").read_bytes() == b"old and longer"
        partial.commit()

        assert (tmp_path / "a.mp4").read_bytes() == b"new"
        assert names(tmp_path) == ["a.mp4"]

    def test_a_symlink_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        folder = tmp_path / "videos"
        folder.mkdir()
        (folder / "a.mp4").symlink_to(victim)
        partial = store_at(folder).create("a.mp4")
        partial.write(b"new")

        partial.commit()

        assert victim.read_bytes() == b"precious"
        assert not (folder / "a.mp4").is_symlink()

    def test_a_folder_with_the_files_name_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").mkdir()
        store = store_at(tmp_path)

        with pytest.raises(LumaStorageError, match="folder"):
            store.size("a.mp4")
        with pytest.raises(LumaStorageError, match="folder"):
            store.create("a.mp4").commit()
        assert names(tmp_path) == []

    def test_a_retry_removes_only_the_temporary_files_of_a_killed_try(self, tmp_path: Path) -> None:
        killed, other = store_at(tmp_path), store_at(tmp_path, owner="someone-else")
        killed.create("a.mp4").write(b"x")
        other.create("b.mp4").write(b"x")
        (tmp_path / ".lumani.part").touch()
        (tmp_path / "c.mp4").touch()

        store_at(tmp_path).prepare()

        left = names(tmp_path)
        assert len(left) == 3
        assert left[0].startswith(".luma-someone-else-")
        assert left[1:] == [".lumani.part", "c.mp4"]

    def test_two_tries_at_once_do_not_write_into_one_file(self, tmp_path: Path) -> None:
        one, two = store_at(tmp_path).create("a.mp4"), store_at(tmp_path).create("a.mp4")
        one.write(b"one")
        two.write(b"two!")
        one.commit()
        two.commit()

        assert (tmp_path / "a.mp4").read_bytes() == b"two!"
        assert names(tmp_path) == ["a.mp4"]

    def test_a_full_disk_is_reported(self, tmp_path: Path) -> None:
        store = store_at(tmp_path, FullDisk())
        partial = store.create("a.mp4")
        partial.write(b"0123456789")

        with pytest.raises(LumaStorageError, match="No space left on device") as caught:
            partial.write(b"x")
        partial.discard()

        assert caught.value.retryable
        assert f"file://{tmp_path}/a.mp4" in str(caught.value)
        assert names(tmp_path) == []

    def test_a_commit_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        partial = store_at(tmp_path, NoRename()).create("a.mp4")
        partial.write(b"x")

        with pytest.raises(LumaStorageError, match=r"Can't commit .*quota of renames"):
            partial.commit()

        assert names(tmp_path) == []

    def test_a_folder_that_can_not_be_created_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(LumaStorageError, match="Can't prepare"):
            store_at(tmp_path / "file" / "folder").prepare()

    def test_a_file_that_can_not_be_read_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(LumaStorageError, match="Can't read"):
            list(store_at(tmp_path).read("a.mp4"))

    def test_other_file_systems_work_the_same(self) -> None:
        fs = MemoryFileSystem()
        store = FileStore(fs, "/videos", label="memory://videos", owner="me")
        store.prepare()
        partial = store.create("a.mp4")
        partial.write(b"x")
        assert store.size("a.mp4") is None
        partial.commit()
        store.create("b.mp4").discard()

        assert fs.find("/videos") == ["/videos/a.mp4"]
        fs.rm("/videos", recursive=True)


class TestPowerFailures:
    """A file that is renamed but not synchronised can be empty, or gone, after a power failure."""

    @pytest.fixture
    def synced(self, mocker: MockerFixture) -> list[tuple[str, bool]]:
        """Return what was synchronised, and whether the file had its name by then."""
        log: list[tuple[str, bool]] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            log.append((path.name, (path / "a.mp4").exists()))
            real(descriptor)

        mocker.patch.object(os, "fsync", fsync)
        return log

    def test_a_local_file_is_on_the_disk_before_it_is_renamed_and_its_folder_after(
        self, tmp_path: Path, synced: list[tuple[str, bool]]
    ) -> None:
        partial = store_at(tmp_path).create("a.mp4")
        partial.write(b"x")
        partial.commit()

        [(first, _), second] = synced
        assert first.startswith(".luma-me-")
        assert second == (tmp_path.name, True)

    def test_folders_that_are_created_for_it_are_on_the_disk_too(
        self, tmp_path: Path, synced: list[tuple[str, bool]]
    ) -> None:
        store = store_at(tmp_path / "new" / "videos")
        store.prepare()
        assert {name for name, _ in synced} == {tmp_path.name, "new"}
        synced.clear()

        partial = store.create("run/a.mp4")
        partial.write(b"x")
        partial.commit()

        assert [name for name, _ in synced][1:] == ["videos", "run"]

    def test_a_failed_synchronisation_is_reported(self, tmp_path: Path, mocker: MockerFixture) -> None:
        partial = store_at(tmp_path).create("a.mp4")
        partial.write(b"x")
        mocker.patch.object(os, "fsync", side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))

        with pytest.raises(LumaStorageError, match="Input/output error"):
            partial.commit()

        assert names(tmp_path) == []

    def test_a_file_system_that_can_not_synchronise_folders_is_no_error(
        self, tmp_path: Path, mocker: MockerFixture
    ) -> None:
        mocker.patch.object(os, "fsync", side_effect=[None, OSError(errno.EINVAL, "no fsync of folders")])
        partial = store_at(tmp_path).create("a.mp4")
        partial.write(b"x")

        partial.commit()

        assert names(tmp_path) == ["a.mp4"]

    def test_a_store_that_is_not_local_is_not_synchronised(self, mocker: MockerFixture) -> None:
        fsync = mocker.patch.object(os, "fsync")
        fs = MemoryFileSystem()
        partial = FileStore(fs, "/synced", label="memory://synced", owner="me").create("a.mp4")
        partial.write(b"x")
        partial.commit()
        fs.rm("/synced", recursive=True)

        assert fsync.call_count == 0

    def test_the_text_of_a_stores_error_is_cleaned(self, tmp_path: Path) -> None:
        class Rude(LocalFileSystem):  # type: ignore[misc]
            cachable = False

            def mv(self, *args: Any, **kwargs: Any) -> None:
                raise RuntimeError("\x1b[31mred\u202e" + "x" * 5000)

        with pytest.raises(LumaStorageError) as caught:
            store_at(tmp_path, Rude()).create("a.mp4").commit()

        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


class TestObjectStores:
    def test_a_file_appears_when_it_is_closed(self) -> None:
        fs = ObjectStore()
        store = FileStore(fs, "bucket/videos", label="s3://bucket/videos", owner="me")
        store.prepare()
        partial = store.create("a.mp4")
        partial.write(b"hello world")
        assert store.size("a.mp4") is None

        partial.commit()

        assert fs.files.keys() == {"bucket/videos/a.mp4"}
        assert store.path("a.mp4") == "s3://bucket/videos/a.mp4"

    def test_a_discarded_file_never_appears(self) -> None:
        fs = ObjectStore()
        partial = FileStore(fs, "bucket", label="s3://bucket", owner="me").create("a.mp4")
        partial.write(b"hello world")
        assert fs.uploads == 1

        partial.discard()
        del partial

        assert (fs.files, fs.uploads) == ({}, 0)

    def test_a_commit_that_fails_discards_the_upload(self) -> None:
        fs = ObjectStore()
        partial = FileStore(fs, "bucket", label="s3://bucket", owner="me").create("a.mp4")
        partial.write(b"hello world")
        fs.fails = True

        with pytest.raises(LumaStorageError, match="can't complete the upload"):
            partial.commit()

        fs.fails = False
        del partial
        assert (fs.files, fs.uploads) == ({}, 0)
