"""Every bad image, volume, film and table that a user may give, through the command line.

`inspect`, `datasets`, `deidentify` and `evaluate` go file by file: 1, and the good ones are done. `pretrain` ends with
2. Each says the file, the cause and a remedy in a line or two; nothing is left half-written, nothing becomes zeros.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.imaging import bad_files as bad
from tests.imaging.datasets.miniatures import picture
from tests.imaging.dicoms import pydicom_files
from tests.tiny import TINY_RUN

from lamella import cli
from lamella.formats.tables import read_csv

ENCODER = ("method.encoder.dim=24", "method.encoder.depth=1", "method.encoder.heads=2")
PREDICTOR = ("method.predictor.width=24", "method.predictor.depth=1", "method.predictor.heads=2")
SMALL = (*TINY_RUN, *ENCODER, *PREDICTOR, "budget.images=8")
WAVES = ("method.encoder.wave_min=4", "method.encoder.wave_max=64")
IMAGES = (
    *("method.name=ijepa", *SMALL, *WAVES, "method.encoder.patch_px=4", "data.size_px=16"),
    "data.intensity.window=soft_tissue",
)
VOLUMES = ("method.name=volume", *SMALL, *WAVES, "data.crop=[4,16,16]", "method.encoder.patch=[2,4,4]")
VIDEO = (
    *("method.name=video", *SMALL, "data.frames=4", "data.frame_stride=1", "data.size_px=16"),
    "method.encoder.patch=[2,4,4]",
)
QUICK = (
    *("imagenet=none", "random_inits=1", "probes.c_grid=[1.0]", "probes.control_draws=1", "probes.knn_k=3"),
    *("nshot.draws=2", "nshot.shots=[2]", "cache_mb=8"),
)


@dataclass(frozen=True)
class Case:
    """A bad file, sound ones of its kind beside it, and what must be said."""

    spoil: bad.Maker
    sound: Callable[[Path], None]
    settings: Sequence[str]
    cause: str
    remedy: str
    opens: bool = False
    """Whether it can be read and inspected, though not learned from."""


AGAIN = "Fetch the file again from its source."
CASES = [
    Case(bad.truncated_dicom, bad.sound_images, IMAGES, "truncated: 752 of 1152 bytes", AGAIN),
    Case(bad.without_pixels, bad.sound_images, IMAGES, "PixelData is missing", "Give a DICOM file with an image."),
    Case(bad.unsupported_syntax, bad.sound_images, IMAGES, "transfer syntax, MPEG2", "gdcmconv --raw IN OUT"),
    Case(bad.constant_image, bad.sound_images, IMAGES, "all values are 700", "Leave it out.", opens=True),
    Case(bad.two_orientations, bad.sound_series, VOLUMES, "2 orientations (5 like s0.dcm; 1 like s2", "own folder"),
    Case(bad.missing_slice, bad.sound_series, VOLUMES, "missing between s2.dcm and s4.dcm", "Fetch the whole series."),
    Case(bad.mixed_sizes, bad.sound_series, VOLUMES, "2 sizes (5 of 24 x 24 such as s0.dcm", "own folder"),
    Case(bad.wrong_frame_count, bad.sound_volumes, VOLUMES, "3 frames where NumberOfFrames is 5", AGAIN),
    Case(bad.with_nan, bad.sound_volumes, VOLUMES, "1 of its values are NaN or infinite", "Correct them"),
    Case(bad.with_infinity, bad.sound_volumes, VOLUMES, "1 of its values are NaN or infinite", "Correct them"),
    Case(bad.zero_spacing, bad.sound_volumes, VOLUMES, "voxel spacing is 1, 0, 2 mm", "Write the true spacing"),
    Case(bad.flat_nifti, bad.sound_volumes, VOLUMES, "2-D image stored as (16, 16, 1)", "Give the whole volume."),
    Case(bad.constant_volume, bad.sound_volumes, VOLUMES, "all values are 7:", "Leave it out.", opens=True),
    Case(bad.corrupt_film, bad.sound_films, VIDEO, "it is a damaged video (Invalid data found", AGAIN),
    Case(bad.cut_film, bad.sound_films, VIDEO, "it is a damaged video (Invalid data found", AGAIN),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.spoil.__name__)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def lamella(capfd):
    """Run a command."""

    def run(*arguments: object) -> Said:
        code = cli.main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return Said(code, shown.out, shown.err)

    return run


def line_of(text: str, name: str) -> str:
    """The one line that names the file."""
    (line,) = [line for line in text.splitlines() if f"/{name}" in line]
    return line


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---- files ----------------------------------------------------------------------------------------------------------


@each_case
def test_inspect_says_it_and_goes_on(lamella, tmp_path, case):
    path = case.spoil(tmp_path / "data")
    good = picture(tmp_path / "good.png")
    said = lamella("inspect", path, good)
    assert "rows" in said.out.partition(str(good))[2]
    if case.opens:
        assert said.code == 0
        low, high = said.out.partition("value_range")[2].splitlines()[0].split(",")
        assert float(low) == float(high)
        return
    assert said.code == 1
    thing, cause = said.out.splitlines()[:2]
    assert thing == str(path)
    assert cause.startswith("  cannot be read: ")
    assert case.cause in cause
    assert case.remedy in cause


@each_case
def test_a_check_of_the_data_set_lists_it(lamella, tmp_path, case):
    path = case.spoil(tmp_path / "data")
    case.sound(tmp_path / "data")
    said = lamella("datasets", tmp_path / "data", "check=true")
    assert said.code == 1
    line = line_of(said.out.partition("note:")[2], path.name)
    assert line.startswith("problem: ")
    assert case.cause in line
    assert case.remedy in line
    assert ": 1 problem, none a repetition of another" in said.out


@each_case
def test_pretraining_ends_and_nothing_takes_its_place(lamella, tmp_path, case):
    path = case.spoil(tmp_path / "data")
    case.sound(tmp_path / "data")
    said = lamella("pretrain", tmp_path / "data", "-o", tmp_path / "run", *case.settings)
    assert said.code == 2
    line = line_of(said.err, path.name)
    assert line.startswith("lamella pretrain: ")
    assert case.cause in line
    assert case.remedy in line
    assert f"lamella datasets {tmp_path / 'data'} check=true" in line
    # The claim of the folder at most: no step, no checkpoint, no model, no part of a file.
    assert files_in(tmp_path / "run") <= {"config.yaml", "origins.json", "run.json", "steps.csv"}
    if (tmp_path / "run").exists():
        assert len((tmp_path / "run" / "steps.csv").read_text().splitlines()) == 1  # its header


@pytest.mark.parametrize("case", CASES[:4], ids=lambda case: case.spoil.__name__)
def test_features_are_those_of_the_others(lamella, tmp_path, case):
    path = case.spoil(tmp_path / "data")
    case.sound(tmp_path / "data")
    said = lamella(
        "embed", "colour-stats", tmp_path / "data", "-o", tmp_path / "out", "view.intensity.window=soft_tissue"
    )
    assert said.code == 1, said.err
    (failed,) = read_csv(tmp_path / "out" / "failed.csv")
    assert path.name in " ".join(failed.values())
    assert case.cause in failed["error"]


# ---- de-identification: what it hands on is whole -------------------------------------------------------------------


def cut_compressed(folder: Path) -> Path:
    whole = pydicom_files()["examples_ybr_color.dcm"].read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bad.dcm").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.dcm"


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (bad.truncated_dicom, "truncated: 752 of 1152 bytes"),
        (cut_compressed, "truncated: its end is missing"),
        (bad.without_pixels, "an image without pixels"),
    ],
)
def test_a_cut_file_is_not_mended_in_silence(lamella, tmp_path, spoil, cause):
    path = spoil(tmp_path / "scans")
    bad.ct_series(tmp_path / "scans" / "good")
    said = lamella("deidentify", tmp_path / "scans", "-o", tmp_path / "out")
    assert said.code == 1
    assert f"{path} failed" in said.out
    (failed,) = read_csv(tmp_path / "out.private" / "failed.csv")
    assert failed["path"] == str(path)
    assert cause in failed["error"]
    assert AGAIN in failed["error"]
    written = files_in(tmp_path / "out") - {"report.csv", "report.json"}
    assert len(written) == bad.SLICES
    assert all(name.endswith(".dcm") for name in written)


# ---- labels and splits ----------------------------------------------------------------------------------------------


def table(folder: Path, rows: Sequence[str], header: str = "image,label,patient,split") -> Path:
    """A CSV of images; each row is what follows the image's name."""
    for number in range(len(rows)):
        picture(folder / f"{number}.png", number)
    lines = [header, *(f"{number}.png,{row}" for number, row in enumerate(rows))]
    (folder / "skin.csv").write_text("\n".join(lines) + "\n")
    return folder / "skin.csv"


def rows_of(*, classes: str = "ab", trained: int = 12, count: int = 20) -> list[str]:
    """Two images a patient, classes in turn."""
    return [
        f"{classes[number % len(classes)]},p{number // 2},{'train' if number < trained else 'test'}"
        for number in range(count)
    ]


@pytest.mark.parametrize(
    "command",
    [("datasets", "label=grade"), ("evaluate", "dataset.label=grade"), ("pretrain", "data.dataset.label=grade")],
)
def test_an_absent_label_column_is_named_with_those_there_are(lamella, tmp_path, command):
    verb, setting = command
    data = table(tmp_path / "data", rows_of())
    given = {"datasets": (data,), "evaluate": ("colour-stats", data, *QUICK), "pretrain": (data, *IMAGES)}[verb]
    out = () if verb == "datasets" else ("-o", tmp_path / "out")
    said = lamella(verb, *given, *out, setting)
    assert said.code == 2
    line = line_of(said.err, "skin.csv")
    assert "the column 'grade' (label) is absent" in line
    assert "It has: image, label, patient, split." in line
    assert not (tmp_path / "out").exists()


UNASKED = [
    ("one class only", rows_of(classes="a"), (), "all labelled images are of one class (a); it needs two"),
    ("no labels", rows_of(classes=" "), (), "no item has a label"),
    (
        *("n larger than the class", rows_of(), ("tasks=[nshot]", "nshot.shots=[100]")),
        "n = 100: the training part has 6 images of a, 6 images of b",
    ),
]


@pytest.mark.parametrize(
    ("rows", "settings", "reason"), [case[1:] for case in UNASKED], ids=[one[0] for one in UNASKED]
)
def test_a_question_without_an_answer_gets_no_number(lamella, tmp_path, rows, settings, reason):
    data = table(tmp_path / "data", [row.strip() for row in rows])
    said = lamella("evaluate", "colour-stats", data, "-o", tmp_path / "out", *QUICK, *settings)
    assert reason in said.out + said.err
    results = tmp_path / "out" / "results.json"
    assert not results.exists() or not json.loads(results.read_text())["rows"]


@pytest.mark.parametrize(
    ("rows", "settings", "reason"), [case[1:] for case in UNASKED], ids=[one[0] for one in UNASKED]
)
def test_if_nothing_can_be_asked_the_command_fails(lamella, tmp_path, rows, settings, reason):
    data = table(tmp_path / "data", [row.strip() for row in rows])
    assert lamella("evaluate", "colour-stats", data, "-o", tmp_path / "out", *QUICK, *settings).code == 2


def test_an_n_that_fits_is_answered_beside_one_that_does_not(lamella, tmp_path):
    data = table(tmp_path / "data", rows_of())
    said = lamella(
        "evaluate", "colour-stats", data, "-o", tmp_path / "out", *QUICK, "tasks=[nshot]", "nshot.shots=[2,100]"
    )
    assert said.code == 0
    assert "Few labels, n = 100: not asked, the training part has 6 images of a" in said.out
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["probe"] for row in rows} == {"linear, 2 a class"}


@pytest.mark.parametrize("verb", ["datasets", "evaluate", "pretrain"])
def test_a_patient_in_train_and_test_is_named(lamella, tmp_path, verb):
    data = table(tmp_path / "data", rows_of(trained=11))
    given = {"datasets": (data,), "evaluate": ("colour-stats", data, *QUICK), "pretrain": (data, *IMAGES)}[verb]
    said = lamella(verb, *given, *(() if verb == "datasets" else ("-o", tmp_path / "out")))
    assert said.code == 2
    line = line_of(said.err, "skin.csv")
    assert "patient p5 is in test and train" in line
    assert "splits=none" in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def seen(lamella, tmp_path) -> tuple[Path, Path]:
    """A model that was pretrained on everything, test images too; and the data."""
    data = table(tmp_path / "data", rows_of())
    said = lamella("pretrain", data, "-o", tmp_path / "run", *IMAGES, "data.exclude_split=null")
    assert said.code == 0, said.err
    return tmp_path / "run" / "model", data


def test_judged_images_of_the_pretraining_are_refused_by_every_name_they_go_by(lamella, tmp_path, seen):
    model, data = seen
    said = lamella("evaluate", model, data, "-o", tmp_path / "by_id", *QUICK)
    assert said.code == 2
    assert "8 of 8 judged items were in pretraining (patient p6, p7, p8, p9)" in said.err
    assert "data.exclude_split=test" in said.err
    # A new image of a patient that was seen.
    text = data.read_text()
    picture(data.parent / "new.png", 99)
    (data.parent / "skin.csv").write_text("\n".join([*text.splitlines()[:13], "new.png,b,p9,test"]) + "\n")
    said = lamella("evaluate", model, data, "-o", tmp_path / "by_group", *QUICK)
    assert said.code == 2
    assert "1 of 1 judged items were in pretraining (patient p9). by their patient: new" in said.err
    # The same images under other names.
    shutil.copytree(data.parent, tmp_path / "copy")
    copy = (tmp_path / "copy" / "skin.csv").rename(tmp_path / "copy" / "renamed.csv")
    copy.write_text(text.replace(",p", ",q"))
    said = lamella("evaluate", model, copy, "-o", tmp_path / "by_content", *QUICK)
    assert said.code == 2
    assert "by their content, under another name: 12, 13, 14, 15, 16 and 3 more" in said.err
    assert not list(tmp_path.glob("by_*"))


# ---- what is said can be typed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "prefix"),
    [("datasets", ""), ("pretrain", "data.dataset."), ("preview", "data.dataset."), ("explain", "dataset.")],
)
def test_a_remedy_names_the_setting_as_its_verb_has_it(lamella, tmp_path, tiny_volumes, verb, prefix):
    data, model = tiny_volumes
    given = {"datasets": (data,), "explain": (model, data, "items=1")}.get(verb, (data, *VOLUMES))
    out = () if verb == "datasets" else ("-o", tmp_path / "out")
    said = lamella(verb, *given, *out)
    assert said.code == 2
    assert f"Set {prefix}image=first, or {prefix}image=[first,second] for one file per channel" in said.err
    # The refused command has left no claim that would stand in the way of the right one.
    said = lamella(verb, *given, *out, f"{prefix}image=first")
    assert said.code == 0, said.err


@pytest.fixture(scope="module")
def tiny_volumes(tmp_path_factory) -> tuple[Path, Path]:
    """A table of volumes with two columns of files, and a model of one of them."""
    folder = tmp_path_factory.mktemp("two")
    bad.sound_volumes(folder)
    rows = [f"good{number}.nii.gz,good{number % 3 + 1}.nii.gz" for number in (1, 2, 3)]
    (folder / "brains.csv").write_text("\n".join(["first,second", *rows]) + "\n")
    run = folder / "run"
    command = ["pretrain", folder / "brains.csv", "-o", run, *VOLUMES, "data.dataset.image=first"]
    assert cli.main([str(word) for word in command]) == 0
    return folder / "brains.csv", run / "model"


def test_the_next_command_reads_the_data_as_this_one_did(lamella, tmp_path, tiny_volumes):
    data, _ = tiny_volumes
    said = lamella("datasets", data, "image=first")
    assert f"next: lamella datasets {data} image=first check=true" in said.out
    said = lamella("datasets", data, "image=first", "check=true")
    assert f"next: lamella preview {data} -o previews method.name=volume data.dataset.image=first" in said.out
    said = lamella("pretrain", data, "-o", tmp_path / "run", *VOLUMES, "data.dataset.image=first")
    # Nothing to judge by: no labels, no masks.
    assert f"next: lamella explain {tmp_path / 'run' / 'model'} {data} -o pictures dataset.image=first" in said.out
