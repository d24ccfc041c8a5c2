"""Pictures of images, volumes, films and slides, of runs and results; and what cannot be explained."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.tiny_models import TINY, saved

from lamella.config import Request
from lamella.engine.log import LogSettings, RunLog, StepRow
from lamella.errors import LamellaError
from lamella.imaging.datasets.opening import open_collection
from lamella.models import hub, named, registry
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.vit import ViT, ViTSettings
from lamella.models.volume_encoder import VolumeContract, VolumeEncoder
from lamella.models.volume_vit import VolumeViTSettings
from lamella.verbs import explain
from lamella.verbs.evaluation.image_features import ViewSettings
from lamella.verbs.pictures.items import Choice, chosen

RNG = np.random.default_rng(0)


def save(encoder: ViTEncoder | VolumeEncoder, folder: Path) -> Path:
    facts = {"name": "tiny", "licence": "none", "data": "none", "limits": "all", "contract": encoder.contract}
    hub.save_pretrained(encoder, folder, hub.model_card(facts))
    return folder


def image_encoder(mpp: float | None) -> ViTEncoder:
    contract = InputContract(mpp, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    return ViTEncoder(fresh_vit(ViTSettings(patch_px=8, dim=16, depth=2, heads=2), 0), contract, "tiny")


def volume_encoder(kind: str) -> VolumeEncoder:
    film = kind == "video"
    contract = VolumeContract(
        kind, 3 if film else 1, (8, 16, 16), (2, 8, 8), 24, spacing_mm=None if film else (3.0, 2.0, 2.0),
        mean=(0.5,) * 3 if film else None, std=(0.25,) * 3 if film else None,
    )  # fmt: skip
    torch.manual_seed(0)
    settings = VolumeViTSettings(patch=(2, 8, 8), channels=3 if film else 1, dim=24, depth=2, heads=2)
    return VolumeEncoder(ViT(settings), contract, "tiny")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(image_encoder(None), folder / "image")
    save(image_encoder(0.5), folder / "tissue")
    save(volume_encoder("volume"), folder / "volume")
    save(volume_encoder("video"), folder / "video")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "images"
    for number in range(6):
        kind = folder / ("bright" if number % 2 else "dark")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 128, (40, 40, 3)) + 120 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(kind / f"i{number}.png")
    return folder


def run(paths: tuple[Path | str, ...], out: Path, *overrides: str, **more: object) -> int:
    return explain.run(Request("explain", tuple(map(Path, paths)), out, overrides=overrides, **more))


def pictures(out: Path) -> list[str]:
    names = sorted(path.name for path in out.glob("*.png"))
    page = (out / "index.html").read_text()
    assert all(f'src="{name}"' in page for name in names)
    return names


def test_images_get_their_pages_and_the_untrained_network_beside(models, images, tmp_path) -> None:
    out = tmp_path / "out"
    assert run((models / "image", images), out, "items=3") == 0
    assert pictures(out) == ["heads.png", "overview.png", "random_heads.png", "random_overview.png"]
    assert (out / "overview.png").read_bytes() != (out / "random_overview.png").read_bytes()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run((models / "image", images), out, "items=3") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_classes_take_turns_and_items_can_be_named(images) -> None:
    collection = open_collection(images)
    choice = Choice((), 4, 0, ViewSettings(), 6, 0)
    labels = [item.labels for item in chosen(collection, choice)]
    assert labels == [("bright",), ("dark",)] * 2
    ids = (collection.items[4].item_id, collection.items[0].item_id)
    assert [item.item_id for item in chosen(collection, Choice(ids, 4, 0, ViewSettings(), 6, 0))] == list(ids)
    with pytest.raises(LamellaError, match="it has no item nowhere"):
        chosen(collection, Choice(("nowhere",), 4, 0, ViewSettings(), 6, 0))


def test_an_image_that_cannot_be_read_fails_alone(models, images, tmp_path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.rglob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "i0.png").write_bytes((folder / "i0.png").read_bytes()[:200])
    assert run((models / "image", folder), tmp_path / "out", "items=6", "random_twin=false") == 1
    failed = (tmp_path / "out" / "failed.csv").read_text()
    assert "i0" in failed
    assert "i1" not in failed
    assert pictures(tmp_path / "out") == ["heads.png", "overview.png"]


def test_a_volume_is_shown_in_planes_through_its_mask(models, tmp_path) -> None:
    folder = tmp_path / "volumes"
    folder.mkdir()
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    lesion = np.zeros((24, 20, 10), np.uint8)
    lesion[2:6, 12:17, 7:9] = 1
    nib.save(nib.Nifti1Image(RNG.normal(100, 20, lesion.shape).astype(np.float32), affine), folder / "v.nii.gz")
    nib.save(nib.Nifti1Image(lesion, affine), folder / "m.nii.gz")
    (folder / "volumes.csv").write_text("image,mask\nv.nii.gz,m.nii.gz\n")
    out = tmp_path / "out"
    assert run((models / "volume", folder / "volumes.csv"), out, "random_twin=false") == 0
    assert pictures(out) == ["heads_00.png", "overview_00.png"]
    with Image.open(out / "overview_00.png") as page:
        orange = (np.abs(np.asarray(page, int) - np.array((230, 159, 0))).max(axis=2) < 90).sum()
    assert orange > 500  # the mask, half opaque


def test_films_are_shown_frame_by_frame(models, tmp_path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    frames = [Image.fromarray(RNG.integers(0, 256, (24, 24), dtype=np.uint8)) for _ in range(18)]
    frames[0].save(folder / "f.gif", save_all=True, append_images=frames[1:], duration=50)
    out = tmp_path / "out"
    assert run((models / "video", folder), out, "random_twin=false", "frames=3", "heads=0") == 0
    assert pictures(out) == ["overview_00.png"]


def test_slides_are_shown_by_tiles_of_their_tissue(models, judged_index, tmp_path) -> None:
    out = tmp_path / "out"
    assert run((models / "tissue", judged_index), out, "items=2", "random_twin=false") == 0
    assert pictures(out) == ["heads.png", "overview.png"]
    with pytest.raises(LamellaError, match="no spacing"):
        run((models / "image", judged_index), tmp_path / "other")


def test_an_encoder_of_another_library_is_explained(images, tmp_path, monkeypatch) -> None:
    entry = TINY["dinov2"].entry
    saved(TINY["dinov2"], tmp_path / "weights")
    known = registry.entries()
    for module in (registry, named):
        if hasattr(module, "entries"):
            monkeypatch.setattr(module, "entries", lambda: {**known, entry.name: entry})
    out = tmp_path / "out"
    model = f"{entry.name}@{tmp_path / 'weights'}"
    assert run((model, images), out, "items=2", "random_twin=false", "view.name=whole") == 0
    assert pictures(out) == ["heads.png", "overview.png"]


def test_a_kind_that_the_encoder_does_not_take_is_refused(models, images, tmp_path) -> None:
    with pytest.raises(LamellaError, match="an encoder of volumes, and the data are images"):
        run((models / "volume", images), tmp_path / "out")


def test_a_run_is_explained_by_its_curves_and_with_data_by_its_model(images, tmp_path) -> None:
    with RunLog(tmp_path / "run", LogSettings(tensorboard=False)) as log:
        for step in range(1, 6):
            log.step(StepRow(1, step, 1 / step, 10, 4, 5.0, 1e-3, 0.04, 8 * step), {})
        log.monitors(5, 40, {"rankme_centred": 3.0, "warnings": []})
    assert run((tmp_path / "run",), tmp_path / "curves") == 0
    assert pictures(tmp_path / "curves") == ["training.png"]
    save(image_encoder(None), tmp_path / "run" / "model")
    assert run((tmp_path / "run", images), tmp_path / "both", "random_twin=false", "attention=false") == 0
    assert pictures(tmp_path / "both") == ["overview.png", "training.png"]


def test_results_are_explained_by_scatters_and_label_curves(tmp_path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.json").write_text(json.dumps({"title": "What did it learn?", "rows": []}))
    assert run((results,), tmp_path / "little") == 0
    assert "efficiency.csv is not there" in (tmp_path / "little" / "index.html").read_text()
    features = RNG.normal(size=(24, 8)).astype(np.float32)
    labels = np.array(["a", "b", ""] * 8)
    np.savez(results / "embedding.npz", features=features, random_init=features[::-1], labels=labels, encoder="tiny")
    (results / "nshot.csv").write_text(
        "encoder,shots,labels,draws,auc,auc_low,auc_high\ntiny,5,10,20,.8,.7,.9\ntiny,10,20,20,.85,.75,.9\n"
    )
    assert run((results,), tmp_path / "out") == 0
    assert pictures(tmp_path / "out") == ["nshot_auc.png", "scatter_features.png", "scatter_random_init.png"]


def test_paths_that_are_nothing_are_refused(images, tmp_path) -> None:
    with pytest.raises(LamellaError, match="is no such folder"):
        run((images,), tmp_path / "out")
    with pytest.raises(LamellaError, match=r"0 path\(s\) given"):
        run((), tmp_path / "out")


def test_a_dry_run_writes_nothing(models, images, tmp_path, capsys) -> None:
    assert run((models / "image", images), tmp_path / "out", dry_run=True) == 0
    assert "would explain" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
