"""HDF5 files are only begun where there is room for them."""

import errno
import os

import h5py
import numpy as np
import pytest

from lamella.formats import h5_room
from lamella.formats.h5_room import h5_with_room


def test_the_room_taken_is_given_back(tmp_path):
    values = np.arange(100_000)
    with h5_with_room(tmp_path / "a.h5", values.nbytes) as file:
        file.create_dataset("a", data=values)
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file.create_dataset("a", data=values)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()


def test_no_room_is_an_error_before_the_library_writes(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5_room.os, "posix_fallocate", full)
    monkeypatch.setattr(h5_room.h5py, "File", lambda *arguments: pytest.fail("HDF5 was started"))
    with pytest.raises(OSError, match="No space left"), h5_with_room(tmp_path / "a.h5", 10):
        pass


@pytest.mark.parametrize("missing", [True, False], ids=["macOS", "network disk"])
def test_a_system_that_cannot_promise_room_is_written_to_without(tmp_path, monkeypatch, missing):
    def unable(*arguments):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if missing:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", unable)
    with h5_with_room(tmp_path / "a.h5", 80) as file:
        file.create_dataset("a", data=np.arange(10))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["a"][:].tolist() == list(range(10))
