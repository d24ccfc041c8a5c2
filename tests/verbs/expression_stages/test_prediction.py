from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from tests.verbs.expression_stages.made_stage import made_slide, made_stage, tissue_picture

from lamella.config import Request, Resolved
from lamella.errors import CheckpointError, LamellaError, OutputConflictError
from lamella.formats.digests import ends_digest
from lamella.formats.ome_zarr import open_raster
from lamella.formats.tables import read_csv
from lamella.models.expression.expectation import Needs
from lamella.models.expression.folder import save_expression
from lamella.models.expression.model import ExpressionModel
from lamella.models.expression.network import ExpressionNetwork
from lamella.models.expression.settings import ExpressionModelSettings, GatedSettings
from lamella.models.pretraining_record import PretrainingRecord
from lamella.verbs.expression_stages import prediction
from lamella.verbs.expression_stages.features import slide_views, view_shapes
from lamella.verbs.expression_stages.prediction_settings import PredictionSettings
from lamella.verbs.expression_stages.stage import Stage

GENES = ("ALB", "KRT8", "CD3E")
VIEWS = [{"token_um": 8}, {"token_um": 16, "fov_um": 96}]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    slides = [made_slide(tmp_path, f"s{number}", tissue_picture(160, 192, number)) for number in range(2)]
    return made_stage(tmp_path / "out", slides, bin_um=4.0, tile_bins=8, views=VIEWS)


def asking(stage: Stage, *more: Path, **predict: Any) -> Stage:
    """The stage with other settings of prediction."""
    settings = PredictionSettings.model_validate({"device": "cpu", **predict})
    config = stage.config.model_copy(update={"predict": settings})
    return replace(stage, resolved=Resolved(config, {}), more=more)


def saved_model(
    stage: Stage, folder: Path, *, seed: int = 0, digests: tuple[str, ...] | None = (), **features: Any
) -> str:
    torch.manual_seed(seed)
    settings = ExpressionModelSettings(width=8, fusion=GatedSettings())
    mean = np.array([0.01, 0.1, 1.0])
    network = ExpressionNetwork(settings, view_shapes(stage), 8, len(GENES), Needs(), "rate", mean)
    torch.nn.init.normal_(network.rate.weight, std=0.1)
    told = {**stage.config.features.model_dump(mode="json", exclude={"cache", "batch_size", "device"}), **features}
    model = ExpressionModel(network, GENES, target="counts", features=told, loss={"name": "poisson"}, name=f"m{seed}")
    record = None if digests is None else PretrainingRecord.of((), (), (), digests)
    save_expression(model, folder, "# A model\n", record=record)
    return str(folder)


def told(stage: Stage, slide: str) -> dict[str, Any]:
    return dict(json.loads((stage.folder("predictions") / slide / "prediction.json").read_text()))


def test_a_new_slide_becomes_maps_and_a_table(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [saved_model(stage, tmp_path / f"m{seed}", seed=seed) for seed in range(2)]
    new = made_slide(tmp_path, "new", tissue_picture(144, 192, 5))
    assert prediction.run_prediction(asking(stage, new.wsi_path, models=models, mpp0=0.5)) == 0
    folder = stage.folder("predictions") / "new"
    raster = open_raster(folder / "genes.zarr")
    maps = np.asarray(raster.levels[0][:])
    assert raster.names == GENES
    assert (raster.frame.width_px, raster.frame.height_px, raster.frame.mpp) == (24, 18, 4.0)
    there = np.isfinite(maps[0])
    assert there[:, :15].all()
    assert not there[:, 17:].any()  # tissue is on the left two thirds
    table = anndata.read_h5ad(folder / "expression.h5ad")
    assert table.X is None
    (layer,) = table.layers
    assert table.shape == (int(there.sum()), 3)
    assert list(table.var_names) == list(GENES)
    rows, columns = (np.asarray(table.obs[name]) for name in ("array_row", "array_col"))
    np.testing.assert_array_equal(np.asarray(table.layers[layer]), maps[:, rows, columns].T)
    # 4 um bins of a slide of 0.5 um a pixel: 8 pixels each.
    np.testing.assert_allclose(table.obsm["spatial"], np.stack([columns + 0.5, rows + 0.5], 1) * 8)
    facts = told(stage, "new")
    assert table.uns["lamella"]["units"] == facts["units"] == "expected count per bin of 4 um"
    assert list(table.uns["lamella"]["model_id"]) == facts["model_id"]
    assert facts["bins_on_tissue"] == int(there.sum())
    assert facts["mean_on_tissue"]["CD3E"] == pytest.approx(float(maps[2][there].mean()), rel=1e-4)
    assert facts["unseen"].startswith("no model has learned from this image")
    assert (folder / "genes.png").stat().st_size > 0
    assert "new: 24 x 18 bins of 4 um, 3 genes" in capsys.readouterr().out


def test_a_finished_slide_is_left_alone_and_another_prediction_is_refused(stage: Stage, tmp_path: Path) -> None:
    models = [saved_model(stage, tmp_path / "m")]
    asked = asking(stage, models=models)
    assert prediction.run_prediction(asked) == 0
    before = (stage.folder("predictions") / "s0" / "prediction.json").stat().st_mtime_ns
    assert prediction.run_prediction(asked) == 0
    assert (stage.folder("predictions") / "s0" / "prediction.json").stat().st_mtime_ns == before
    with pytest.raises(OutputConflictError, match="bin_um"):
        prediction.run_prediction(asking(stage, models=models, bin_um=8.0))
    with pytest.raises(OutputConflictError, match="models"):
        prediction.run_prediction(asking(stage, models=[saved_model(stage, tmp_path / "other", seed=3)]))


def test_memory_and_batches_change_nothing(stage: Stage, tmp_path: Path) -> None:
    models = [saved_model(stage, tmp_path / "m")]
    slide = stage.study.slides[0].wsi_path
    found = []
    for number, how in enumerate(({"batch_size": 1}, {"batch_size": 5, "memory_mb": 16})):
        other = replace(stage, out=tmp_path / f"out{number}")
        assert prediction.run_prediction(asking(other, slide, models=models, mpp0=0.5, anndata=False, **how)) == 0
        found.append(np.asarray(open_raster(other.folder("predictions") / "s0" / "genes.zarr").levels[0][:]))
        assert not (other.folder("predictions") / "s0" / "expression.h5ad").exists()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_slides_that_fail_are_listed_and_the_others_go_on(stage: Stage, tmp_path: Path) -> None:
    models = [saved_model(stage, tmp_path / "m")]
    folder = tmp_path / "new"
    folder.mkdir()
    made_slide(folder, "good", tissue_picture(96, 96))
    made_slide(folder, "glass", np.full((96, 96, 3), 243, np.uint8))
    (folder / "damaged.tif").write_bytes((folder / "good.tif").read_bytes()[:50])
    assert prediction.run_prediction(asking(stage, folder, models=models, mpp0=0.5)) == 1
    failed = read_csv(stage.folder("predictions") / "failed.csv")
    assert sorted(row["slide_id"] for row in failed) == ["damaged", "glass"]
    assert told(stage, "good")["bins_on_tissue"] > 0


def test_a_new_slide_without_mpp_is_listed(stage: Stage, tmp_path: Path) -> None:
    models = [saved_model(stage, tmp_path / "m")]
    new = made_slide(tmp_path, "new", tissue_picture(96, 96))
    assert prediction.run_prediction(asking(stage, new.wsi_path, models=models)) == 1
    (failed,) = read_csv(stage.folder("predictions") / "failed.csv")
    assert "mpp" in failed["error"]


@pytest.mark.parametrize(
    ("digests", "message"),
    [
        (("of the slide",), "1 of 1 models have learned from this very image"),
        (None, "1 of 1 models do not say what they have learned from"),
        (("0" * 16,), "no model has learned from this image; whether one has from its patient is not known"),
    ],
)
def test_it_is_said_what_the_models_have_seen(
    stage: Stage, tmp_path: Path, digests: tuple[str, ...] | None, message: str
) -> None:
    slide = stage.study.slides[0].wsi_path
    if digests == ("of the slide",):
        digests = (ends_digest(slide),)
    models = [saved_model(stage, tmp_path / "m", digests=digests)]
    items = prediction.to_predict(asking(stage, slide, models=models))
    assert [item.unseen for item in items] == [message]


# mistake: selection on the test patient (here: a slide predicted by models that have seen its patient)
def test_slides_of_the_study_are_predicted_by_models_that_have_not_seen_their_patient(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "trained_models", lambda stage, cell, fold: [Path(f"{cell.name}-{fold.test}")])
    items = prediction.to_predict(asking(stage))
    assert [(item.slide_id, item.models) for item in items] == [("s0", ("base-s0",)), ("s1", ("base-s1",))]
    assert items[0].unseen == "no model has seen patient s0"
    monkeypatch.setattr(prediction, "what_was_seen", lambda path, models: "")
    (new,) = prediction.to_predict(asking(stage, stage.study.slides[0].wsi_path))
    assert new.models == ("base-s0", "base-s1")  # of all folds together


def test_without_models_it_is_said_what_to_do(stage: Stage) -> None:
    with pytest.raises(LamellaError, match="no finished models of base for s0, s1"):
        prediction.run_prediction(asking(stage))
    with pytest.raises(LamellaError, match="the ablation has no such cell"):
        prediction.run_prediction(asking(stage, cell="loss=zinb"))


# mistake: wrong encoder behind a name
def test_another_encoder_under_the_same_name_is_refused(stage: Stage, tmp_path: Path) -> None:
    views = slide_views(stage, stage.study.slides[0])
    own = [raster.facts.fingerprint for raster in views.rasters]
    good = saved_model(stage, tmp_path / "good", fingerprints=own)
    other = saved_model(stage, tmp_path / "other", fingerprints=["0" * 16] * 2)
    slide = stage.study.slides[0].wsi_path
    assert prediction.run_prediction(asking(stage, slide, models=[good], mpp0=0.5)) == 0
    elsewhere = replace(stage, out=tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"the models were trained with {'0' * 16}"):
        prediction.run_prediction(asking(elsewhere, slide, models=[other], mpp0=0.5))


def test_shards_share_the_slides(stage: Stage, tmp_path: Path) -> None:
    models = [saved_model(stage, tmp_path / "m")]
    for shard, slide in (("1/2", "s0"), ("2/2", "s1")):
        asked = replace(asking(stage, models=models), request=Request("expression", options={"shard": shard}))
        assert prediction.run_prediction(asked) == 0
        assert told(stage, slide)["slide_id"] == slide
