from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.cli import main
from lamella.config import Request
from lamella.errors import CheckpointError, LamellaError, OutputConflictError
from lamella.formats.h5 import read_features
from lamella.formats.tables import read_csv, write_csv
from lamella.geometry import Box
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViTSettings
from lamella.slides.index import SlideIndex
from lamella.slides.indexing import build_index
from lamella.slides.manifest import find_slides
from lamella.slides.tissue import TissueSettings
from lamella.verbs import embed, embedding


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, mean_colour):
    monkeypatch.setattr(embed, "load_encoder", lambda spec: mean_colour)

    def run(index: Path, out: Path | None, *overrides: str, dry_run: bool = False) -> int:
        request = Request("embed", (Path("model"), index), out, overrides=overrides, dry_run=dry_run)
        return embed.run(request)

    return run


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_every_slide_gets_a_file_whose_rows_are_its_tiles(run, judged_index: Path, tmp_path: Path, capsys) -> None:
    assert run(judged_index, tmp_path / "out", "batch_size=7") == 0
    slide = SlideIndex.load(judged_index)["s1"]
    read = read_features(tmp_path / "out" / "s1.h5")
    assert read.features.shape == (36, 3)
    assert read.coords_px0[:7].tolist() == [*[[x, 0] for x in range(0, 384, 64)], [0, 64]]
    with slide.open() as opened:
        for row in (0, 8, 35):
            x, y = read.coords_px0[row]
            pixels = opened.read(Box(x, y, x + 64, y + 64), 0.5).pixels
            assert read.features[row] == pytest.approx(pixels.mean((0, 1)), abs=1e-3)
    expected = {"mpp": 0.5, "encoder": "mean", "encoder_fingerprint": "fedcba9876543210", "reader": slide.reader}
    assert expected.items() <= read.attributes.items()
    assert (read.attributes["patch_size"], read.attributes["patch_size_level0"]) == (64, 64)
    printed = capsys.readouterr().out
    assert "wrote 216 tiles of 6 slides" in printed
    assert "next: lamella evaluate model" in printed


def test_a_map_is_drawn_of_each_slide_and_only_then(run, judged_index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(judged_index, out, "maps=false") == 0
    assert not (out / "maps").exists()
    assert run(judged_index, out) == 0  # another picture is no other result
    assert {path.name for path in (out / "maps").iterdir()} == {f"{path.stem}.png" for path in out.glob("*.h5")}


def test_the_encoder_is_told_the_spacing_of_the_tiles(run, judged_index: Path, tmp_path: Path, mean_colour) -> None:
    assert run(judged_index, tmp_path / "out", "mpp=1.0", "tile_px=32") == 0
    assert mean_colour.mpps == {1.0}  # not the 0.5 of its contract


def test_tiles_of_several_spacings_are_refused(run, judged_index: Path, tmp_path: Path) -> None:
    rows = [{"slide_id": "s1", "x_px0": 0, "y_px0": 0, "fov_um": 32 * mpp * 2, "mpp": mpp} for mpp in (0.5, 1.0)]
    write_csv(tmp_path / "tiles.csv", rows, list(rows[0]))
    with pytest.raises(LamellaError, match="2 spacings"):
        run(judged_index, tmp_path / "out", f"tiles={tmp_path / 'tiles.csv'}")


def test_an_identical_rerun_changes_nothing_and_encodes_nothing(run, judged_index, tmp_path, mean_colour) -> None:
    out = tmp_path / "out"
    run(judged_index, out)
    before, encoded = snapshot(out), len(mean_colour.batches)
    assert run(judged_index, out) == 0
    assert snapshot(out) == before
    assert len(mean_colour.batches) == encoded


def test_a_killed_run_goes_on_with_the_slides_that_are_missing(run, judged_index, tmp_path, mean_colour) -> None:
    out = tmp_path / "out"
    run(judged_index, out)
    before = snapshot(out)
    (out / "s2.h5").unlink()
    mean_colour.batches.clear()
    run(judged_index, out, "batch_size=36")
    assert mean_colour.batches == [36]
    after = snapshot(out)
    assert after["s2.h5"][0] == before["s2.h5"][0]
    assert after["s1.h5"] == before["s1.h5"]


def test_a_slide_that_fails_fails_alone_and_is_tried_again(run, own_index: Path, tmp_path: Path, capsys) -> None:
    out, slide = tmp_path / "out", own_index.parent / "s1.tif"
    whole = slide.read_bytes()
    slide.write_bytes(whole[:2000])
    assert run(own_index, out) == 1
    (row,) = read_csv(out / "failed.csv")
    assert (row["slide_id"], Path(row["path"]).name) == ("s1", "s1.tif")
    assert "s1.tif" in row["error"]
    assert sorted(path.name for path in out.glob("*.h5")) == ["s0.h5", "s2.h5"]
    assert "slides: 2 ok, 1 failed" in capsys.readouterr().out
    slide.write_bytes(whole)
    assert run(own_index, out) == 0
    assert (out / "s1.h5").exists()
    assert not (out / "failed.csv").exists()


def test_other_settings_and_another_model_are_refused(run, judged_index, tmp_path, mean_colour) -> None:
    out = tmp_path / "out"
    run(judged_index, out)
    with pytest.raises(OutputConflictError, match=r"grid\.overlap: 0\.0 there, 0\.5 now"):
        run(judged_index, out, "grid.overlap=0.5")
    mean_colour.fingerprint = "0000000000000000"
    with pytest.raises(OutputConflictError, match="encoder_fingerprint"):
        run(judged_index, out)


def test_an_index_that_changed_is_noticed(run, own_index: Path, tmp_path: Path) -> None:
    from PIL import Image

    run(own_index, tmp_path / "out")
    mask = np.zeros((48, 48), np.uint8)
    mask[:24] = 255
    Image.fromarray(mask).save(own_index.parent / "s0_mask.png")
    with pytest.raises(OutputConflictError, match=r"s0\.h5: it was made from another set of tiles"):
        run(own_index, tmp_path / "out")


def test_a_dry_run_counts_and_writes_nothing(run, judged_index: Path, tmp_path: Path, capsys, mean_colour) -> None:
    assert run(judged_index, tmp_path / "out", "grid.overlap=0.5", dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "overlap: 0.5" in printed
    assert "s3: 121 tiles" in printed
    assert "would embed 726 tiles of 6 slides, 64 px at 0.5 um per pixel" in printed
    assert not (tmp_path / "out").exists()
    assert mean_colour.batches == []


def test_a_users_tiles_are_embedded_in_their_order(run, judged_index: Path, tmp_path: Path) -> None:
    rows = [
        {"slide_id": slide_id, "x_px0": x, "y_px0": y}
        for slide_id, x, y in (("s2", 300, 10), ("s0", 5, 6), ("s2", 0, 100), ("s2", 7, 9))
    ]
    write_csv(tmp_path / "tiles.csv", rows, ["slide_id", "x_px0", "y_px0"])
    assert run(judged_index, tmp_path / "out", f"tiles={tmp_path / 'tiles.csv'}") == 0
    assert read_features(tmp_path / "out" / "s2.h5").coords_px0.tolist() == [[300, 10], [0, 100], [7, 9]]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5")) == ["s0.h5", "s2.h5"]


def test_tiles_of_unknown_slides_are_refused(run, judged_index: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"slide_id": "sX", "x_px0": 0, "y_px0": 0}], ["slide_id", "x_px0", "y_px0"])
    with pytest.raises(LamellaError, match=r"1 slide\(s\) that the index does not have \(sX\)"):
        run(judged_index, tmp_path / "out", f"tiles={tmp_path / 't.csv'}")


def test_half_precision_and_another_spacing(run, judged_index: Path, tmp_path: Path) -> None:
    assert run(judged_index, tmp_path / "out", "half=true", "mpp=1.0", "tile_px=32") == 0
    read = read_features(tmp_path / "out" / "s0.h5")
    assert read.features.dtype == np.float16
    assert (read.attributes["mpp"], read.attributes["patch_size"], read.attributes["patch_size_level0"]) == (
        1.0,
        32,
        64,
    )


@pytest.mark.parametrize(
    ("overrides", "cause"), [(("tile_px=40",), "40 is not a multiple of the encoder's 16 px patches")]
)
def test_a_tile_that_the_encoder_cannot_take_is_refused(run, judged_index, tmp_path, overrides, cause) -> None:
    with pytest.raises(LamellaError, match=cause):
        run(judged_index, tmp_path / "out", *overrides)


def test_a_slide_without_tissue_has_an_empty_file_and_is_named(run, own_index, tmp_path, capsys) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((48, 48), np.uint8)).save(own_index.parent / "s1_mask.png")
    assert run(own_index, tmp_path / "out") == 0
    assert read_features(tmp_path / "out" / "s1.h5").features.shape == (0, 3)
    assert "no tile holds enough tissue (grid.min_tissue_fraction) on: s1" in capsys.readouterr().out


def test_the_command_line_takes_colour_stats_as_a_model(judged_index: Path, tmp_path: Path, capsys) -> None:
    command = ["embed", "colour-stats", str(judged_index), "-o", str(tmp_path / "out"), "tile_px=64"]
    assert main(command) == 0
    assert read_features(tmp_path / "out" / "s0.h5").features.shape[0] == 36
    assert main(["embed", "colour-stats", "-o", str(tmp_path / "o2")]) == 2
    assert main(["embed", "no-model", str(judged_index), "-o", str(tmp_path / "o2")]) == 2
    assert main(["embed", "colour-stats", str(tmp_path), "-o", str(tmp_path / "o2")]) == 2
    error = capsys.readouterr().err
    assert "it takes a model and an index folder, 1 path(s) given" in error
    assert "no-model" in error
    assert "it is not a slide index" in error


def embed_on(index: Path, out: Path, *more: str) -> int:
    return main(["embed", "colour-stats", str(index), "-o", str(out), "tile_px=64", *more])


@pytest.mark.slow  # tests/engine/test_jobs.py has workers in the default suite
def test_workers_write_what_this_process_writes(judged_index: Path, tmp_path: Path, capsys) -> None:
    """Two real worker processes; a slide that cannot be read on one of them fails alone."""
    out = tmp_path / "out"
    assert embed_on(judged_index, out) == 0
    here = {path.name: path.read_bytes() for path in out.rglob("*.[hp]*") if path.is_file()}
    for path in out.glob("s[0-4].h5"):
        path.unlink()
    assert embed_on(judged_index, out, "jobs.workers=2", "jobs.time_limit_s=60") == 0
    assert {path.name: path.read_bytes() for path in out.rglob("*.[hp]*") if path.is_file()} == here
    assert "slides: 6 ok, 0 failed" in capsys.readouterr().out


def test_shards_of_embed_and_those_that_failed(own_index: Path, tmp_path: Path, capsys) -> None:
    out, slide = tmp_path / "out", own_index.parent / "s2.tif"
    whole = slide.read_bytes()
    slide.write_bytes(whole[:2000])
    assert embed_on(own_index, out, "--shard", "1/2") == 1  # s0 and s2
    assert [row["slide_id"] for row in read_csv(out / "failed.1of2.csv")] == ["s2"]
    assert embed_on(own_index, out, "--shard", "2/2") == 0
    assert sorted(path.name for path in out.glob("*.h5")) == ["s0.h5", "s1.h5"]
    slide.write_bytes(whole)
    before = snapshot(out)["s0.h5"]
    assert embed_on(own_index, out, "--retry-failed") == 0
    assert "those that failed: 1 of 3 slides" in capsys.readouterr().out
    assert sorted(path.name for path in out.glob("*.h5")) == ["s0.h5", "s1.h5", "s2.h5"]
    assert snapshot(out)["s0.h5"] == before
    assert not list(out.glob("failed*"))
    assert embed_on(own_index, out) == 0
    assert "slides: 3 ok, 0 failed" in capsys.readouterr().out


def test_a_job_travels_without_the_weights_and_refuses_others(mean_colour, monkeypatch, tmp_path: Path) -> None:
    config = embed.Config()
    job = embed._Work("model", mean_colour, (), config, 0.5, 64, None).job(tmp_path)
    monkeypatch.setattr(embedding, "load_encoder", lambda spec: pytest.fail("it is loaded when it is needed"))
    sent = pickle.loads(pickle.dumps(job))  # noqa: S301 - our own bytes
    assert (sent.encoder, job.encoder) == (None, mean_colour)
    monkeypatch.setattr(embedding, "load_encoder", lambda spec: mean_colour)
    assert sent._encoder()[0] is mean_colour
    other = replace(sent, fingerprint="another")
    with pytest.raises(CheckpointError, match="a worker loads other weights"):
        other._encoder()


# ---- tiles that cannot be decoded, speed, precision -----------------------------------------------------------------


@pytest.fixture
def damaged(make_slide, tmp_path: Path) -> Path:
    """An index of one slide of JPEG tiles, one of which was overwritten after indexing."""
    path = make_slide("a.tif", 256, 256, tile_px=64, levels=1, compression="jpeg")
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "mask.png")
    row = {"slide_id": "a", "wsi_path": path.name, "mask_path": "mask.png"}
    write_csv(tmp_path / "m.csv", [row], list(row))
    build_index(find_slides([tmp_path / "m.csv"]), tmp_path / "index", TissueSettings(), {})
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        tiff.filehandle.seek(page.dataoffsets[5])
        tiff.filehandle.write(bytes(page.databytecounts[5]))
    return tmp_path / "index"


def test_a_tile_that_cannot_be_decoded_fails_its_slide(run, damaged: Path, tmp_path: Path) -> None:
    assert run(damaged, tmp_path / "out") == 1
    assert "tile 5" in read_csv(tmp_path / "out" / "failed.csv")[0]["error"]
    assert not (tmp_path / "out" / "a.h5").exists()


def test_or_it_is_left_out_and_listed(run, damaged: Path, tmp_path: Path, capsys) -> None:
    for _ in range(2):  # a rerun reads from the file what was left out
        assert run(damaged, tmp_path / "out", "unreadable_tiles=skip", "batch_size=3") == 0
        (row,) = read_csv(tmp_path / "out" / "skipped.csv")
        assert (row["slide_id"], float(row["x_px0"]), float(row["y_px0"])) == ("a", 64, 64)
        assert "tile 5" in row["error"]
        said = capsys.readouterr().out
        assert "tiles left out because they cannot be decoded: 1" in said
        assert "a: no map of it:" in said  # its small picture needs the tile, too
    read = read_features(tmp_path / "out" / "a.h5")
    assert read.features.shape == (15, 3)
    assert [64, 64] not in read.coords_px0.tolist()


def test_a_slide_of_which_no_tile_can_be_decoded_fails_all_the_same(run, damaged: Path, tmp_path: Path) -> None:
    slide = next(iter(SlideIndex.load(damaged)))
    table = [{"slide_id": "a", "x_px0": 64, "y_px0": 64}]
    write_csv(tmp_path / "tiles.csv", table, list(table[0]))
    assert slide.slide_id == "a"
    assert run(damaged, tmp_path / "out", "unreadable_tiles=skip", f"tiles={tmp_path / 'tiles.csv'}") == 1
    assert "tile 5" in read_csv(tmp_path / "out" / "failed.csv")[0]["error"]


def test_the_fast_path_is_recorded(run, judged_index: Path, tmp_path: Path) -> None:
    assert run(judged_index, tmp_path / "fast", "dct_scaling=true") == 0
    assert "DCT" in read_features(tmp_path / "fast" / "s1.h5").attributes["resample"]
    with pytest.raises(OutputConflictError, match="dct_scaling"):
        run(judged_index, tmp_path / "fast")


def test_bf16_is_near_and_recorded(judged_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = InputContract(0.5, 64, (0.5,) * 3, (0.25,) * 3, patch_px=16, dim=32)
    encoder = ViTEncoder(fresh_vit(ViTSettings(patch_px=16, dim=32, depth=2, heads=2), 0), contract, "tiny")
    monkeypatch.setattr(embed, "load_encoder", lambda spec: encoder)
    found = {}
    for precision in ("fp32", "bf16"):
        asked = (f"precision={precision}",)
        assert embed.run(Request("embed", (Path("m"), judged_index), tmp_path / precision, overrides=asked)) == 0
        found[precision] = read_features(tmp_path / precision / "s1.h5")
        assert found[precision].attributes["precision"] == precision
    difference = np.abs(found["fp32"].features - found["bf16"].features)
    assert 0 < difference.max() < 0.1 * np.abs(found["fp32"].features).max()
