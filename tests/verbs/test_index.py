"""`lamella index` as a user runs it."""

import json

import pytest
import yaml
from PIL import Image

from lamella.cli import main
from lamella.formats.tables import read_csv
from lamella.slides import indexing
from lamella.slides.index import SlideIndex


@pytest.fixture
def slides(make_slide, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number, name in enumerate(("a.tif", "b.tif")):
        make_slide(name, 256, 384, seed=number, folder=folder)
    return folder


def run(*arguments):
    return main(["index", *map(str, arguments)])


def test_a_folder_ends_with_counts_and_the_next_command(slides, tmp_path, capsys):
    out = tmp_path / "index"
    assert run(slides, "-o", out) == 0
    shown = capsys.readouterr().out
    assert "2 slides: 0 with a mask, 2 whose tissue is to be computed" in shown
    assert "2 ok, 0 failed, 0 rejected" in shown
    assert f"next: lamella anchors {out} -o anchors" in shown
    assert len(SlideIndex.load(out)) == 2
    assert {"config.yaml", "origins.json", "masks", "slide_metadata_build_report.csv"} <= {
        path.name for path in out.iterdir()
    }


def test_an_identical_rerun_changes_no_file(slides, tmp_path):
    out = tmp_path / "index"
    run(slides, "-o", out)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    assert run(slides, "-o", out) == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()} == before


def test_a_dry_run_prints_settings_and_counts_and_writes_nothing(slides, tmp_path, capsys):
    assert run(slides, "-o", tmp_path / "index", "--dry-run", "tissue.mpp=4") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("2 slides")
    assert yaml.safe_load(shown.partition("\n")[2])["tissue"]["mpp"] == 4
    assert not (tmp_path / "index").exists()


def test_some_bad_slides_are_exit_code_1_and_all_bad_says_so(slides, tmp_path, capsys):
    (slides / "z.svs").touch()
    assert run(slides, "-o", tmp_path / "index") == 1
    shown = capsys.readouterr().out
    assert "failed: z: " in shown
    assert "2 ok, 1 failed" in shown
    assert "failed.csv" in shown
    assert run(slides / "z.svs", "-o", tmp_path / "other") == 2
    shown = capsys.readouterr().out
    assert "no usable slide remains" in shown
    assert "next:" not in shown


@pytest.mark.parametrize(
    ("manifest", "cause"),
    [
        ("slide_id,mask_path\na,x\n", "the column wsi_path is missing"),
        ("slide_id,wsi_path\na,1.tif\na,2.tif\n", "a slide_id stands twice: a in lines 2, 3"),
    ],
)
def test_an_unusable_manifest_is_exit_code_2_and_nothing_is_written(tmp_path, capsys, manifest, cause):
    (tmp_path / "m.csv").write_text(manifest)
    assert run(tmp_path / "m.csv", "-o", tmp_path / "index") == 2
    shown = capsys.readouterr().err
    assert cause in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "index").exists()


def test_other_settings_or_slides_in_the_same_folder_are_refused(slides, tmp_path, capsys):
    out = tmp_path / "index"
    run(slides, "-o", out)
    before = (out / "slides.parquet").read_bytes()
    assert run(slides, "-o", out, "tissue.mpp=4") == 2
    assert "tissue.mpp: 8.0 there, 4.0 now" in capsys.readouterr().err
    assert run(slides, "-o", out, "--mpp", "0.25") == 2
    assert "mpp" in capsys.readouterr().err
    assert run(slides / "a.tif", "-o", out) == 2
    assert (out / "slides.parquet").read_bytes() == before


def test_a_slide_added_to_the_manifest_is_added_to_the_index(slides, tmp_path):
    manifest, out = tmp_path / "m.csv", tmp_path / "index"
    manifest.write_text("slide_id,wsi_path\na,slides/a.tif\n")
    run(manifest, "-o", out)
    manifest.write_text("slide_id,wsi_path\na,slides/a.tif\nb,slides/b.tif\n")
    assert run(manifest, "-o", out) == 0
    assert [slide.slide_id for slide in SlideIndex.load(out)] == ["a", "b"]


def test_a_stated_mpp_mends_a_missing_one_and_a_contradiction_is_told(make_slide, tmp_path, capsys):
    bare = make_slide("bare.tif", 256, 256, mpp=None)
    assert run(bare, "-o", tmp_path / "one") == 2
    assert "`--mpp 0.5`" in capsys.readouterr().out
    assert run(bare, "-o", tmp_path / "two", "--mpp", "0.5") == 0
    other = make_slide("other.tif", 256, 256, mpp=1.0)
    capsys.readouterr()
    assert run(other, "-o", tmp_path / "three", "--mpp", "0.5") == 0
    assert "note: " in capsys.readouterr().out
    assert SlideIndex.load(tmp_path / "three")["other"].mpp_stated == (0.5, 0.5)


def test_an_old_export_is_taken_as_input(slides, tmp_path):
    Image.new("L", (48, 32), 255).save(tmp_path / "mask.png")
    lines = [
        {"slide_id": "a", "wsi_path": "slides/a.tif", "mask_path": "mask.png", "status": "ok"},
        {"slide_id": "b", "wsi_path": "slides/b.tif", "mask_path": None, "status": "ok", "organ": "colon"},
    ]
    (tmp_path / "old.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run(tmp_path / "old.jsonl", "-o", tmp_path / "index") == 0
    index = SlideIndex.load(tmp_path / "index")
    assert index["a"].tissue_fraction == 1.0
    assert index["b"].metadata == {"organ": "colon"}


def test_no_slides_or_no_folder_is_a_plain_error(slides, capsys):
    assert run("-o", "x") == 2
    assert "no slides were given" in capsys.readouterr().err
    assert run(slides) == 2
    assert "no output folder" in capsys.readouterr().err


def test_an_unknown_setting_is_refused_with_a_suggestion(slides, tmp_path, capsys):
    assert run(slides, "-o", tmp_path / "index", "tissue.mmpp=4") == 2
    assert "did you mean tissue.mpp?" in capsys.readouterr().err


def test_a_shard_keeps_what_it_found_for_the_run_that_puts_them_together(slides, tmp_path, capsys, monkeypatch):
    out = tmp_path / "index"
    (slides / "c.svs").touch()
    assert run(slides, "-o", out, "--shard", "2/2") == 0
    shown = capsys.readouterr().out
    assert "shard 2 of 2: 1 of 3 slides" in shown
    assert "next: when all 2 shards have ended, the same command without --shard puts them together" in shown
    assert not (out / "slides.parquet").exists()
    assert run(slides, "-o", out, "--shard", "1/2") == 1
    assert [row["slide_id"] for row in read_csv(out / "failed.1of2.csv")] == ["c"]
    opened = []
    real = indexing.index_slide
    monkeypatch.setattr(indexing, "index_slide", lambda *rest: opened.append(rest[0].slide_id) or real(*rest))
    assert run(slides, "-o", out) == 1
    assert set(opened) == {"c"}, "only what failed is tried again"
    assert [slide.slide_id for slide in SlideIndex.load(out)] == ["a", "b"]
    assert {path.name for path in out.glob("*failed*")} == {"failed.csv"}
    assert not list(out.glob(".*"))


def test_retry_failed_does_those_alone_and_needs_a_finished_run(slides, tmp_path, capsys):
    out = tmp_path / "index"
    whole = (slides / "b.tif").read_bytes()
    (slides / "b.tif").write_bytes(whole[:500])
    assert run(slides, "-o", out, "--shard", "2/2") == 1
    assert run(slides, "-o", out, "--retry-failed") == 2
    assert "1 slides were never tried (a, ...)" in capsys.readouterr().err
    assert run(slides, "-o", out) == 1
    (slides / "b.tif").write_bytes(whole)
    assert run(slides, "-o", out, "--retry-failed") == 0
    assert "those that failed: 1 of 2 slides" in capsys.readouterr().out
    assert len(SlideIndex.load(out)) == 2
    assert not (out / "failed.csv").exists()


def test_where_the_slides_are_done_changes_nothing_in_the_index(slides, tmp_path):
    out = tmp_path / "index"
    assert run(slides, "-o", out) == 0
    before = (out / "slides.parquet").read_bytes()
    assert run(slides, "-o", out, "jobs.workers=2", "jobs.retries=3") == 0  # nothing to do: no worker is started
    assert (out / "slides.parquet").read_bytes() == before


def test_a_bug_that_one_slide_meets_is_the_slides_and_leaves_its_trace(slides, tmp_path, monkeypatch, capsys):
    out = tmp_path / "index"
    real = indexing.index_slide

    def buggy(row, *rest):
        return {}["missing"] if row.slide_id == "a" else real(row, *rest)

    monkeypatch.setattr(indexing, "index_slide", buggy)
    assert run(slides, "-o", out) == 1
    assert "failed: a: KeyError: 'missing' (test_index.py:" in capsys.readouterr().out
    assert "in buggy" in (out / "failed.log").read_text()
    monkeypatch.setattr(indexing, "index_slide", real)
    assert run(slides, "-o", out) == 0
    assert not (out / "failed.log").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "$I/2"])
def test_a_shard_that_is_no_part_is_refused(slides, tmp_path, capsys, shard):
    assert run(slides, "-o", tmp_path / "index", "--shard", shard) == 2
    assert "Write i/n with i from 1 to n: 3/8." in capsys.readouterr().err
