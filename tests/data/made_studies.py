"""Tiny weakly labelled studies: plain images of one colour each, with the files that a study is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lamella.data.bag_settings import WeakDataSettings
from lamella.data.bag_study import open_study
from lamella.data.bags import WeakStudy

CLASSES = ("benign", "tumor")
SIDE = 32  # of a tile


def write_images(folder: Path, names: Sequence[str], size: tuple[int, int] = (64, 96)) -> Path:
    """Images of (height, width), each of noise of its own, so that none is a copy of another."""
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(folder / name)
    return folder


def write_text(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def plain_study(tmp: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a sound study: a and b train, c validates, d tests."""
    return {
        "slides": (write_images(tmp / "slides", [f"{name}.png" for name in "abcd"]),),
        "labels_are": "slide",
        "mpp0": 0.5,
        "tile_px": SIDE,
        "everywhere": True,
        "split_csv": write_text(tmp / "split.csv", "train,val,test", "a,c,d", "b"),
        "labels_csv": write_text(tmp / "labels.csv", "image_name,label", "a,0", "b,1", "c,0", "d,1"),
        "label_format": "class_index",
        **changes,
    }


def opened(settings: Mapping[str, Any], background: str | None = "background", seed: int = 0) -> WeakStudy:
    return open_study(CLASSES, background, WeakDataSettings(**settings), seed)
