"""The whole road at a tiny budget."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest

from lamella.config import Request, resolve
from lamella.errors import ConfigError, LamellaError, OutputConflictError
from lamella.slides.phantom import write_phantoms
from lamella.verbs import demo

VERBS = ("index", "anchors", "preview", "pretrain", "embed", "evaluate")
TINY = (
    "phantom.slides=4",
    "phantom.test_slides=2",
    "phantom.size_px=768",
    "preview.num_samples=2",
    "preview.final_png_scale=1",
    "preview.num_zoomed_previews=0",
    "pretrain.budget.images=16",
    "pretrain.data.batch_size=4",
    "pretrain.data.workers=0",
    "pretrain.method.encoder.dim=32",
    "pretrain.method.encoder.depth=1",
    "pretrain.method.predictor.depth=1",
    "pretrain.log.monitor_images=8",
    "evaluate.max_tiles_per_slide=8",
    "evaluate.random_inits=1",
    "evaluate.probes.control_draws=1",
    "evaluate.leave_out_seen=false",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo's folder after a run with a slide of the user, and that slide."""
    folder = tmp_path_factory.mktemp("demo")
    slide = folder / "mine.tif"
    write_phantoms(folder / "other", slides=1, size_px=768, seed=7, test_slides=0)
    shutil.copy(folder / "other" / "slides" / "phantom_00_aster.tif", slide)
    (folder / "broken.svs").write_bytes(b"II*\0 no slide")
    assert demo.run(_request(folder / "out", slide, folder / "broken.svs")) == 1  # one slide is broken
    return folder / "out", slide


def _request(out: Path, *slides: Path, overrides: tuple[str, ...] = (), **more: object) -> Request:
    options = {"slides": list(slides) or None}
    return Request("demo", (), out, overrides=(*TINY, *overrides), options=options, **more)


def test_page_shows_every_part_and_every_file_it_names_is_there(done) -> None:
    out, _ = done
    page = (out / "index.html").read_text()
    links = {html.unescape(link) for link in re.findall(r'(?:src|href)="([^"]+)"', page)}
    assert links
    assert all((out / link).is_file() for link in links), links
    for wanted in ("preview_s000", ".gif", "qc/", "training.png", "scatter.png", "map_phantom_03", "map_yours_mine"):
        assert any(wanted in link for link in links), wanted
    for wanted in ("Tissue class", "random init", "colour statistics", "lamella pretrain"):
        assert wanted in page
    assert not re.search(r"https?:", page)


def test_user_slides_are_embedded_and_the_broken_one_is_listed(done) -> None:
    out, _ = done
    assert (out / "yours" / "features" / "mine.h5").is_file()
    assert "broken" in (out / "yours" / "index" / "failed.csv").read_text()
    assert "mine" not in (out / "results" / "results.json").read_text()  # no labels: not in the table


def test_a_rerun_changes_nothing(done) -> None:
    out, slide = done
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert demo.run(_request(out, slide, slide.parent / "broken.svs")) == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_printed_commands_repeat_the_steps(done) -> None:
    out, _ = done
    page = html.unescape((out / "index.html").read_text())
    for verb in VERBS:
        settings = out / "settings" / f"{verb}.yaml"
        assert re.search(rf"lamella {verb} .*-r {re.escape(str(settings))} -o ", page)
        # What the file says is what the verb was run with.
        schema = demo.Config.model_fields[verb].annotation
        used = demo.Config.model_validate(resolve(demo.Config, "demo", None, TINY).tree())
        assert resolve(schema, None, settings).config == getattr(used, verb)


def test_other_slides_in_the_same_folder_are_refused(done) -> None:
    out, _ = done
    with pytest.raises(OutputConflictError, match="slides"):
        demo.run(_request(out))


@pytest.mark.slow
def test_a_stop_during_training_ends_the_demo_and_a_rerun_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    ready = tmp_path / "out"
    monkeypatch.setitem(demo._VERBS, "pretrain", lambda request: 0)  # what pretrain returns after a SIGTERM
    assert demo.run(_request(ready)) == 0
    assert "the same command goes on" in capsys.readouterr().out
    assert not (ready / "index.html").exists()
    assert not (ready / "features").exists()
    monkeypatch.undo()
    assert demo.run(_request(ready)) == 0
    assert (ready / "index.html").exists()


def test_faults_are_found_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(LamellaError, match=r"no such slide.*--slides"):
        demo.run(_request(tmp_path / "out", tmp_path / "gone.svs"))
    with pytest.raises(LamellaError, match="takes no paths"):
        demo.run(Request("demo", (tmp_path,), tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"pretrain\.optim\.lr"):
        demo.run(_request(tmp_path / "out", overrides=("pretrain.optim.lrr=1",)))
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path, capsys) -> None:
    assert demo.run(_request(tmp_path / "out", dry_run=True)) == 0
    printed = capsys.readouterr().out
    assert all(f"lamella {verb} " in printed for verb in VERBS)
    assert not (tmp_path / "out").exists()
