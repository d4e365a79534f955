"""Compiled objects on disk: only what was written comes back, and failure is never an error."""

import os

import pytest

from stages.libraries import object_cache
from stages.libraries.object_cache import ObjectCache, key_of, source_digest, user_folder

KEY, OTHER = key_of({"n": 1}), key_of({"n": 2})


@pytest.fixture
def cache(tmp_path):
    return ObjectCache(tmp_path / "a" / "b")


def test_what_was_kept_is_found_under_its_key_only(cache):
    assert cache.find(KEY) is None
    path = cache.store(KEY, b"code")
    assert cache.find(KEY) == path and path.read_bytes() == b"code"
    assert cache.find(OTHER) is None
    assert [file.name for file in cache.folder.iterdir()] == [path.name]  # no leavings
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damaged", [b"", b"cod", b"codes", b"cOde"])
def test_a_damaged_object_is_removed_not_returned(cache, damaged):
    path = cache.store(KEY, b"code")
    path.write_bytes(damaged)
    assert cache.find(KEY) is None and not path.exists()
    assert cache.find(KEY) is None
    assert cache.store(KEY, b"code") == path == cache.find(KEY)


def test_an_object_renamed_to_another_key_or_beside_an_intact_one(cache):
    """A name holds the digest of the content, so that two builds of one key can lie there."""
    path = cache.store(KEY, b"code")
    other = cache.store(KEY, b"built again")
    other.write_bytes(b"bad")
    assert cache.find(KEY) == path and not other.exists()


def test_a_folder_others_can_write_to_is_not_used(cache):
    cache.store(KEY, b"code")
    cache.folder.chmod(0o777)
    assert cache.find(KEY) is None and cache.store(KEY, b"more") is None


def test_a_folder_of_another_user_is_not_used(cache, monkeypatch):
    cache.store(KEY, b"code")
    monkeypatch.setattr(object_cache.os, "getuid", lambda: os.stat(cache.folder).st_uid + 1)
    assert cache.find(KEY) is None and cache.store(KEY, b"more") is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert ObjectCache(tmp_path / "file" / "below").store(KEY, b"code") is None
    assert ObjectCache(tmp_path / "file" / "below").find(KEY) is None
    cache = ObjectCache(tmp_path / "full")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(object_cache.os, "replace", full)
    assert cache.store(KEY, b"code") is None and not list(cache.folder.iterdir())


def test_keys_and_digests_follow_what_they_are_of(tmp_path, monkeypatch):
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})
    (tmp_path / "one.py").write_text("1")
    before = source_digest(tmp_path)
    (tmp_path / "note.txt").write_text("2")
    assert source_digest(tmp_path) == before
    (tmp_path / "one.py").write_text("3")
    assert source_digest(tmp_path) != before
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder("x") == tmp_path / "moeprof" / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somebody")
    assert str(user_folder("x")) == "/somebody/.cache/moeprof/x"
