"""The door to files: one spelling of places, atomic writes, put-if-absent, and errors a person can act on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfplay.cli.main import call
from selfplay.errors import UserError
from selfplay.io import storage


def test_one_spelling_for_one_place(tmp_path: Path) -> None:
    assert storage.normalise(f"file://{tmp_path}/a/") == storage.normalise(str(tmp_path / "b" / ".." / "a"))
    assert storage.normalise("s3://bucket//a/b/") == "s3://bucket/a/b"
    assert storage.join("s3://bucket/a/", "b", "/c") == "s3://bucket/a/b/c"


@pytest.mark.parametrize("uri", ["gopher://a/b", "s3://", "s3:/bucket/prefix"])
def test_a_place_that_is_none_is_one_sentence(uri: str) -> None:
    with pytest.raises(UserError, match="s3://bucket/prefix"):
        storage.normalise(uri)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("s3://bucket/a/../b", "a bucket does not have"),
        ("runs/\udcff", "not valid UTF-8"),
        ("x" * 5000, "too long for the name of a file"),
        ("loop", "leads back to itself"),
        ("loop/run", "leads back to itself"),
    ],
)
def test_a_place_that_cannot_be_opened_is_one_sentence(
    uri: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    for words in (["corpus", "stats", uri], ["repair", uri], ["top", "--once", uri]):
        assert call(words) == 2
        assert why in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_stores_of_other_clouds_are_refused_by_name() -> None:
    for scheme in ("gs", "az"):
        with pytest.raises(UserError, match=f"{scheme}:// is not supported"):
            storage.normalise(f"{scheme}://bucket/runs")


def test_write_read_list_delete(tmp_path: Path) -> None:
    root = str(tmp_path / "x")
    storage.write(storage.join(root, "a", "one"), b"1")
    storage.write(storage.join(root, "two"), b"22", durable=True)
    storage.write(storage.join(root, "two"), b"222")
    assert storage.read(storage.join(root, "two")) == b"222"
    assert {os.path.basename(e.uri): e.size for e in storage.entries(root)} == {"one": 1, "two": 3}
    assert storage.names(root) == ["two"]
    storage.delete(storage.join(root, "two"))
    storage.delete(storage.join(root, "two"))
    assert not storage.exists(storage.join(root, "two"))
    with pytest.raises(FileNotFoundError):
        storage.read(storage.join(root, "two"))
    storage.delete_tree(root)
    assert list(storage.entries(root)) == []


def test_create_makes_an_object_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "lease")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read(uri) == b"first"
    assert os.listdir(tmp_path) == ["lease"]


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths, in order, of what is fsynced from now on; temporary files as they are called later."""
    paths: list[str] = []
    monkeypatch.setattr(storage, "_lasting", set())
    real = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_durable_means_the_bytes_the_name_and_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")
    paths = synced(monkeypatch)
    file = tmp_path / "new" / "newer" / "file"
    storage.write(str(file), b"1", durable=True)
    assert ".partial-" in paths[0], "the bytes before the name"
    assert paths[1:5] == [str(folder) for folder in (file.parent, file.parent.parent, tmp_path, tmp_path.parent)]
    paths.clear()
    storage.write(str(file), b"2", durable=True)
    assert len(paths) == 2 and paths[1] == str(file.parent), "folders above once a process"
    paths.clear()
    assert not storage.create(str(file), b"3", durable=True)
    assert paths == [str(file), str(file.parent)], "what another wrote and did not wait for"
    paths.clear()
    storage.write(str(file), b"4")
    assert not paths
    storage.sync([str(file), str(file)])
    assert paths == [str(file), str(file), str(file.parent)], "a folder once a call"
    with pytest.raises(FileNotFoundError):
        storage.sync([str(tmp_path / "none")])


def test_a_full_disk_is_one_sentence() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with pytest.raises(UserError, match="the disk is full"), storage._told("/dev/full"), open("/dev/full", "wb") as f:
        f.write(b"x" * 100_000)
        f.flush()


def test_a_file_where_a_folder_must_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError):
        storage.write(str(tmp_path / "file" / "below"), b"x")
