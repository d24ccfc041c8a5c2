from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from lamella.cli import main
from lamella.formats.tables import read_csv
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.clip import load_clip
from lamella.models.regions import isolated
from lamella.verbs.naming.settings import Config
from lamella.verbs.naming.survey import read_regions

QUICK = (
    "dataset.mask_classes.tumor=1", "dataset.mask_classes.fat=2", "nshot.shots=[2]", "nshot.draws=2", "random_inits=1",
    "region.min_px=9", "probes.control_draws=1", "modes=[gray,context]",
)  # fmt: skip


@pytest.fixture(scope="module")
def results(
    clip_folder: Path, masked: Path, wordings: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("named") / "out"
    prompts = f"prompts=[{wordings[0]},{wordings[1]}]"
    assert main(["name", str(clip_folder), str(masked), prompts, *QUICK, "-o", str(out)]) == 0
    return out


def test_results_say_oracle_choose_nothing_on_the_judged_and_repeat(results: Path) -> None:
    text, tree = (results / "results.md").read_text(), json.loads((results / "results.json").read_text())
    heads = [line for line in text.splitlines() if line.startswith("## Naming")]
    assert len(heads) == 3
    assert all("oracle: regions given from the truth masks" in line for line in heads)
    assert (results / "results.html").read_text().count("<h2>Naming") == 3
    assert text.startswith("# How well does tiny-clip name the regions of discs?\n\n> **Oracle: the regions are cut")
    assert "first / gray" in text
    assert "second / context" in text
    assert "random init" in text
    assert "labels exchanged" in text
    assert "lamella name" in tree["command"]
    assert {(row["estimate"]["n"], row["estimate"]["groups"]) for row in tree["rows"]} == {(24, 6)}


def test_regions_are_components_of_each_class_and_small_ones_are_counted(results: Path, masked: Path) -> None:
    rows = read_csv(results / "regions.csv")
    assert len(rows) == 24
    assert {row["class"] for row in rows} == {"tumor", "fat"}
    squares = [row for row in rows if row["class"] == "fat"]
    assert {(row["x0"], row["y0"], row["width"], row["height"], row["area_px"]) for row in squares} == {
        ("55", "10", "35", "36", "1260")
    }
    assert "fewer than 9 pixels are left out: fat 12" in (results / "results.md").read_text()


def test_embeddings_and_names_are_those_of_the_model(
    results: Path, masked: Path, clip_folder: Path, wordings: tuple[Path, Path]
) -> None:
    """By hand, from the pixels: the chain of the verb against the model itself."""
    clip = load_clip(clip_folder)
    collection = open_collection(masked, DatasetSettings(mask_classes={"tumor": 1, "fat": 2}))
    item, config = collection.items[0], Config(prompts=("first",), region={"min_px": 9})
    pixels, regions, _, _ = read_regions(collection, item, ("tumor", "fat"), config)
    vectors = load_file(results / "features" / "tiny-clip-0.safetensors")["regions"]
    assert vectors.shape == (24, 2, 16)
    for column, mode in enumerate(("gray", "context")):
        shown = [isolated(pixels, region, mode, config.region, clip.contract.gray) for region in regions]
        assert np.allclose(vectors[:2, column], clip.images(clip.prepared(shown)).numpy(), atol=1e-5)
    named = read_csv(results / "zero_shot.csv")
    assert len({row["region"] for row in named}) == 24
    assert all(abs(float(row["p_tumor"]) + float(row["p_fat"]) - 1) < 1e-5 for row in named)
    for row in named:
        assert (row["named"] == "tumor") == (float(row["p_tumor"]) >= float(row["p_fat"]))


def test_a_second_run_finds_its_results_and_a_removed_table_is_made_from_kept_embeddings(
    results: Path, clip_folder: Path, masked: Path, wordings: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = f"prompts=[{wordings[0]},{wordings[1]}]"
    command = ["name", str(clip_folder), str(masked), prompts, *QUICK, "-o", str(results)]
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    before = (results / "results.json").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in (results / "features").iterdir()}
    (results / "results.json").unlink()
    assert main(command) == 0
    assert (results / "results.json").read_text() == before
    assert {path: path.stat().st_mtime_ns for path in (results / "features").iterdir()} == stamps
    assert main([*command, "fit=crop"]) == 2  # other settings
    assert "other settings" in capsys.readouterr().err


def test_a_cap_draws_regions_and_says_so(
    clip_folder: Path, tmp_path: Path, wordings: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    for number in range(6):
        mask[2 + 10 * number : 8 + 10 * number, 4:12] = 1
        mask[2 + 10 * number : 8 + 10 * number, 30:40] = 2
    rows = ["image_id,image_path,mask_path,patient"]
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"i{number}.png")
        Image.fromarray(mask).save(tmp_path / f"m{number}.png")
        rows.append(f"i{number},i{number}.png,m{number}.png,p{number}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    command = ["name", str(clip_folder), str(tmp_path / "manifest.csv"), f"prompts={wordings[0]}", *QUICK]
    assert main([*command, "max_regions=2", "tasks=zero-shot", "modes=crop", "-o", str(out)]) == 0
    assert "32 regions beyond max_regions are left out" in capsys.readouterr().out
    found = read_csv(out / "regions.csv")
    assert len(found) == 16
    assert len({(row["x0"], row["y0"]) for row in found}) > 4  # not the same ones in every image
    assert "one wording and isolation was given (first / crop)" in (out / "results.md").read_text()


def test_the_page_shows_what_the_network_saw(results: Path, masked: Path) -> None:
    page = np.asarray(Image.open(results / "named_regions.png").convert("RGB")).astype(int)
    gray = np.abs(page - (123, 117, 104)).max(-1) < 3
    assert gray.sum() > 20_000  # discs on gray: the first mode
    assert page.shape[1] > 1500  # seven across
    squares = np.abs(page - (60, 60, 200)).max(-1) < 12
    assert squares.sum() > 10_000  # the stripes of the other class


def test_one_patient_can_be_judged_where_nothing_is_chosen(
    clip_folder: Path, masked: Path, wordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *rows = masked.read_text().splitlines()
    one = masked.with_name("one.csv")
    one.write_text("\n".join([head, *rows[:2]]) + "\n")
    command = ["name", str(clip_folder), str(one), f"prompts={wordings[0]}", *QUICK, "tasks=zero-shot"]
    assert main([*command, "modes=crop", "-o", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "results.md").read_text()
    assert "so there is no control" in text
    assert "the whole range stands" in text
    assert "labels exchanged |" not in text
    assert main([*command, "-o", str(tmp_path / "several")]) == 2  # to choose a mode takes another patient
    assert "1 group(s) cannot be split" in capsys.readouterr().err


# ---- bad input -------------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["name", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_class_that_the_data_do_not_have(
    clip_folder: Path, masked: Path, wordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, clip_folder, masked, "prompts=glands", *QUICK, "-o", tmp_path / "out")
    assert "gland is no class of discs (it has background, tumor, fat)" in said
    assert not (tmp_path / "out").exists()
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"tumor": ["a"], "background": ["b"]}))
    said = refused(capsys, clip_folder, masked, f"prompts=[{wordings[0]},{other}]", *QUICK, "-o", tmp_path / "out")
    assert "it names tumor, background, and first names tumor, fat" in said
    said = refused(capsys, clip_folder, masked, f"prompts=[{other},{other}]", *QUICK, "-o", tmp_path / "out")
    assert "two files have one name" in said


def test_a_text_that_is_too_long_is_told_before_anything_is_read(
    clip_folder: Path, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "long.json"
    long.write_text(json.dumps({"tumor": ["x" * 60], "fat": ["fat"]}))
    said = refused(capsys, clip_folder, masked, f"prompts={long}", *QUICK, "-o", tmp_path / "out")
    assert "62 tokens long, and tiny-clip reads 24" in said
    assert not (tmp_path / "out").exists()


def test_no_prompts_no_masks_no_region(
    clip_folder: Path, masked: Path, wordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "prompts: must be given" in refused(capsys, clip_folder, masked, "-o", tmp_path / "out")
    said = refused(
        capsys, clip_folder, masked, f"prompts={wordings[0]}", *QUICK, "region.min_px=9999", "-o", tmp_path / "a"
    )
    assert "no region is left" in said
    said = refused(capsys, clip_folder, masked, f"prompts={wordings[0]}", "dataset.mask=none", "-o", tmp_path / "b")
    assert "it has no masks, so no regions are given" in said
    assert "2 path(s)" not in refused(capsys, clip_folder, "-o", tmp_path / "c")


def test_a_margin_in_micrometres_needs_a_spacing(
    clip_folder: Path, masked: Path, wordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [clip_folder, masked, f"prompts={wordings[0]}", *QUICK, "region.margin_um=20", "-o", tmp_path / "out"]
    assert "region.margin_um is in micrometres: set mpp too" in refused(capsys, *command)
    assert "states no spacing" in refused(capsys, *command, "mpp=0.5")
    assert "say dataset.mpp=0.5" in refused(capsys, *command[:3], "--mpp", 0.5, "-o", tmp_path / "b")


def test_an_image_that_cannot_be_read_is_listed_and_the_others_go_on(
    clip_folder: Path, masked: Path, wordings: tuple[Path, Path], tmp_path: Path
) -> None:
    for path in masked.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "m3.png")
    out = tmp_path / "out"
    command = ["name", str(clip_folder), str(tmp_path / "manifest.csv"), f"prompts={wordings[0]}", *QUICK]
    assert main([*command, "tasks=zero-shot", "modes=crop", "-o", str(out)]) == 1
    assert [row["item_id"] for row in read_csv(out / "failed.csv")] == ["i3"]
    assert len(read_csv(out / "regions.csv")) == 22
