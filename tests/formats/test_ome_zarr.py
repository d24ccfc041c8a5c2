from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from lamella.errors import LamellaError, OutputConflictError, StorageError
from lamella.formats import zarr_chunks
from lamella.formats.halving import majority_halved, mean_halved
from lamella.formats.ome_zarr import LabelStore, ProbabilityStore, ValueStore, open_raster

HEIGHT, WIDTH = 150, 210
NAMES = ["background", "tumour", "stroma"]


def some_labels(seed: int = 0) -> np.ndarray:
    labels = np.random.default_rng(seed).integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    labels[:70, :100] = 255
    return labels


def write(store: LabelStore | ProbabilityStore | ValueStore, raster: np.ndarray, start: int = 0) -> None:
    for y in range(start, HEIGHT, 64):
        store.write(y, raster[..., y : y + 64, :])


def labels_in(folder: Path, raster: np.ndarray) -> Path:
    store = LabelStore(folder, NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    write(store, raster)
    store.finish()
    return folder


def test_labels_come_back_at_every_level(tmp_path: Path) -> None:
    labels = some_labels()
    raster = open_raster(labels_in(tmp_path / "a.ome.zarr", labels))
    assert (raster.kind, raster.names) == ("labels", tuple(NAMES))
    assert [level.shape for level in raster.levels] == [(150, 210), (75, 105), (38, 53)]
    for level in raster.levels:
        np.testing.assert_array_equal(level[:], labels)
        labels = majority_halved(labels)
    assert [y for y, _ in raster.bands()] == [0, 64, 128]
    assert np.concatenate([band for _, band in raster.bands()]).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_probabilities_of_many_channels_come_back(
    tmp_path: Path, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_chunks, "_CHUNK_BYTES", 16 * 64**2)  # 40 channels do not fit one chunk
    values = np.random.default_rng(0).integers(0, 256, (channels, HEIGHT, WIDTH), np.uint8)
    names = [f"c{number}" for number in range(channels)]
    store = ProbabilityStore(tmp_path / "p", names, HEIGHT, WIDTH, 0.5, chunk_px=64)
    write(store, values)
    store.finish()
    raster = open_raster(tmp_path / "p")
    np.testing.assert_array_equal(raster.levels[0][:], values)
    np.testing.assert_array_equal(raster.levels[1][:], mean_halved(values))


def test_maps_of_numbers_are_nan_where_nobody_looked(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, HEIGHT, WIDTH)).astype(np.float16)
    values[:, :64, :64] = np.nan
    store = ValueStore(tmp_path / "v", ["a", "b"], HEIGHT, WIDTH, 0.5, chunk_px=64)
    write(store, values)
    store.finish()
    np.testing.assert_array_equal(open_raster(tmp_path / "v").levels[0][:], values)
    assert not (tmp_path / "v" / "0" / "0" / "0" / "0").exists()  # a chunk of nothing takes no room


def test_other_programs_find_what_ome_ngff_asks_for(tmp_path: Path) -> None:
    """The rules of OME-NGFF 0.4: axes, one transformation of scale per level, then one of translation."""
    folder = tmp_path / "a.ome.zarr"
    store = ProbabilityStore(folder, ["a", "b"], HEIGHT, WIDTH, (0.5, 0.25), chunk_px=64)
    write(store, np.ones((2, HEIGHT, WIDTH), np.uint8))
    store.finish()
    group = zarr.open_group(folder, mode="r", zarr_format=2)
    (multiscale,) = group.attrs["multiscales"]
    assert multiscale["version"] == "0.4"
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in multiscale["axes"]] == [
        ("c", "channel", None),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    for number, dataset in enumerate(multiscale["datasets"]):
        assert group[dataset["path"]].ndim == 3
        scale, *shift = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [1.0, 0.25 * 2**number, 0.5 * 2**number]}
        # The first coarse pixel's centre lies in the middle of those it covers.
        middle = (2**number - 1) / 2
        assert shift == ([{"type": "translation", "translation": [0.0, 0.25 * middle, 0.5 * middle]}] if number else [])
    assert [channel["label"] for channel in group.attrs["omero"]["channels"]] == ["a", "b"]
    array = json.loads((folder / "0" / ".zarray").read_text())
    assert (array["zarr_format"], array["dimension_separator"], array["compressor"]["id"]) == (2, "/", "blosc")


def test_labels_carry_the_names_of_their_values(tmp_path: Path) -> None:
    attributes = zarr.open_group(labels_in(tmp_path / "a", some_labels()), mode="r").attrs
    assert attributes["image-label"]["properties"] == [
        {"label-value": value, "class": name} for value, name in enumerate(NAMES)
    ]


def test_an_unfinished_raster_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    write(store, some_labels())
    with pytest.raises(LamellaError, match="unfinished"):
        open_raster(tmp_path / "a")
    with pytest.raises(LamellaError, match="no finished raster"):
        open_raster(tmp_path / "none")
    assert not (tmp_path / "a" / ".zattrs").exists()  # nor by any other program


def test_a_raster_cannot_be_finished_before_its_last_band(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    store.write(0, some_labels()[:64])
    with pytest.raises(ValueError, match="only 64 of 150 rows"):
        store.finish()


def test_a_run_goes_on_behind_the_last_finished_band(tmp_path: Path) -> None:
    labels = some_labels()
    first = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    first.write(0, labels[:64])
    again = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    assert (again.done_px, again.finished) == (64, False)
    write(again, labels, start=again.done_px)
    again.finish()
    np.testing.assert_array_equal(open_raster(tmp_path / "a").levels[0][:], labels)
    done = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    assert (done.done_px, done.finished) == (HEIGHT, True)
    done.finish()  # changes nothing
    with pytest.raises(ValueError, match="finished"):
        done.write(0, labels[:64])


def test_a_band_written_again_leaves_nothing_of_the_first_one(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    write(store, some_labels())
    nothing = np.full((HEIGHT, WIDTH), 255, np.uint8)
    write(store, nothing)
    store.finish()
    assert (open_raster(tmp_path / "a").levels[0][:] == 255).all()


KILLED = """
import os, signal, sys
import numpy as np
from lamella.formats import ome_zarr, zarr_chunks
store = ome_zarr.LabelStore(sys.argv[1], ["a", "b"], 256, 256, 0.5, chunk_px=64)
labels = np.tile(np.arange(256, dtype=np.uint8) % 2, (256, 1))
store.write(0, labels[:64])
put = zarr_chunks.Chunks._put_one
def dying(self, key, window):
    if key == (1, 2):
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, key, window)
zarr_chunks.Chunks._put_one = dying
store.write(64, labels[64:128])
"""


def test_a_killed_run_knows_which_bands_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    store = LabelStore(folder, ["a", "b"], 256, 256, 0.5, chunk_px=64)
    assert store.done_px == 64
    labels = np.tile(np.arange(256, dtype=np.uint8) % 2, (256, 1))
    for y in range(store.done_px, 256, 64):
        store.write(y, labels[y : y + 64])
    store.finish()
    np.testing.assert_array_equal(open_raster(folder).levels[0][:], labels)


def test_a_full_disk_says_so_and_keeps_the_finished_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = some_labels()
    store = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    store.write(0, labels[:64])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", _refuse)
        with pytest.raises(StorageError, match="the disk is full"):
            store.write(64, labels[64:128])
    again = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    assert again.done_px == 64


def _refuse(path: Path, data: bytes) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "other",
    [
        lambda folder: LabelStore(folder, ["other"], HEIGHT, WIDTH, 0.5, chunk_px=64),
        lambda folder: LabelStore(folder, NAMES, HEIGHT, WIDTH, 0.25, chunk_px=64),
        lambda folder: LabelStore(folder, NAMES, HEIGHT + 1, WIDTH, 0.5, chunk_px=64),
        lambda folder: ProbabilityStore(folder, NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_raster_is_refused(tmp_path: Path, other: object, finished: bool) -> None:
    store = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    write(store, some_labels())
    if finished:
        store.finish()
    with pytest.raises(OutputConflictError, match="another size, scale or set of classes"):
        other(tmp_path / "a")  # type: ignore[operator]


@pytest.mark.parametrize("damage", ["", "{", '{"multiscales": []}', '{"lamella": {}}'])
def test_damaged_metadata_is_an_error_of_ours(tmp_path: Path, damage: str) -> None:
    folder = labels_in(tmp_path / "a", some_labels())
    (folder / ".zattrs").write_text(damage)
    with pytest.raises(LamellaError, match=r"damaged|another program"):
        open_raster(folder)


@pytest.mark.parametrize(
    ("y0", "band"),
    [
        (0, np.zeros((63, WIDTH), np.uint8)),
        (32, np.zeros((64, WIDTH), np.uint8)),
        (128, np.zeros((64, WIDTH), np.uint8)),
        (0, np.zeros((64, WIDTH - 1), np.uint8)),
        (0, np.zeros((64, WIDTH), np.int64)),
        (0, np.zeros((1, 64, WIDTH), np.uint8)),
    ],
)
def test_a_band_that_does_not_fit_is_refused(tmp_path: Path, y0: int, band: np.ndarray) -> None:
    store = LabelStore(tmp_path / "a", NAMES, HEIGHT, WIDTH, 0.5, chunk_px=64)
    with pytest.raises(ValueError, match=r"a band of|no whole rows of chunks"):
        store.write(y0, band)
