import pathlib

from deepfm_jax import files
from deepfm_jax.files import only_writer


def test_what_was_made_and_left_empty_is_gone(tmp_path):
    folder = tmp_path / "a" / "b"
    with only_writer(folder) as alone:
        assert alone
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with only_writer(folder):
        (folder / "file").touch()
    with only_writer(folder):
        pass
    assert list(folder.iterdir()) == [folder / "file"]


def test_it_is_not_known_that_no_other_writes_where_one_does(tmp_path):
    with only_writer(tmp_path), only_writer(tmp_path, wait=False) as alone:
        assert not alone
    with only_writer(tmp_path, wait=False) as alone:
        assert alone


def test_a_folder_is_held_until_it_is_gone(tmp_path, monkeypatch):
    """Who comes while an empty folder is removed must not hold what is removed."""
    folder, rmdir, seen = tmp_path / "a", pathlib.Path.rmdir, []

    def looked_at(path):
        with only_writer(folder, wait=False) as alone:
            seen.append(alone)
        rmdir(path)

    with only_writer(folder):
        monkeypatch.setattr(pathlib.Path, "rmdir", looked_at)
    assert seen == [False]
    assert not folder.exists()


def test_a_folder_that_was_removed_before_it_was_held_is_made_again(tmp_path, monkeypatch):
    folder, flock, lost = tmp_path / "a" / "b", files.fcntl.flock, []

    def removed(handle, how):
        if len(lost) < 2:
            lost.append(folder.rmdir())
            if len(lost) == 2:
                folder.mkdir()
        flock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", removed)
    with only_writer(folder) as alone:
        assert alone
        with only_writer(folder, wait=False) as other:
            assert not other
    assert len(lost) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_locks_of_the_system_nothing_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files.os, "open", None)  # Of a folder, Windows refuses it.
    with only_writer(tmp_path / "a") as alone:
        assert not alone
    assert list(tmp_path.iterdir()) == []
