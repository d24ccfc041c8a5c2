"""Damaged NIfTI files, pictures and films: an error that names the file, or a successful read; nothing else."""

from __future__ import annotations

import gzip
import io
import random
from collections import Counter

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.imaging.test_films import film, gif

from lamella.errors import ImageError
from lamella.imaging.reading import kind_of, read_image, read_video, read_volume

READ = {"image": read_image, "volume": read_volume, "video": read_video}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    block = np.random.default_rng(0).integers(0, 1000, (12, 13, 14)).astype(np.int16)
    affine = np.diag([1.0, 2, 3, 1])
    found = {"a.nii": nibabel.Nifti1Image(block, affine).to_bytes()}
    found |= {"b.nii": nibabel.Nifti2Image(block.astype(np.float32), affine).to_bytes()}
    found |= {"a.nii.gz": gzip.compress(found["a.nii"])}
    for name in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(block[0].astype(np.uint8)).save(stream, name)
        found[f"a.{name.lower()}"] = stream.getvalue()
    found |= {name: film(folder / name, codec).read_bytes() for name, codec in
              (("a.mkv", "ffv1"), ("a.mp4", "mpeg4"), ("a.avi", "mpeg4"))}  # fmt: skip
    return found | {"a.gif": gif(folder / "a.gif", 50).read_bytes()}


def damaged(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    start, kind = dice.randrange(len(data)), dice.choice(("flip", "head", "cut", "over", "lost"))
    if kind == "flip":
        for _ in range(dice.choice((1, 2, 8, 64))):
            changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == "head":
        for _ in range(dice.choice((1, 2, 4))):
            changed[dice.randrange(min(400, len(data)))] = dice.randrange(256)
    elif kind == "cut":
        del changed[start:]
    elif kind == "over":
        length = dice.choice((4, 32, 512))
        changed[start : start + length] = dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))
    else:
        del changed[start : start + dice.choice((1, 3, 64))]
    return bytes(changed)


def outcomes(originals: dict[str, bytes], folder, seeds: range) -> Counter[str]:
    names, found = sorted(originals), Counter()
    for seed in seeds:
        name = names[seed % len(names)]
        path = folder / f"damaged_{name}"
        path.write_bytes(damaged(originals[name], random.Random(seed)))
        try:
            READ[kind_of(path)](path)
            found["read"] += 1
        except ImageError as error:
            found["error" if path.name in str(error) else "unnamed"] += 1
    return found


def test_a_sample_of_mutations(originals, tmp_path, capfd):
    found = outcomes(originals, tmp_path, range(260))
    assert found["error"] > 100
    assert not found["unnamed"]
    assert capfd.readouterr().err == ""  # other libraries' words do not reach the terminal


@pytest.mark.slow
def test_thousands_of_mutations(originals, tmp_path):
    found = outcomes(originals, tmp_path, range(5000))
    assert found["read"] + found["error"] == 5000
