import pathlib

from deepfm_jax import files
from deepfm_jax.files import only_writer


def test_created_folders_that_stay_empty_are_removed(tmp_path):
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


def test_a_second_writer_is_not_alone(tmp_path):
    with only_writer(tmp_path), only_writer(tmp_path, wait=False) as alone:
        assert not alone
    with only_writer(tmp_path, wait=False) as alone:
        assert alone


def test_a_folder_is_locked_until_it_is_removed(tmp_path, monkeypatch):
    """A process that arrives while an empty folder is removed must not lock that folder."""
    folder, rmdir, seen = tmp_path / "a", pathlib.Path.rmdir, []

    def looked_at(path):
        with only_writer(folder, wait=False) as alone:
            seen.append(alone)
        rmdir(path)

    with only_writer(folder):
        monkeypatch.setattr(pathlib.Path, "rmdir", looked_at)
    assert seen == [False]
    assert not folder.exists()


def test_a_folder_that_is_removed_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
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


def test_without_system_locks_no_folder_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files.os, "open", None)  # Windows cannot open folders.
    with only_writer(tmp_path / "a") as alone:
        assert not alone
    assert list(tmp_path.iterdir()) == []
