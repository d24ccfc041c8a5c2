"""`.pt` files of one tensor, as CLAM and slide2vec keep a slide's features. Never unpickled: weights_only."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled

import numpy as np

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file


def write_pt(path: Path | str, array: np.ndarray) -> None:
    """Write a tensor, whole or not at all; the same numbers give the same bytes.

    Raises:
        StorageError: The disk refused the write.
    """
    import torch

    with whole_file(path) as part, open(part, "wb") as file:  # an open file: a path's name would stand in the bytes
        torch.save(torch.from_numpy(np.ascontiguousarray(array)), file)


def read_pt(path: Path | str) -> np.ndarray:
    """(N, D) features; bfloat16, which numpy does not know, as float32.

    Raises:
        LamellaError: The file is missing, needs unpickling, or is not one tensor of two dimensions.
    """
    import torch

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Correct the path.") from error
    except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
        raise LamellaError(path, f"it cannot be read as a tensor ({first_line(error)})", "Make it again.") from error
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
        raise LamellaError(path, "it is not one tensor of two dimensions", "Give the tile features of a slide.")
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
