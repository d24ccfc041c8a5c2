"""Everything bad that a user may give, through the command line: a plain message, the right exit code, nothing lost.

One bad slide beside a good one ends with 1 and a line in failed.csv; what spoils the whole command ends with 2.
"""

from __future__ import annotations

import csv
import errno
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image
from tests.tiny import TINY_NETWORK

from lamella import cli

TINY = (*TINY_NETWORK, "log.monitor_images=4")
SAMPLING = ("sampling.context_fov_um=128", "sampling.target_fov_um=32", "sampling.target_margin_um=0")


@pytest.fixture
def lamella(capsys):
    """Run a command; returns (exit code, everything it printed)."""

    def run(*arguments: object) -> tuple[int, str]:
        code = cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out + shown.err

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def slides(tmp_path, make_slide) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    make_slide("good.tif", folder=folder)
    return folder


@pytest.fixture
def anchors(tmp_path, slides, lamella) -> Path:
    assert lamella("index", slides, "-o", tmp_path / "index")[0] == 0
    assert lamella("anchors", tmp_path / "index", "-o", tmp_path / "anchors", *SAMPLING)[0] == 0
    return tmp_path / "anchors"


@pytest.fixture
def trained(tmp_path, anchors, lamella) -> Path:
    code, shown = lamella("pretrain", anchors, "-o", tmp_path / "run", *TINY, "budget.images=8")
    assert code == 0, shown
    return tmp_path / "run"


# ---- one bad slide beside a good one: exit 1, failed.csv, the good one is kept ---------------------------------------


def truncated(folder: Path, make_slide) -> None:
    path = make_slide("bad.svs", folder=folder)
    path.write_bytes(path.read_bytes()[:1000])


def empty_file(folder: Path, make_slide) -> None:
    (folder / "bad.svs").touch()


def png_named_svs(folder: Path, make_slide) -> None:
    Image.new("RGB", (64, 64), "purple").save(folder / "bad.svs", format="PNG")


def without_mpp(folder: Path, make_slide) -> None:
    make_slide("bad.tif", folder=folder, mpp=None)


def with_absurd_mpp(folder: Path, make_slide) -> None:
    make_slide("bad.tif", folder=folder, mpp=896.0)


@pytest.mark.parametrize(
    ("spoil", "cause", "remedy"),
    [
        (truncated, "bad.svs", "again"),
        (empty_file, "empty", "again"),
        (png_named_svs, "it is a PNG image", "remove it from the list"),
        (without_mpp, "how many micrometres", "--mpp"),
        (with_absurd_mpp, "896", "--mpp"),
    ],
)
def test_a_bad_slide_fails_alone(lamella, tmp_path, slides, make_slide, spoil, cause, remedy):
    spoil(slides, make_slide)
    code, shown = lamella("index", slides, "-o", tmp_path / "index")
    assert code == 1, shown
    (failed,) = rows_of(tmp_path / "index" / "failed.csv")
    assert failed["slide_id"] == "bad"
    assert cause in failed["error"], failed
    assert remedy in failed["error"], failed
    assert "1 ok" in shown
    assert (tmp_path / "index" / "masks" / "good.png").exists()


def manifest(folder: Path, *rows: str, header: str = "slide_id,wsi_path,mask_path") -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_missing_file_fails_alone(lamella, tmp_path, slides):
    given = manifest(tmp_path, "good,slides/good.tif,", "gone,slides/gone.tif,")
    code, _ = lamella("index", given, "-o", tmp_path / "index")
    assert code == 1
    (failed,) = rows_of(tmp_path / "index" / "failed.csv")
    assert failed["slide_id"] == "gone"
    assert "does not exist" in failed["error"]


def test_a_mask_of_another_aspect_fails_alone(lamella, tmp_path, slides, make_slide):
    make_slide("other.tif", folder=slides)
    Image.new("L", (100, 10), 255).save(tmp_path / "mask.png")
    given = manifest(tmp_path, "good,slides/good.tif,", "other,slides/other.tif,mask.png")
    code, _ = lamella("index", given, "-o", tmp_path / "index")
    assert code == 1
    (failed,) = rows_of(tmp_path / "index" / "failed.csv")
    assert "another aspect" in failed["error"]
    assert "mask_path" in failed["error"]


def test_a_slide_without_tissue_fails_alone(lamella, tmp_path, slides):
    Image.new("RGB", (1024, 1024), (243, 243, 243)).save(slides / "blank.png")
    given = manifest(
        tmp_path, "good,slides/good.tif,,", "blank,slides/blank.png,,0.5", header="slide_id,wsi_path,mask_path,mpp"
    )
    code, _ = lamella("index", given, "-o", tmp_path / "index")
    assert code == 1
    (failed,) = rows_of(tmp_path / "index" / "failed.csv")
    assert failed["slide_id"] == "blank"
    assert "tissue" in failed["error"]


def test_if_no_slide_is_usable_the_command_fails_as_a_whole(lamella, tmp_path):
    (tmp_path / "empty.svs").touch()
    code, shown = lamella("index", tmp_path / "empty.svs", "-o", tmp_path / "index")
    assert code == 2
    assert "no usable slide remains" in shown
    assert (tmp_path / "index" / "failed.csv").exists()


# ---- what spoils the whole command: exit 2 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rows", "cause"),
    [
        ("slide_id,path", ["a,a.tif"], "wsi_path"),
        ("slide_id,wsi_path,mask_path", ["a,a.tif,", "a,b.tif,"], "a"),
    ],
    ids=["missing column", "duplicate slide_id"],
)
def test_a_manifest_that_cannot_be_meant_is_refused_whole(lamella, tmp_path, header, rows, cause):
    code, shown = lamella("index", manifest(tmp_path, *rows, header=header), "-o", tmp_path / "index")
    assert code == 2
    assert cause in shown
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sampling.target_fov_um=500", "does not fit into a context"),
        ("sampling.targets_per_context=400", "cannot be placed"),
        ("sampling.contxt_mpp=1", "did you mean sampling.context_mpp?"),
        ("sampling.context_mpp=fine", "should be a valid number"),
    ],
)
def test_wrong_settings_are_explained_before_anything_is_written(lamella, tmp_path, slides, setting, message):
    assert lamella("index", slides, "-o", tmp_path / "index")[0] == 0
    code, shown = lamella("anchors", tmp_path / "index", "-o", tmp_path / "anchors", setting)
    assert code == 2
    assert message in shown
    assert not (tmp_path / "anchors").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_of_other_settings_is_refused_and_untouched(lamella, anchors, tmp_path):
    before = contents(anchors)
    code, shown = lamella(
        "anchors", tmp_path / "index", "-o", anchors, *SAMPLING, "sampling.anchor_stride_fraction=0.25"
    )
    assert code == 2
    assert "sampling.anchor_stride_fraction: 0.5 there, 0.25 now" in shown
    assert contents(anchors) == before


def test_a_full_disk_loses_nothing_and_the_command_goes_on_afterwards(lamella, anchors, tmp_path, monkeypatch):
    rename = Path.replace

    def full(self, target):
        if self.suffix == ".pt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        code, shown = lamella("pretrain", anchors, "-o", tmp_path / "run", *TINY, "budget.images=8")
    assert code == 2
    assert "the disk is full" in shown
    assert list(tmp_path.glob("run/**/*.part*")) == []
    assert lamella("pretrain", anchors, "-o", tmp_path / "run", *TINY, "budget.images=8")[0] == 0


def test_a_truncated_checkpoint_is_named_and_never_a_fresh_start(lamella, anchors, trained):
    newest = max((trained / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    code, shown = lamella("pretrain", anchors, "-o", trained, *TINY, "budget.images=8")
    assert code == 2
    assert newest.name in shown
    assert "Delete" in shown or "delete" in shown


def test_a_checkpoint_of_another_architecture_is_named(lamella, anchors, trained, tmp_path):
    wider = [setting.replace("dim=16", "dim=32") for setting in TINY]
    assert lamella("pretrain", anchors, "-o", tmp_path / "wide", *wider, "budget.images=8")[0] == 0
    shutil.rmtree(trained / "checkpoints")
    shutil.copytree(tmp_path / "wide" / "checkpoints", trained / "checkpoints")
    code, shown = lamella("pretrain", anchors, "-o", trained, *TINY, "budget.images=8")
    assert code == 2
    assert "it is of another architecture" in shown
    shutil.copy(tmp_path / "wide" / "model" / "model.safetensors", trained / "model" / "model.safetensors")
    code, shown = lamella("embed", trained / "model", tmp_path / "index", "-o", tmp_path / "features")
    assert code == 2
    assert "another architecture" in shown


def test_ctrl_c_saves_and_the_same_command_goes_on(lamella, anchors, tmp_path, monkeypatch):
    from lamella.methods.cross_jepa import CrossJepa

    after_step = CrossJepa.after_step

    def interrupted(self, progress):
        after_step(self, progress)
        if int(self.steps) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(CrossJepa, "after_step", interrupted)
        code, shown = lamella("pretrain", anchors, "-o", tmp_path / "run", *TINY, "budget.images=16")
    assert code == 2
    assert "interrupted by Ctrl-C" in shown
    code, shown = lamella("pretrain", anchors, "-o", tmp_path / "run", *TINY, "budget.images=16")
    assert code == 0
    assert "resumes     after step" in shown
    rows = rows_of(tmp_path / "run" / "steps.csv")
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
