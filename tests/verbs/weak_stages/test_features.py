from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.verbs.weak_stages.made_study import BACKGROUND, CLASSES, TILE_PX, Made, save_encoder, write_slide

from lamella.data.tiles import TileBatches
from lamella.errors import LamellaError, OutputConflictError, SlideError
from lamella.formats.exemplars import CLASS, read_exemplars
from lamella.formats.tables import read_csv, write_parquet
from lamella.models.hub import load_encoder
from lamella.verbs.weak_stages import feature_work
from lamella.verbs.weak_stages.features import run_features
from lamella.verbs.weak_stages.stage import COORDINATES


def _folder(made: Made) -> Path:
    return made.out / "image_features"


def test_every_exemplar_has_the_feature_of_its_tile(made: Made) -> None:
    table = made.write_exemplars({"coarse": ("coarse1",), "fine": ("fine1", "fine0")})  # in no order of slides
    assert run_features(made.stage(features={"batch_size": 5})) == 0
    found, encoder = read_exemplars(_folder(made)), load_encoder(made.encoder)
    batches = TileBatches(made.study.by_id, table, batch_size=table.num_rows)
    expected = encoder.pooled(next(iter(batches)).contiguous(), made.study.mpp)
    np.testing.assert_allclose(found.features_ND, expected, rtol=1e-5, atol=1e-6)
    assert found.table.equals(table)
    assert found.record["fingerprint"] == encoder.fingerprint
    assert load_encoder(found.record["encoder"]).fingerprint == encoder.fingerprint


def test_the_array_has_the_names_of_the_source(made: Made) -> None:
    run_features(made.stage())
    with np.load(_folder(made) / "exemplars.npz", allow_pickle=False) as arrays:
        assert arrays["features"].shape == (96, 16)
        assert arrays["features"].dtype == np.float32
        assert set(arrays["class_names"]) == {*CLASSES, BACKGROUND}
        assert arrays["wsi_sources"][0] == "fine0"


def test_a_tile_that_stands_for_two_classes_is_encoded_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write_exemplars({"fine": ("fine0", "coarse0"), "coarse": ("coarse0",)})
    shown: list[int] = []
    plain = feature_work.embedded

    def counted(batches, *arguments):
        for features in plain(batches, *arguments):
            shown.append(len(features))
            yield features

    monkeypatch.setattr(feature_work, "embedded", counted)
    run_features(made.stage())
    found = read_exemplars(_folder(made))
    assert sum(shown) == 32
    np.testing.assert_array_equal(found.features_ND[16:32], found.features_ND[32:])


def test_a_rerun_does_nothing(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run_features(made.stage())
    results = [_folder(made) / name for name in ("exemplars.npz", "exemplars.parquet", "run.json")]
    before = [path.stat().st_mtime_ns for path in results]
    assert run_features(made.stage(features={"batch_size": 7, "threads": 1})) == 0
    assert "done already" in capsys.readouterr().out
    assert before == [path.stat().st_mtime_ns for path in results]


def test_features_of_another_encoder_are_never_taken(made: Made) -> None:
    run_features(made.stage())
    save_encoder(made.encoder, seed=1)  # the same place, other weights
    with pytest.raises(OutputConflictError, match="encoder_fingerprint"):
        run_features(made.stage())


def test_features_of_other_coordinates_are_never_taken(made: Made) -> None:
    run_features(made.stage())
    made.write_exemplars({"fine": ("fine0",), "coarse": ("coarse0",)})
    with pytest.raises(OutputConflictError, match=r"inputs\.tiles"):
        run_features(made.stage())


def test_features_of_a_changed_slide_are_never_taken(made: Made) -> None:
    run_features(made.stage())
    write_slide(made.study.by_id["fine1"].wsi_path, "coarse", seed=9)
    with pytest.raises(OutputConflictError, match="fine1"):
        run_features(made.stage())


def test_features_of_exemplars_that_changed_their_class_are_never_taken(made: Made) -> None:
    run_features(made.stage())
    made.write_exemplars(
        {"coarse": ("fine0", "fine1"), "fine": ("coarse0", "coarse1"), BACKGROUND: ("plain0", "plain1")}
    )
    with pytest.raises(OutputConflictError, match=r"inputs\.tiles"):
        run_features(made.stage())


def test_a_killed_run_goes_on_where_it_stopped(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_work, "_PART_TILES", 16)
    plain, shown, fail_at = feature_work.embedded, [], 40

    def dying(batches, *arguments):
        for features in plain(batches, *arguments):
            shown.append(len(features))
            if sum(shown) > fail_at:
                raise KeyboardInterrupt
            yield features

    monkeypatch.setattr(feature_work, "embedded", dying)
    with pytest.raises(KeyboardInterrupt):
        run_features(made.stage(features={"batch_size": 8}))
    assert not (_folder(made) / "exemplars.parquet").exists()
    shown.clear()
    fail_at = 10**6
    run_features(made.stage(features={"batch_size": 6}))
    assert sum(shown) == 96 - 32  # two parts of sixteen were kept
    resumed = read_exemplars(_folder(made)).features_ND
    assert not list(_folder(made).glob(".parts"))
    whole = replace(made, folder=made.folder / "whole")
    whole.write_exemplars({name: (f"{name}0", f"{name}1") for name in (*CLASSES, BACKGROUND)})
    run_features(whole.stage())
    np.testing.assert_allclose(resumed, read_exemplars(_folder(whole)).features_ND, rtol=1e-5, atol=1e-6)


def test_a_class_without_exemplars_is_refused(made: Made) -> None:
    made.write_exemplars({"fine": ("fine0",), BACKGROUND: ("plain0",)})
    with pytest.raises(LamellaError, match="coarse: this class has no exemplars"):
        run_features(made.stage())


def test_the_background_may_go_without_exemplars(made: Made) -> None:
    made.write_exemplars({"fine": ("fine0",), "coarse": ("coarse0",)})
    assert run_features(made.stage()) == 0


def test_without_stage_0_it_says_what_to_run(made: Made) -> None:
    (made.out / COORDINATES / "tiles.parquet").unlink()
    with pytest.raises(LamellaError, match="lamella weak coordinates"):
        run_features(made.stage())


@pytest.mark.parametrize(("column", "value", "message"), [(CLASS, "tumour", "tumour"), ("slide_id", "gone", "gone")])
def test_exemplars_of_another_study_are_refused(made: Made, column: str, value: str, message: str) -> None:
    table = made.write_exemplars({"fine": ("fine0",), "coarse": ("coarse0",)})
    at = table.column_names.index(column)
    texts = [value, *table.column(column).to_pylist()[1:]]
    write_parquet(made.out / COORDINATES / "tiles.parquet", table.set_column(at, column, pa.array(texts)))
    with pytest.raises(LamellaError, match=f"{message}.*redo coordinates"):
        run_features(made.stage())


def test_an_encoder_that_is_not_to_be_had_is_refused_with_a_way_out(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A mistake of the source: an encoder whose weights were never loaded gave features all the same.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("conch", f"phikon@{tmp_path / 'nowhere'}", "no-such-encoder", str(tmp_path / "empty")):
        with pytest.raises(LamellaError, match=r"cannot be loaded.*features\.encoder.*lamella encoders"):
            run_features(made.stage(features={"encoder": name}))
    assert not _folder(made).exists()


def test_tiles_that_are_not_whole_patches_can_be_shown_with_other_pixels(made: Made, tmp_path: Path) -> None:
    twelve = {"encoder": str(save_encoder(tmp_path / "twelve", seed=0, patch_px=12))}
    with pytest.raises(LamellaError, match=r"32 px are not whole patches of 12 px.*features\.tile_px=36"):
        run_features(made.stage(features=twelve))
    run_features(made.stage(features={**twelve, "tile_px": 36}))
    found = read_exemplars(_folder(made))
    assert (found.record["tile_px"], found.table.column("mpp")[0].as_py()) == ("36", 0.5)  # the exemplars' own spacing


def test_an_encoder_of_another_spacing_is_told_what_it_is_shown(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = save_encoder(tmp_path / "coarse", seed=0, mpp=1.0)
    run_features(made.stage(features={"encoder": str(coarse)}))
    assert f"features.tile_px={TILE_PX // 2} shows it its own" in capsys.readouterr().out


class _Overflowing:
    """An encoder whose bf16 or fp16 arithmetic overflowed for one batch."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder
        self.name, self.contract, self.fingerprint = "overflowing", encoder.contract, encoder.fingerprint

    def pooled(self, images: torch.Tensor, mpp: float | None = None) -> torch.Tensor:
        features = self._encoder.pooled(images, mpp)
        features[1, 3] = torch.inf
        return features

    def to(self, device: object) -> None: ...


def test_a_feature_that_is_not_finite_names_its_tile(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    # A mistake of the source: fp16 that overflowed went on.
    from lamella.verbs.weak_stages import features

    monkeypatch.setattr(features, "load_encoder", lambda spec: _Overflowing(load_encoder(spec)))
    with pytest.raises(LamellaError, match=r"coarse0 at \(32, 0\): overflowing made a feature.*not finite"):
        run_features(made.stage())


def _damage(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at : at + 64] = b"\xff" * 64
    path.write_bytes(bytes(raw))


def test_unreadable_tiles_fail_the_stage_or_are_listed(made: Made) -> None:
    _write_compressed(made.study.by_id["fine0"].wsi_path)
    with pytest.raises(SlideError):
        run_features(made.stage())
    skipping = {"unreadable_tiles": "skip"}
    assert run_features(made.stage(features=skipping)) == 0
    rows = read_csv(_folder(made) / "skipped.csv")
    assert [(row["slide_id"], row["x_px0"], row["y_px0"]) for row in rows] == [("fine0", "0.0", "0.0")]
    found = read_exemplars(_folder(made))
    assert len(found.features_ND) == found.table.num_rows == 95
    first = {"slide_id": "fine0", "x_px0": 0.0, "y_px0": 0.0}
    assert not any(first.items() <= row.items() for row in found.table.to_pylist())
    assert run_features(made.stage(features=skipping)) == 0
    with pytest.raises(LamellaError, match=r"tiles were left out.*redo features"):
        run_features(made.stage())


def _write_compressed(path: Path) -> None:
    """The slide in JPEG tiles, the first of them damaged."""
    import tifffile

    pixels = tifffile.imread(path)
    tifffile.imwrite(path, pixels, tile=(32, 32), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    _damage(path, start)


def test_a_dry_look_at_the_claim_names_the_encoder_by_its_fingerprint(made: Made, tmp_path: Path) -> None:
    run_features(made.stage())
    inputs = json.loads((_folder(made) / "run.json").read_text())["inputs"]
    assert inputs["encoder_fingerprint"] == load_encoder(made.encoder).fingerprint
    moved = tmp_path / "moved"
    made.encoder.rename(moved)  # the same encoder elsewhere
    assert run_features(made.stage(features={"encoder": str(moved)})) == 0


def test_imported_prototypes_need_no_features(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"prototypes": {"import_from": "elsewhere.pkl"}, "features": {"encoder": "no-such-encoder"}}
    assert run_features(made.stage(**settings)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert not _folder(made).exists()
