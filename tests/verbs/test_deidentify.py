"""`lamella deidentify`: folders in, pseudonymous folders out; reruns, failures, refusals."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from tests.imaging.dicoms import ct_slice, image, series

from lamella.cli import main
from lamella.formats.tables import read_csv
from lamella.imaging.reading import read_volume

NAME, NUMBER = "Zephyrine^Quux", "MRN8861942"


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "Zephyrine_Quux" / "ct"
    series(folder)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID, data.StudyDate = NAME, NUMBER, "20190304"
        data.save_as(path)
    return folder.parent


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_series_stays_a_series_and_names_no_one(scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["deidentify", str(scans), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    (folder,) = {path.parent for path in out.rglob("*.dcm")}
    np.testing.assert_array_equal(read_volume(folder).values_CZYX, read_volume(scans / "ct").values_CZYX)
    everything = b"".join(path.read_bytes() for path in files(out)) + said.encode()
    everything += "".join(str(path.relative_to(out)) for path in files(out)).encode()
    for secret in ("Quux", "Zephyrine", NUMBER, "20190304"):
        assert secret.encode() not in everything
    rows = read_csv(out / "report.csv")
    assert len(rows) == 5
    assert rows[0]["modality"] == "CT"
    assert json.loads((out / "report.json").read_text())["files"] == 5


def test_what_leads_back_lies_beside_and_not_within(scans, tmp_path):
    main(["deidentify", str(scans), "-o", str(tmp_path / "out")])
    private = tmp_path / "out.private"
    assert {path.name for path in private.iterdir()} == {"key.txt", "sources.csv"}
    rows = read_csv(private / "sources.csv")
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    assert {row["source"] for row in rows} == {str(path) for path in files(scans)}


def test_a_rerun_changes_nothing(scans, tmp_path):
    out = tmp_path / "out"
    main(["deidentify", str(scans), "-o", str(out)])
    before = {path: path.read_bytes() for path in files(tmp_path)}
    assert main(["deidentify", str(scans), "-o", str(out)]) == 0
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_more_files_join_those_of_an_earlier_run(scans, tmp_path):
    out = tmp_path / "out"
    main(["deidentify", str(scans / "ct" / "s1.dcm"), "-o", str(out)])
    main(["deidentify", str(scans / "ct" / "s2.dcm"), "-o", str(out)])
    assert len(read_csv(out / "report.csv")) == len(read_csv(tmp_path / "out.private" / "sources.csv")) == 2
    assert json.loads((out / "report.json").read_text())["files"] == 2
    assert len({path.parent for path in out.rglob("*.dcm")}) == 1


@pytest.mark.parametrize("change", [["dates=shift"], ["keep=[PatientSex]"], ["--key", "{tmp}/key.txt"]])
def test_other_settings_in_the_same_folder_are_refused(scans, tmp_path, capsys, change):
    out = tmp_path / "out"
    (tmp_path / "key.txt").write_text("ab" * 32)
    main(["deidentify", str(scans), "-o", str(out)])
    before = {path: path.read_bytes() for path in files(out)}
    assert main(["deidentify", str(scans), "-o", str(out), *[one.format(tmp=tmp_path) for one in change]]) == 2
    assert "it holds the results of another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files(out)} == before


def test_a_file_of_other_content_is_never_overwritten(scans, tmp_path):
    out = tmp_path / "out"
    main(["deidentify", str(scans), "-o", str(out)])
    target = sorted(out.rglob("*.dcm"))[0]
    target.write_bytes(b"other")
    assert main(["deidentify", str(scans), "-o", str(out)]) == 1
    assert target.read_bytes() == b"other"
    (row,) = read_csv(tmp_path / "out.private" / "failed.csv")
    assert "exists already with other content" in row["error"]


def test_one_key_gives_one_patient_in_two_runs(scans, tmp_path):
    main(["deidentify", str(scans), "-o", str(tmp_path / "one")])
    key = tmp_path / "one.private" / "key.txt"
    assert main(["deidentify", str(scans), "-o", str(tmp_path / "two"), "--key", str(key)]) == 0
    assert main(["deidentify", str(scans), "-o", str(tmp_path / "three")]) == 0
    names = {
        run: sorted(path.name for path in (tmp_path / run).iterdir() if path.is_dir())
        for run in ("one", "two", "three")
    }
    assert names["one"] == names["two"] != names["three"]


def test_files_that_fail_are_listed_and_the_others_go_on(scans, tmp_path, capsys):
    (scans / "ct" / "notes.txt").write_text("Frau Quux")
    broken = scans / "ct" / "broken.dcm"
    broken.write_bytes((scans / "ct" / "s1.dcm").read_bytes()[:150])
    uid = pydicom.dcmread(scans / "ct" / "s2.dcm").SOPInstanceUID
    image(scans / "copy.dcm", np.zeros((4, 4), np.uint8), SOPInstanceUID=uid, PatientID=NUMBER, PatientName=NAME)
    assert main(["deidentify", str(scans), "-o", str(tmp_path / "out")]) == 1
    rows = read_csv(tmp_path / "out.private" / "failed.csv")
    assert {row["path"].rpartition("/")[2] for row in rows} == {"broken.dcm", "s2.dcm"}
    assert "SOPInstanceUID is that of" in "".join(row["error"] for row in rows)
    said = capsys.readouterr().out
    assert "failed: 2" in said
    assert "passed over 1 files that are no DICOM" in said
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 5


def test_a_warning_is_printed_and_reported(tmp_path, capsys):
    image(tmp_path / "in" / "a.dcm", np.zeros((4, 4), np.uint8), Modality="US")
    assert main(["deidentify", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert "look at 1 files: machines of modality US" in capsys.readouterr().out
    assert "modality US" in (tmp_path / "out" / "report.csv").read_text()


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "no files are given"),
    (["{scans}", "-o", "{scans}/out"], "lies among the input"),
    (["{scans}", "-o", "{scans}"], "lies among the input"),
    (["{scans}/nothing", "-o", "{tmp}/out"], "no such file or folder"),
    (["{scans}", "-o", "{tmp}/full"], "it holds other files"),
    (["{scans}", "-o", "{tmp}/out", "keep=[PatientSexx]"], "PatientSexx is none"),
    (["{scans}", "-o", "{tmp}/out", "--key", "{tmp}/none"], "no such key file"),
    (["{scans}"], "no output folder"),
])  # fmt: skip
def test_refusals(scans, tmp_path, capsys, arguments, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    filled = [one.format(scans=scans, tmp=tmp_path) for one in arguments]
    assert main(["deidentify", *filled]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_writes_nothing(scans, tmp_path, capsys):
    assert main(["deidentify", str(scans), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "would de-identify 5 DICOM files of 5 files" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.private").exists()


def test_several_patients_have_folders_of_their_own(tmp_path):
    for number in range(3):
        ct_slice(tmp_path / "in" / f"s{number}.dcm", np.ones((4, 4), np.int16), (0, 0, 0), PatientID=f"PAT{number}",
                 StudyInstanceUID=f"1.2.{number}")  # fmt: skip
    assert main(["deidentify", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 3
