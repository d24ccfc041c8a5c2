"""`lamella anchors` as a user runs it."""

import pickle

import numpy as np
import pytest
import yaml
from PIL import Image

from lamella.cli import main
from lamella.formats.tables import read_csv
from lamella.slides.anchors.anchor_csv import ImportedAnchors
from lamella.slides.anchors.catalogue import Catalogue

SMALL = ("sampling.context_fov_um=256", "sampling.target_fov_um=64", "qc=false")


@pytest.fixture
def index(make_slide, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number, name in enumerate(("a.tif", "b.tif")):
        make_slide(name, 768, 1024, seed=number, mpp=1.0, levels=2, folder=folder)
    assert main(["index", str(folder), "-o", str(tmp_path / "index")]) == 0
    return tmp_path / "index"


def run(*arguments):
    return main(["anchors", *map(str, arguments)])


def test_a_catalogue_with_report_csv_and_next_command(index, tmp_path, capsys):
    out, table = tmp_path / "anchors", tmp_path / "anchors.csv"
    assert run(index, "-o", out, "--csv", table, *SMALL) == 0
    shown = capsys.readouterr().out
    catalogue = Catalogue.load(out)
    assert f"{len(catalogue)} anchors, slides with anchors: 2; 2 ok, 0 skipped, 0 failed" in shown
    assert f"next: lamella preview {out} -o previews" in shown
    assert len(read_csv(table)) == len(catalogue) > 20
    assert catalogue.sampling.context_fov_um == 256


def test_the_shipped_profile_is_taken_by_name(index, tmp_path):
    out = tmp_path / "anchors"
    assert run(index, "-p", "ctx1p0_tgt0p5_fov512um_k4", "-o", out, "qc=false") == 0
    assert Catalogue.load(out).sampling.profile_id == "ctx1p0_tgt0p5_fov512um_k4"


def test_anchors_are_drawn_on_the_thumbnail_of_each_slide(index, tmp_path):
    out = tmp_path / "anchors"
    assert run(index, "-o", out, *SMALL[:2]) == 0
    for slide_id in "ab":
        picture = np.asarray(Image.open(out / "qc" / f"{slide_id}.png").convert("RGB"))
        assert picture.std() > 10


def test_an_identical_rerun_changes_no_file_and_other_settings_are_refused(index, tmp_path, capsys):
    out = tmp_path / "anchors"
    run(index, "-o", out, *SMALL)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    assert run(index, "-o", out, *SMALL) == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()} == before
    capsys.readouterr()
    assert run(index, "-o", out, *SMALL, "sampling.targets_per_context=2") == 2
    assert "sampling.targets_per_context: 4 there, 2 now" in capsys.readouterr().err


def test_a_dry_run_counts_positions_and_writes_nothing(index, tmp_path, capsys):
    assert run(index, "-o", tmp_path / "anchors", "--dry-run", *SMALL) == 0
    shown = capsys.readouterr().out
    assert "slides: 2, positions: 70" in shown  # 7 x 5 on each
    assert yaml.safe_load(shown.partition("\n")[2])["sampling"]["context_fov_um"] == 256
    assert not (tmp_path / "anchors").exists()


def test_export_and_import_make_the_same_catalogue(index, tmp_path):
    run(index, "-o", tmp_path / "one", "--csv", tmp_path / "anchors.csv", *SMALL)
    assert run(tmp_path / "anchors.csv", "--index", index, "-o", tmp_path / "two", *SMALL) == 0
    one, two = (Catalogue.load(tmp_path / name) for name in ("one", "two"))
    assert [one.anchor(row) for row in range(len(one))] == [two.anchor(row) for row in range(len(two))]
    assert one.hash == two.hash


def test_an_import_needs_its_index_and_its_profile(index, tmp_path, capsys):
    run(index, "-o", tmp_path / "one", "--csv", tmp_path / "anchors.csv", *SMALL)
    capsys.readouterr()
    assert run(tmp_path / "anchors.csv", "-o", tmp_path / "two", *SMALL) == 2
    assert "Add `--index INDEX_FOLDER`" in capsys.readouterr().err
    assert run(tmp_path / "anchors.csv", "--index", index, "-o", tmp_path / "two") == 2
    assert "sampling.context_fov_um=256" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_a_slide_too_small_for_a_context_is_exit_code_1(index, tmp_path, make_slide, capsys):
    make_slide("tiny.tif", 128, 128, mpp=1.0, folder=tmp_path / "slides")
    main(["index", str(tmp_path / "slides"), "-o", str(index)])
    assert run(index, "-o", tmp_path / "anchors", *SMALL) == 1
    assert "is smaller than a context of 256 um" in capsys.readouterr().out
    assert [row["slide_id"] for row in read_csv(tmp_path / "anchors" / "failed.csv")] == ["tiny"]


def test_no_anchor_at_all_says_so(index, tmp_path, capsys):
    assert run(index, "-o", tmp_path / "anchors", "sampling.context_fov_um=2048", "qc=false") == 1
    shown = capsys.readouterr().out
    assert "no anchor remains" in shown
    assert "next:" not in shown


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ((), "it takes one path, not 0"),
        (("sampling.target_fov_um=600",), "does not fit into a context"),
        (("sampling.targets_per_contxt=2",), "did you mean sampling.targets_per_context?"),
        (("sampling.context_mpp=thin",), "sampling.context_mpp"),
    ],
)
def test_user_errors_are_exit_code_2(index, tmp_path, capsys, arguments, cause):
    given = (index, *arguments) if arguments else ()
    assert run(*given, "-o", tmp_path / "anchors") == 2
    shown = capsys.readouterr().err
    assert cause in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "anchors").exists()


def test_a_folder_that_is_no_index_is_refused(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    assert run(tmp_path / "x", "-o", tmp_path / "anchors") == 2
    assert "it is not a slide index" in capsys.readouterr().err


def test_a_slide_that_is_gone_is_not_in_the_catalogue(index, tmp_path):
    (tmp_path / "slides" / "a.tif").unlink()
    assert run(index, "-o", tmp_path / "anchors", *SMALL[:2]) == 1
    catalogue = Catalogue.load(tmp_path / "anchors")
    assert [slide_id for slide_id, _, _ in catalogue.shards] == ["b"]
    assert "does not exist" in read_csv(tmp_path / "anchors" / "failed.csv")[0]["error"]


def test_shards_put_together_are_the_catalogue_of_one_run(index, tmp_path, capsys):
    out = tmp_path / "anchors"
    for number in (2, 1):
        assert run(index, "-o", out, *SMALL, "--shard", f"{number}/2") == 0
        assert not (out / "catalogue.json").exists()
    assert "shard 1 of 2: 1 of 2 slides" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert run(index, "-o", out, *SMALL) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before
    assert run(index, "-o", tmp_path / "one", *SMALL) == 0
    assert Catalogue.load(out).hash == Catalogue.load(tmp_path / "one").hash


def test_imported_anchors_travel_to_workers_slide_by_slide(index, tmp_path):
    run(index, "-o", tmp_path / "one", "--csv", tmp_path / "anchors.csv", *SMALL)
    one = Catalogue.load(tmp_path / "one")
    imported = ImportedAnchors(tmp_path / "anchors.csv", one.index, one.sampling)
    part = pickle.loads(pickle.dumps(imported.only("b")))  # noqa: S301 - our own bytes
    assert part.slide_ids == ["b"]
    assert len(imported.slide_ids) == 2
    pieces = [list(anchors.candidates(one.index["b"], one.sampling)) for anchors in (part, imported)]
    assert all(np.array_equal(a.centers_px0, b.centers_px0) for a, b in zip(*pieces, strict=True))


def test_a_slide_that_failed_alone_is_tried_again(index, tmp_path, capsys):
    slide, out = tmp_path / "slides" / "a.tif", tmp_path / "anchors"
    moved = slide.rename(tmp_path / "a.tif")
    assert run(index, "-o", out, *SMALL[:2]) == 1
    assert "--retry-failed tries these alone" in capsys.readouterr().out
    moved.rename(slide)
    assert run(index, "-o", out, *SMALL[:2], "--retry-failed") == 0
    assert "those that failed: 1 of 2 slides" in capsys.readouterr().out
    assert len(Catalogue.load(out).shards) == 2
