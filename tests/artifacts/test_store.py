"""Stores behave alike on disks and object stores."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path

import pytest

from pipeline.artifacts.store import Store


def test_bytes_come_back_and_replace(any_store: Store) -> None:
    assert not any_store.exists("a/b.txt")
    assert any_store.size("a/b.txt") is None
    any_store.write_bytes("a/b.txt", b"one")
    any_store.write_bytes("a/b.txt", b"second")
    assert any_store.read_bytes("a/b.txt") == b"second"
    assert any_store.size("a/b.txt") == 6
    assert pickle.loads(pickle.dumps(any_store)) == any_store


def test_missing_files_raise(any_store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        any_store.read_bytes("no/such")
    assert any_store.read_json_if_any("no/such") is None
    assert any_store.list("no") == []
    assert list(any_store.walk("no")) == []
    any_store.delete("no/such")


def test_list_and_walk_name_what_is_there(any_store: Store) -> None:
    for name in ("x/1.json", "x/2.json", "x/y/3.json", "z.json"):
        any_store.write_bytes(name, b"{}")
    assert any_store.list("x") == ["1.json", "2.json", "y"]
    assert any_store.list() == ["x", "z.json"]
    assert [path for path, _ in any_store.walk("x")] == ["x/1.json", "x/2.json", "x/y/3.json"]


def test_only_one_of_many_creates(any_store: Store) -> None:
    won: list[int] = []

    def attempt(number: int) -> None:
        if any_store.create("lock", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert any_store.read_bytes("lock") == str(won[0]).encode()


def test_one_of_many_creates_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    test_only_one_of_many_creates(Store(str(tmp_path)))
    assert Store(str(tmp_path)).list() == ["lock"]


@pytest.mark.parametrize("address", ["", " ", "/", "//", "file://", "file:///", "s3://",
                                     "s3:///prefix", "gs://", "memory://"])  # fmt: skip
def test_a_root_that_names_nothing_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"no bucket|is empty|no folder"):
        Store(address)


@pytest.mark.parametrize("name", ["exp[1]", "exp?", "exp*"])
def test_a_root_like_a_pattern_deletes_no_other(s3_root: str, name: str) -> None:
    other, mine = Store(f"{s3_root}/exp1"), Store(f"{s3_root}/{name}")
    for store in (other, mine):
        store.write_bytes("folder/file", b"x")
        store.write_bytes("lock", b"x")
    mine.delete("folder")
    mine.delete("lock")
    mine.delete("no/such")
    assert mine.list() == []
    assert other.list() == ["folder", "lock"]


def test_files_and_folders_move(any_store: Store, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x" * 1000)
    any_store.put_file(source, "folder/kept")
    any_store.adopt_file(source, "folder/inner/moved")
    assert not source.exists()
    any_store.move("folder", "aside/folder")
    assert any_store.read_bytes("aside/folder/inner/moved") == b"x" * 1000
    assert not any_store.exists("folder/kept")
    any_store.delete("aside")
    assert any_store.list("aside") == []
