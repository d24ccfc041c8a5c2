"""Rows of an array in an archive: `.npy` members of an npz, data sets of an HDF5 file."""

from __future__ import annotations

import os
import zipfile
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from lamella.errors import DatasetError, ImageError, first_line


def npz_members(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name -> (shape, dtype) of every array, from the headers alone.

    Raises:
        DatasetError: It is no npz archive, or a member is no plain array.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(file)
                    if dtype.hasobject:
                        raise ValueError(f"{name} holds Python objects")
                    found[name.removesuffix(".npy")] = (tuple(shape), dtype)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise DatasetError(
            path, f"it is no npz archive of arrays ({first_line(error)})", "Download it again."
        ) from error
    return found


def npz_array(path: Path, member: str) -> np.ndarray:
    """One whole array of the archive, kept in memory for the next call.

    Raises:
        DatasetError: It cannot be read.
    """
    return _npz_array(path, member, path.stat().st_mtime_ns)


@lru_cache(maxsize=36)  # images and labels of six sets at once; one too few would unpack an archive for each row
def _npz_array(path: Path, member: str, _changed_ns: int) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            values: np.ndarray = archive[member]
    except MemoryError as error:
        raise DatasetError(
            path, f"{member} does not fit into memory", "Use the smaller size of this data set, or a larger machine."
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise DatasetError(path, f"{member} cannot be read ({first_line(error)})", "Download it again.") from error
    values.setflags(write=False)  # it is shared by all who read
    return values


def h5_array(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a data set in an HDF5 file.

    Raises:
        DatasetError: The file is no HDF5 or has no such data set.
    """
    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise DatasetError(
                    path, f"it has no data set {name!r} (it has {', '.join(file)})", "Download it again."
                )
            return tuple(file[name].shape), file[name].dtype
    except OSError as error:
        raise DatasetError(
            path, f"it is no HDF5 file ({first_line(error)})", "Download and unpack it again."
        ) from error


def h5_all(path: Path, name: str) -> np.ndarray:
    """The whole data set; for labels.

    Raises:
        DatasetError: It cannot be read.
    """
    h5_array(path, name)
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name])
    except OSError as error:
        raise DatasetError(path, f"{name} cannot be read ({first_line(error)})", "Download it again.") from error


def h5_row(path: Path, name: str, row: int) -> np.ndarray:
    """One row of a data set.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        return np.asarray(_h5(path, os.getpid())[name][row])
    except (OSError, KeyError, ValueError) as error:
        raise ImageError(
            f"{path}, row {row}", f"it cannot be read ({first_line(error)})", "Download it again."
        ) from error


@lru_cache(maxsize=8)
def _h5(path: Path, _process: int) -> h5py.File:
    """An open file of this process: a handle must not cross a fork."""
    return h5py.File(path, "r")
