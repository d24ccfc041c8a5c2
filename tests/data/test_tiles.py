from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch

from lamella.data.tiles import TileBatches
from lamella.errors import LamellaError, SlideError
from lamella.geometry import Frame
from lamella.slides.grid import tile_table
from lamella.slides.slide import open_slide


@dataclass(frozen=True)
class Place:
    slide_id: str
    wsi_path: Path
    frame: Frame
    mpp_stated: tuple[float, float]


def place(path: Path) -> Place:
    with open_slide(path) as slide:
        return Place(path.stem, path, slide.frame, (slide.frame.mpp_x, slide.frame.mpp_y))


@pytest.fixture
def slides(make_slide) -> dict[str, Place]:
    paths = [make_slide(f"{name}.tif", 256, 320, seed=seed, tile_px=64) for seed, name in enumerate("ab")]
    return {path.stem: place(path) for path in paths}


def shuffled(slides: dict[str, Place], mpp: float = 0.5) -> pa.Table:
    """Tiles of both slides in no order at all."""
    rng = np.random.default_rng(0)
    tables = [tile_table(name, rng.integers(0, 190, (12, 2)), 32.0, mpp) for name in slides]
    whole = pa.concat_tables(tables)
    return whole.take(pa.array(rng.permutation(whole.num_rows)))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_tiles_come_in_the_tables_order_as_the_slide_reads_them(
    slides: dict[str, Place], threads: int, mpp: float
) -> None:
    table = shuffled(slides, mpp)
    batches = TileBatches(slides, table, batch_size=5, threads=threads)
    tiles = list(batches)
    side = round(32 / mpp)
    assert [len(batch) for batch in tiles] == [5, 5, 5, 5, 4]
    assert len(batches) == 5
    read = torch.cat(tiles)
    assert (read.dtype, read.shape) == (torch.uint8, (24, 3, side, side))
    for row, record in enumerate(table.to_pylist()):
        from lamella.geometry import Box

        with open_slide(slides[record["slide_id"]].wsi_path) as slide:
            x, y = record["x_px0"], record["y_px0"]
            expected = slide.read(Box(x, y, x + 64, y + 64), mpp).pixels
        assert np.array_equal(read[row].permute(1, 2, 0).numpy(), expected)


def test_a_tile_that_cannot_be_read_raises_and_is_never_blank(slides: dict[str, Place], tmp_path: Path) -> None:
    gone = Place("gone", tmp_path / "gone.tif", Frame(320, 256, 0.5, 0.5), (0.5, 0.5))
    table = pa.concat_tables(
        [tile_table("a", np.zeros((3, 2)), 32.0, 0.5), tile_table("gone", np.zeros((1, 2)), 32.0, 0.5)]
    )
    batches = iter(TileBatches({**slides, "gone": gone}, table, batch_size=2))
    assert len(next(batches)) == 2
    with pytest.raises(SlideError, match=r"gone\.tif"):
        next(batches)


def corrupt(path: Path, tile: int) -> None:
    """Overwrite one JPEG tile of level 0 with zeros."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        tiff.filehandle.seek(page.dataoffsets[tile])
        tiff.filehandle.write(bytes(page.databytecounts[tile]))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_tiles_that_cannot_be_decoded_can_be_left_out_and_are_counted(make_slide, batch_size: int) -> None:
    path = make_slide("a.tif", 256, 256, tile_px=64, compression="jpeg")
    sound = {"a": place(path)}
    table = tile_table("a", np.array([(x, y) for y in range(0, 256, 64) for x in range(0, 256, 64)]), 32.0, 0.5)
    whole = torch.cat(list(TileBatches(sound, table, batch_size=batch_size)))
    corrupt(path, 5)
    with pytest.raises(SlideError, match="tile 5"):
        list(TileBatches(sound, table, batch_size=batch_size))
    batches = TileBatches(sound, table, batch_size=batch_size, skip_unreadable=True)
    read = torch.cat(list(batches))
    assert list(batches.skipped) == [5]
    assert "tile 5" in str(batches.skipped[5])
    assert torch.equal(read, whole[[row for row in range(16) if row != 5]])


def test_a_slide_that_cannot_be_opened_is_an_error_even_so(slides: dict[str, Place]) -> None:
    slides["a"].wsi_path.unlink()
    table = tile_table("a", np.zeros((3, 2)), 32.0, 0.5)
    with pytest.raises(SlideError, match="does not exist"):
        list(TileBatches(slides, table, batch_size=2, skip_unreadable=True))


def test_stopping_early_closes_the_slides(slides: dict[str, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = [], []
    from lamella.slides import slide as module

    true_open = module.open_slide

    def recording(*args, **kwargs):
        slide = true_open(*args, **kwargs)
        opened.append(slide)
        true_close = slide.reader.close
        slide.reader.close = lambda: (closed.append(slide), true_close())
        return slide

    monkeypatch.setattr(module, "open_slide", recording)
    batches = iter(TileBatches(slides, shuffled(slides), batch_size=2, threads=2))
    next(batches)
    batches.close()
    assert opened
    assert len(closed) == len(opened)


def test_tiles_of_several_sizes_are_refused(slides: dict[str, Place]) -> None:
    table = pa.concat_tables(
        [tile_table("a", np.zeros((1, 2)), 32.0, 0.5), tile_table("a", np.zeros((1, 2)), 32.0, 1.0)]
    )
    with pytest.raises(LamellaError, match=r"2 sizes in pixels \(32 to 64\)"):
        TileBatches(slides, table, batch_size=2)


def test_an_empty_table_gives_no_batch(slides: dict[str, Place]) -> None:
    assert list(TileBatches(slides, tile_table("a", np.zeros((0, 2)), 32.0, 0.5), batch_size=4)) == []
