"""`lamella deidentify IN... -o OUT`: DICOM files without what tells who they are; what links them stays beside OUT."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydantic import field_validator
from pydicom.datadict import tag_for_keyword

from lamella.config import Request, Settings
from lamella.errors import ImageError, LamellaError, OutputConflictError, StorageError, storage_faults
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.tables import read_csv, write_csv
from lamella.imaging.confidentiality import EDITION, Action
from lamella.imaging.deidentify import Dates, Report, Rules, deidentify, identity_of
from lamella.imaging.dicom_header import file_faults, is_dicom, read_dataset, refuse_cut, text
from lamella.imaging.pseudonyms import Pseudonyms, load_key
from lamella.verbs.progress import progress

REPORT, SUMMARY, FAILED, SOURCES, KEY = "report.csv", "report.json", "failed.csv", "sources.csv", "key.txt"
_COUNTS = [action.value for action in Action if action is not Action.KEEP] + ["dates_shifted"]
_COLUMNS = ["file", "modality", "kept", *_COUNTS, "removed_unlisted", "warnings"]
_SHOWN = 5  # failures and warnings printed; the files have them all


class Config(Settings):
    """Settings of `lamella deidentify`."""

    dates: Dates = "remove"
    """remove: no dates are left. shift: all dates of a patient move back by the same secret number of days."""
    keep: tuple[str, ...] = ()
    """Keywords of elements to keep although the profile removes them, such as PatientSex; you answer for them."""

    @field_validator("keep")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [keyword for keyword in value if tag_for_keyword(keyword) is None]
        if unknown:
            raise ValueError(f"keywords of the DICOM dictionary; {', '.join(unknown)} is none")
        return value


@dataclass
class _Done:
    """What a run did."""

    rows: list[dict[str, Any]]
    sources: list[dict[str, str]]
    failed: list[dict[str, str]]
    others: int = 0
    """Files that are no DICOM, left where they are."""


def run(request: Request) -> int:
    """De-identify every DICOM file; one that fails is listed and the others go on."""
    config = request.resolve(Config).config
    if not request.paths:
        raise LamellaError(
            "lamella deidentify", "no files are given", "For example: lamella deidentify scans/ -o shared_scans."
        )
    if request.dry_run:
        found = list(_files(request.paths))
        print(f"would de-identify {sum(map(is_dicom, found))} DICOM files of {len(found)} files; dates: {config.dates}")
        return 0
    out = request.folder()
    private = out.with_name(out.name + ".private")
    _check_places(request.paths, out)
    with storage_faults(private):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
    given = request.options.get("key")
    key = load_key(given or private / KEY, make=given is None)
    rules = Rules(Pseudonyms(key), config.dates, frozenset(config.keep))
    settings = _settings(config, rules)
    _check_settings(out, settings)
    done = _all(list(_files(request.paths)), out, rules)
    _write(out, private, done, settings)
    _tell(out, private, done)
    return 1 if done.failed else 0


def _check_places(paths: Sequence[Path], out: Path) -> None:
    for path in paths:
        if not path.exists():
            raise LamellaError(path, "there is no such file or folder", "Correct the path.")
        here, there = path.resolve(), out.resolve()
        if there == here or (path.is_dir() and here in there.parents):
            raise LamellaError(out, "the output folder lies among the input", "Choose a folder outside of it.")
    if out.exists() and not out.is_dir():
        raise OutputConflictError(out, "it is a file", "Choose another name for the folder.")
    foreign = [path for path in out.iterdir() if path.name not in (REPORT, SUMMARY)] if out.exists() else []
    if foreign and not (out / SUMMARY).is_file():
        raise OutputConflictError(out, "it holds other files", "Choose a new folder.")


def _settings(config: Config, rules: Rules) -> dict[str, Any]:
    """What files of one folder must have in common, as the summary keeps it."""
    return {
        "profile": f"DICOM PS3.15 {EDITION}, basic application level confidentiality profile",
        "dates": config.dates,
        "kept_on_request": sorted(config.keep),
        "key_fingerprint": rules.pseudonyms.name("fingerprint", ""),
    }


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
    if not (out / SUMMARY).is_file():
        return
    before = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        cause = f"it holds the results of another run, with other {', '.join(changed)}"
        raise OutputConflictError(out, cause, "Choose a new folder.")


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else (path,)


def _all(files: Sequence[Path], out: Path, rules: Rules) -> _Done:
    done = _Done([], [], [])
    written: dict[Path, Path] = {}
    for path in progress(files, "deidentify"):
        try:
            if not is_dicom(path):
                done.others += 1
                continue
            target, row = _one(path, out, rules, written)
            written[target] = path
            done.rows.append(row)
            done.sources.append({"source": str(path), "file": str(row["file"])})
        except StorageError:  # no file is at fault: the next would fail too
            raise
        except (LamellaError, OSError) as error:
            done.failed.append({"path": str(path), "error": str(error)})
    return done


def _one(path: Path, out: Path, rules: Rules, written: dict[Path, Path]) -> tuple[Path, dict[str, Any]]:
    header = read_dataset(path)
    with file_faults(path):
        refuse_cut(path, header)
        target = _target(header, out, rules)
        if target in written:
            raise ImageError(path, f"its SOPInstanceUID is that of {written[target]} too", "Keep one of them.")
        report = deidentify(path, header, rules)
        existed = target.exists()
        with whole_file(target) as part:
            pydicom.dcmwrite(part, header, enforce_file_format=True)
            if existed and part.read_bytes() != target.read_bytes():
                raise OutputConflictError(target, "it exists already with other content", "Choose a new folder.")
        return target, _row(target.relative_to(out), header, report)


def _target(header: pydicom.Dataset, out: Path, rules: Rules) -> Path:
    """PATIENT/STUDY/SERIES/INSTANCE.dcm, all pseudonyms: a series is a folder that can be read as a volume."""
    names = rules.pseudonyms
    return (
        out
        / names.patient(identity_of(header))
        / names.name("study", text(header, "StudyInstanceUID"))
        / names.name("series", text(header, "SeriesInstanceUID"))
        / f"{names.name('instance', text(header, 'SOPInstanceUID'))}.dcm"
    )


def _row(file: Path, header: pydicom.Dataset, report: Report) -> dict[str, Any]:
    return {
        "file": file.as_posix(),
        "modality": text(header, "Modality"),
        "kept": report.counts[Action.KEEP.value],
        **{name: report.counts[name] for name in _COUNTS},
        "removed_unlisted": " ".join(f"{name}:{count}" for name, count in sorted(report.unlisted.items())),
        "warnings": "; ".join(report.warnings),
    }


def _write(out: Path, private: Path, done: _Done, settings: dict[str, Any]) -> None:
    """The report and the list of sources, joined with those of earlier runs into the same folder."""
    rows = _joined(out / REPORT, done.rows, out)
    write_csv(out / REPORT, rows, _COLUMNS)
    totals = {name: sum(int(row[name]) for row in rows) for name in ("kept", *_COUNTS)}
    warned = sum(bool(row["warnings"]) for row in rows)
    write_json(out / SUMMARY, settings | {"files": len(rows), "with_warnings": warned, "elements": totals})
    write_csv(private / SOURCES, _joined(private / SOURCES, done.sources, out), ["source", "file"])
    if done.failed:
        write_csv(private / FAILED, done.failed, ["path", "error"])
    else:
        (private / FAILED).unlink(missing_ok=True)


def _joined(table: Path, rows: Sequence[Mapping[str, Any]], out: Path) -> list[Mapping[str, Any]]:
    """Rows of now and, of before, those of other files that still exist; by file."""
    before = read_csv(table) if table.is_file() else []
    found = {row["file"]: row for row in [*before, *rows] if (out / str(row["file"])).is_file()}
    return [found[file] for file in sorted(found)]


def _tell(out: Path, private: Path, done: _Done) -> None:
    for row in done.failed[:_SHOWN]:
        print(f"{row['path']} failed, see {private / FAILED}")  # the reason may quote a value
    warned = Counter(row["warnings"] for row in done.rows if row["warnings"])
    for warning, count in warned.most_common(_SHOWN):
        print(f"look at {count} files: {warning}")
    print(f"wrote {len(done.rows)} files to {out}; what was done to each: {out / REPORT}")
    if done.others:
        print(f"passed over {done.others} files that are no DICOM")
    if done.failed:
        print(f"failed: {len(done.failed)}, see {private / FAILED}")
    print(f"keep {private} to yourself: its key and list lead back to the patients")
