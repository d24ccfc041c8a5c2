"""Errors say thing, cause and remedy, and survive the way between processes."""

import errno
import multiprocessing

import pytest

from lamella import errors

EXAMPLES = [
    errors.LamellaError("a.tif", "it is empty", "Give another file."),
    errors.ConfigError(["a: wrong", "b: wrong"], "index"),
    errors.ResolutionError("a.tif", "no micrometres per pixel"),
    errors.MissingExtraError("wandb", "wandb"),
    errors.SlideError("a.tif", "tile 3 is corrupt", "Copy the file again."),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_reach_another_process_whole(error):
    ours, theirs = multiprocessing.Pipe()
    ours.send(error)
    received = theirs.recv()
    assert type(received) is type(error)
    assert str(received) == str(error)


def test_a_missing_extra_names_its_command():
    assert "pip install 'lamella[wandb]'" in str(errors.MissingExtraError("wandb", "wandb"))


def test_a_refused_write_becomes_a_plain_line_and_other_errors_pass():
    with pytest.raises(errors.StorageError, match="out/x: the disk is full"), errors.storage_faults("out/x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), errors.storage_faults("out/x"):
        raise FileNotFoundError(errno.ENOENT, "absent")
