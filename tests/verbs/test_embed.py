from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamella.cli import main
from lamella.config import Request
from lamella.errors import LamellaError, OutputConflictError
from lamella.formats.h5 import read_features
from lamella.formats.tables import read_csv, write_csv
from lamella.geometry import Box
from lamella.slides.index import SlideIndex
from lamella.verbs import embed


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
    assert "slides that failed: 1" in capsys.readouterr().out
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
