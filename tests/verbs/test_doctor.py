"""The doctor's answers: what is missing costs exit code 1 and comes with a remedy."""

import shutil
from collections import namedtuple

import pytest

from lamella.config import Request
from lamella.errors import SlideError
from lamella.slides.readers import registry as readers
from lamella.verbs import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk_of(monkeypatch):
    def pretend(free_gb):
        monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(1e12, 0, free_gb * 1e9))

    pretend(100)
    return pretend


def lines_by_name(text):
    return {
        line[8:].split("  ")[0].strip(): line
        for line in text.splitlines()
        if line.startswith(("ok", "note", "missing"))
    }


def test_a_sound_machine_gives_zero_and_the_next_command(capsys, disk_of):
    assert doctor.run(Request("doctor")) == 0
    out = capsys.readouterr().out
    lines = lines_by_name(out)
    for name in (
        "python",
        "packages",
        "device",
        "precision",
        "cpu",
        "disk",
        *(f"reader {name}" for name in readers.READERS),
    ):
        assert name in lines, name
    assert not any(line.startswith("missing") for line in lines.values())
    assert "lamella demo" in out.splitlines()[-1]


def test_a_full_disk_gives_one_and_says_what_to_do(capsys, disk_of, tmp_path):
    disk_of(0.2)
    assert doctor.run(Request("doctor", out=tmp_path / "not" / "yet")) == 1
    out = capsys.readouterr().out
    assert lines_by_name(out)["disk"].startswith("missing")
    assert str(tmp_path) in lines_by_name(out)["disk"]
    assert "-> Make room" in out


def test_a_tight_disk_is_only_noted(capsys, disk_of):
    disk_of(5)
    assert doctor.run(Request("doctor")) == 0
    assert lines_by_name(capsys.readouterr().out)["disk"].startswith("note")


@pytest.mark.parametrize("fault", ["refuses", "changed"])
def test_a_reader_that_reads_wrongly_is_missing(capsys, disk_of, monkeypatch, fault):
    real = readers.READERS["tiff"]

    def broken(path):
        if fault == "refuses":
            raise SlideError(path, "no decoder", "Install one.")
        reader = real(path)
        monkeypatch.setattr(reader, "read_level", lambda *place: 255 - real(path).read_level(*place))
        return reader

    monkeypatch.setitem(readers.READERS, "tiff", broken)
    assert doctor.run(Request("doctor")) == 1
    out = capsys.readouterr().out
    assert lines_by_name(out)["reader tiff"].startswith("missing")
    assert "--force-reinstall tifffile simplejpeg imagecodecs" in out


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "h5py" else real(name))
    packages = {check.name: check for check in doctor._packages()}["packages"]
    assert (packages.status, packages.fix) == ("missing", "pip install h5py")


def test_an_absent_extra_is_no_fault(monkeypatch):
    monkeypatch.setattr(
        doctor, "_requirements", lambda: iter([("wandb", "wandb"), ("pytest", "test"), ("torch", None)])
    )
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    (extra,) = doctor._extras()
    assert (extra.status, extra.name) == ("note", "extra wandb")
    assert "lamella[wandb]" in extra.fix


def test_too_many_threads_are_noted(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert doctor._threads().status == "note"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor._threads().status == "ok"
