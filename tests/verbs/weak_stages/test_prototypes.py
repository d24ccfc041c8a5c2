from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tests.verbs.weak_stages.made_study import BACKGROUND, CLASSES, Made, save_encoder

from lamella.data.bag_purity import MASKS, ONLY_CLASS, TILE_LABELS
from lamella.errors import ConfigError, LamellaError, OutputConflictError
from lamella.formats.exemplars import read_exemplars, write_exemplars
from lamella.formats.tables import read_csv, read_parquet, write_parquet
from lamella.models.hub import load_encoder
from lamella.models.prototypes import load_prototypes, random_prototypes, save_prototypes
from lamella.verbs.weak_stages.features import run_features
from lamella.verbs.weak_stages.prototypes import run_prototypes
from lamella.verbs.weak_stages.stage import COORDINATES

ALL = (*CLASSES, BACKGROUND)


def _folder(made: Made) -> Path:
    return made.out / "prototypes"


def _run(made: Made, **settings: object) -> int:
    run_features(made.stage())
    return run_prototypes(made.stage(prototypes={"pictures": 0, **settings}))


def test_prototypes_are_typical_of_their_class(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(made) == 0
    found = load_prototypes(_folder(made))
    assert (found.classes, found.k_list, found.dim) == (ALL, (3, 3, 3), 16)
    assert found.fingerprint == load_encoder(made.encoder).fingerprint == load_encoder(found.encoder).fingerprint
    assert found.facts["told_apart"] == {"fine": 1.0, "coarse": 1.0, "plain": 1.0}
    assert "100% of fine" in capsys.readouterr().out
    exemplars = read_exemplars(made.out / "image_features")
    unit = exemplars.features_ND / np.linalg.norm(exemplars.features_ND, axis=1, keepdims=True)
    members = read_parquet(_folder(made) / "members.parquet")
    cluster, cosine = (members.column(name).to_numpy() for name in ("cluster", "cosine"))
    for number, name in enumerate(ALL):
        for k in range(3):
            own = (exemplars.classes == name) & (cluster == k + 1)
            mean = unit[own].sum(0) / np.linalg.norm(unit[own].sum(0))
            np.testing.assert_allclose(found.features_KD[3 * number + k], mean, atol=1e-5)
            np.testing.assert_allclose(cosine[own], unit[own] @ mean, atol=1e-5)


def test_the_table_says_how_large_clusters_are_and_what_is_nearest(made: Made) -> None:
    _run(made)
    rows = read_csv(_folder(made) / "clusters.csv")
    members = read_parquet(_folder(made) / "members.parquet").to_pylist()
    assert len(rows) == 9
    for row in rows:
        own = [each for each in members if (each["class"], str(each["cluster"])) == (row["class"], row["cluster"])]
        assert int(row["size"]) == len(own)
        assert float(row["share"]) == pytest.approx(len(own) / 32, abs=1e-4)
        assert int(row["slides"]) == len({each["slide_id"] for each in own})
        best = max(own, key=lambda each: each["cosine"])
        nearest = [row["nearest_slide_id"], float(row["nearest_x_px0"]), float(row["nearest_y_px0"])]
        assert nearest == [best["slide_id"], best["x_px0"], best["y_px0"]]
        assert float(row["least_cosine"]) == pytest.approx(min(each["cosine"] for each in own), abs=1e-4)


def test_pictures_show_the_nearest_exemplars(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run_features(made.stage())
    run_prototypes(made.stage(prototypes={"k": 2, "pictures": 3}))
    pages = sorted(_folder(made).glob("*.png"))
    assert [page.name for page in pages] == [f"prototypes_{at}_{name}.png" for at, name in enumerate(ALL)]
    assert str(pages[0]) in capsys.readouterr().out
    pixels = [_pixels(page) for page in pages]
    assert len({page.shape for page in pixels}) == 1
    height, width, _ = pixels[0].shape
    assert width > 3 * 224
    assert height > 2 * 224
    assert len(np.unique(pixels[0].reshape(-1, 3), axis=0)) > 500  # tissue, not blank frames
    assert not np.array_equal(pixels[0], pixels[1])


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"k": 1}, (1, 1, 1)),  # a mistake of the source: k = 1 crashed
        ({"k_list": (2, 4)}, (2, 4, 3)),
        ({"k_list": (1, 2, 5), "k": 7}, (1, 2, 5)),
        ({"k_list": (1, 2, 3), "representatives": 4}, (4, 8, 12)),
    ],
)
def test_each_class_has_as_many_as_asked_for(made: Made, settings: dict[str, object], expected) -> None:
    _run(made, **settings)
    found = load_prototypes(_folder(made))
    assert found.k_list == expected
    assert len(found.features_KD) == sum(expected)


def test_representatives_are_exemplars_nearest_to_their_centres(made: Made) -> None:
    _run(made, k=2, representatives=3)
    exemplars = read_exemplars(made.out / "image_features")
    unit = exemplars.features_ND / np.linalg.norm(exemplars.features_ND, axis=1, keepdims=True)
    members = read_parquet(_folder(made) / "members.parquet")
    cluster, cosine = (members.column(name).to_numpy() for name in ("cluster", "cosine"))
    of_fine = load_prototypes(_folder(made)).features_KD[:6].numpy()
    expected = []
    for k in (1, 2):
        own = np.flatnonzero((exemplars.classes == "fine") & (cluster == k))
        expected += list(unit[own[np.argsort(-cosine[own], kind="stable")[:3]]])
    np.testing.assert_allclose(of_fine, expected, atol=1e-6)


def test_a_class_has_no_more_prototypes_than_exemplars(made: Made) -> None:
    with pytest.raises(LamellaError, match=r"exemplars of fine: 33 clusters.*32 features"):
        _run(made, k=33)
    assert _run(made, k=3) == 0  # the folder was not taken for the settings that were refused


def test_a_k_list_of_another_number_of_classes_is_refused(made: Made) -> None:
    with pytest.raises(ConfigError, match=r"k_list: 4 numbers, but exemplars are of 3 \(fine, coarse, plain\)"):
        _run(made, k_list=(1, 2, 3, 4))


def test_the_background_has_none_where_it_has_no_exemplars(made: Made) -> None:
    made.write_exemplars({"fine": ("fine0",), "coarse": ("coarse0",)})
    _run(made, k=2)
    assert load_prototypes(_folder(made)).classes == CLASSES


def _ruled(made: Made, rule: str) -> None:
    """Stage 0's table, with the rule by which it chose; every slide's exemplars stand for both classes."""
    table = made.write_exemplars({"fine": ("fine0", "plain0"), "coarse": ("coarse0", "plain1")})
    table = table.append_column("rule", pa.array([rule] * table.num_rows))
    write_parquet(made.out / COORDINATES / "tiles.parquet", table)


def test_labels_of_slides_have_clusters_of_common_tissue_left_out(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    _ruled(made, ONLY_CLASS)
    _run(made, k=1)
    assert "fine: 1 of 2 clusters left out" in capsys.readouterr().out
    found = load_prototypes(_folder(made))
    assert found.k_list == (1, 1)
    assert found.facts["picked_by"] == {"fine": [ONLY_CLASS], "coarse": [ONLY_CLASS]}
    members = read_parquet(_folder(made) / "members.parquet").to_pylist()
    assert {row["slide_id"] for row in members if row["cluster"] == 1} == {"fine0", "coarse0"}
    rows = {(row["class"], row["cluster"]): row for row in read_csv(_folder(made) / "clusters.csv")}
    assert [rows["fine", cluster]["kept"] for cluster in ("1", "2")] == ["1", "0"]


@pytest.mark.parametrize(
    ("rule", "settings"),
    [(TILE_LABELS, {}), (MASKS, {}), (ONLY_CLASS, {"spare": 0}), (ONLY_CLASS, {"k": 5})],  # 5: too few exemplars
)
def test_nothing_is_left_out_of_exemplars_that_are_known_one_by_one(made: Made, rule: str, settings) -> None:
    _ruled(made, rule)
    _run(made, **{"k": 1, **settings})
    assert {row["kept"] for row in read_csv(_folder(made) / "clusters.csv")} == {"1"}


def test_a_class_without_features_is_refused(made: Made) -> None:
    run_features(made.stage())
    folder = made.out / "image_features"
    found = read_exemplars(folder)
    kept = found.classes != "coarse"
    write_exemplars(folder, type(found)(found.features_ND[kept], found.table.filter(kept), found.record))
    with pytest.raises(LamellaError, match="coarse: this class has no exemplars"):
        run_prototypes(made.stage())


def test_without_stage_1_it_says_what_to_run(made: Made) -> None:
    with pytest.raises(LamellaError, match="lamella weak features"):
        run_prototypes(made.stage())


def test_a_rerun_does_nothing_and_other_pictures_are_no_other_prototypes(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(made)
    before = (_folder(made) / "prototypes.safetensors").stat().st_mtime_ns
    assert run_prototypes(made.stage(prototypes={"pictures": 2})) == 0
    assert "done already: 9 prototypes" in capsys.readouterr().out
    assert (_folder(made) / "prototypes.safetensors").stat().st_mtime_ns == before


def test_prototypes_of_other_settings_or_features_are_never_taken(made: Made) -> None:
    _run(made)
    with pytest.raises(OutputConflictError, match=r"prototypes\.k: 3 there, 2 now"):
        run_prototypes(made.stage(prototypes={"k": 2, "pictures": 0}))
    folder = made.out / "image_features"
    found = read_exemplars(folder)
    write_exemplars(folder, type(found)(found.features_ND * -1, found.table, found.record))
    with pytest.raises(OutputConflictError, match=r"inputs\.features"):
        run_prototypes(made.stage(prototypes={"pictures": 0}))


def test_the_same_seed_makes_the_same_files(made: Made) -> None:
    _run(made)
    first = {path.name: path.read_bytes() for path in _folder(made).iterdir() if path.is_file()}
    for path in _folder(made).iterdir():
        path.unlink()
    run_prototypes(made.stage(prototypes={"pictures": 0}))
    assert first == {path.name: path.read_bytes() for path in _folder(made).iterdir() if path.is_file()}


def test_an_encoder_that_tells_nothing_apart_is_noted(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run_features(made.stage())
    folder = made.out / "image_features"
    found = read_exemplars(folder)
    same = np.tile(found.features_ND[:32], (3, 1))  # of all three classes
    write_exemplars(folder, type(found)(same, found.table, found.record))
    run_prototypes(made.stage(prototypes={"k": 1, "pictures": 0}))
    assert "hardly tells these classes apart" in capsys.readouterr().out


def _torch_file(made: Made, classes: tuple[str, ...], dim: int = 16) -> Path:
    path = made.folder / "label_fea_pro.pkl"
    torch.save({"features": torch.eye(len(classes), dim), "k_list": [1] * len(classes), "class_order": classes}, path)
    return path


def test_prototypes_of_the_source_are_imported_in_the_order_of_the_classes(made: Made) -> None:
    path = _torch_file(made, ("coarse", "fine"))
    settings = {"import_from": str(path), "import_encoder": str(made.encoder)}
    assert run_prototypes(made.stage(prototypes=settings)) == 0
    found = load_prototypes(_folder(made))
    assert (found.classes, found.k_list) == (CLASSES, (1, 1))
    assert torch.equal(found.features_KD, torch.eye(2, 16).flip(0))
    assert found.fingerprint == load_encoder(made.encoder).fingerprint
    assert run_prototypes(made.stage(prototypes=settings)) == 0


def test_a_folder_of_another_study_is_imported(made: Made) -> None:
    save_prototypes(made.folder / "other", random_prototypes(ALL, (1, 2, 3), 5, seed=0))
    run_prototypes(made.stage(prototypes={"import_from": str(made.folder / "other")}))
    assert load_prototypes(_folder(made)).k_list == (1, 2, 3)


def test_an_import_of_other_classes_or_another_width_is_refused(made: Made) -> None:
    path = _torch_file(made, ("fine", "tumour"))
    with pytest.raises(LamellaError, match="coarse is missing; tumour is unknown"):
        run_prototypes(made.stage(prototypes={"import_from": str(path)}))
    path = _torch_file(made, CLASSES, dim=12)
    with pytest.raises(LamellaError, match="12 numbers, those of tiny 16"):
        run_prototypes(made.stage(prototypes={"import_from": str(path), "import_encoder": str(made.encoder)}))


def test_a_folder_is_of_the_encoder_that_it_names(made: Made) -> None:
    save_prototypes(made.folder / "other", random_prototypes(CLASSES, (1, 1), 16, seed=0))
    other = save_encoder(made.folder / "another", seed=3)
    settings = {"import_from": str(made.folder / "other"), "import_encoder": str(other)}
    with pytest.raises(LamellaError, match="another encoder than tiny"):
        run_prototypes(made.stage(prototypes=settings))


def test_an_import_that_is_absent_is_refused(made: Made) -> None:
    with pytest.raises(LamellaError, match="does not exist"):
        run_prototypes(made.stage(prototypes={"import_from": str(made.folder / "absent.pkl")}))


def _exemplar_file(made: Made, **changes: object) -> Path:
    """The source's medclip_exemplars.pkl, saved by torch."""
    path = made.folder / "medclip_exemplars.pkl"
    names = ["coarse"] * 6 + ["fine"] * 6
    features = torch.cat([torch.eye(2, 16).repeat(3, 1), torch.eye(16)[4:6].repeat(3, 1)])
    sources = [f"slide{number % 4}" for number in range(12)]
    torch.save({"features": features, "class_names": names, "wsi_sources": sources, **changes}, path)
    return path


def test_exemplars_of_the_source_are_clustered(made: Made) -> None:
    path = _exemplar_file(made)
    assert run_prototypes(made.stage(prototypes={"import_from": str(path), "k": 2})) == 0
    found = load_prototypes(_folder(made))
    assert (found.classes, found.k_list, found.encoder) == (CLASSES, (2, 2), "unknown")
    assert {tuple(row) for row in found.features_KD[:2].tolist()} == {tuple(row) for row in torch.eye(16)[4:6].tolist()}
    rows = read_csv(_folder(made) / "clusters.csv")
    assert {row["nearest_slide_id"] for row in rows} <= {f"slide{number}" for number in range(4)}
    assert {row["nearest_x_px0"] for row in rows} == {""}
    assert not list(_folder(made).glob("*.png"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["fine"] * 12}, "coarse: this class has no exemplars"),
        ({"class_names": ["tumour"] * 12}, "other classes .tumour."),
        ({"class_names": ["fine"] * 5}, "do not fit"),
        ({"wsi_sources": ["s"]}, "do not fit"),
        ({"features": torch.full((12, 16), torch.inf, dtype=torch.float16)}, "12 of 12 features are not finite"),
    ],
)
def test_exemplars_that_do_not_fit_are_refused(made: Made, changes: dict[str, object], message: str) -> None:
    path = _exemplar_file(made, **changes)
    with pytest.raises(LamellaError, match=message):
        run_prototypes(made.stage(prototypes={"import_from": str(path), "k": 1}))
