"""Which files there are, and what kind they seem to be before any is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lamella.imaging.datasets.collection import Kind

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".jp2", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv")
NIFTI = (".nii", ".nii.gz")
# Files that people lay beside images; they are told of, not read.
SIDECARS = (
    ".txt",
    ".md",
    ".csv",
    ".tsv",
    ".json",
    ".xml",
    ".pdf",
    ".xlsx",
    ".xls",
    ".doc",
    ".docx",
    ".html",
    ".py",
    ".log",
)
_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", "dicomdir", "license", "readme")
# How pictures begin, whatever they are called: PNG, JPEG, TIFF and BigTIFF, BMP, JPEG 2000, WebP.
_PICTURE_HEADS = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"RIFF"),
)
# gzip, or the size of a NIfTI header in either byte order: some write .nii.gz without packing it.
_NIFTI_HEADS = (b"\x1f\x8b", b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0", b"\0\0\2\x1c")
# More heads than this are left to `check=true`: on a network disk each costs up to 10 ms.
_HEADS_READ = 5000


def suffix_of(path: Path) -> str:
    """The suffix in small letters; `.nii.gz` is one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Path) -> str:
    """The name without its suffix, `.nii.gz` taken as one."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def kind_by_name(path: Path) -> Kind | None:
    """What a file of this name holds; None where only its content tells (DICOM, GIF, no suffix)."""
    suffix = suffix_of(path)
    if suffix in PICTURES:
        return "image"
    if suffix in NIFTI:
        return "volume"
    return "video" if suffix in VIDEOS else None


def is_dicom(path: Path) -> bool:
    """Whether the file says so: `.dcm`, or the letters DICM behind its preamble."""
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_beside(path: Path) -> bool:
    """Whether a file merely lies beside images: hidden, of the system, or a text."""
    name = path.name.lower()
    return name.startswith(".") or name in _OF_THE_SYSTEM or suffix_of(path) in SIDECARS


def by_name(folders: Sequence[Path], suffixes: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Stem -> file of all files with one of these suffixes directly in the folders, and the stems that stand twice.

    One listing of each folder answers for every image: to ask the disk for each of 112,000 files takes minutes.
    """
    found: dict[str, Path] = {}
    problems = []
    for folder in folders:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            path = folder / name
            if suffix_of(path) not in suffixes:
                continue
            stem = stem_of(path)
            if stem in found:
                problems.append(f"{name} is in {found[stem].parent.name} and in {folder.name}")
            found.setdefault(stem, path)
    return found, problems


def head_problems(paths: Sequence[Path]) -> Iterator[str]:
    """What the first bytes already tell: an empty file, or one that is no picture or no NIfTI.

    Above 5,000 files only their sizes are asked.
    """
    read = len(paths) <= _HEADS_READ
    for path in paths:
        if path.is_dir():
            continue
        suffix = suffix_of(path)
        heads = _PICTURE_HEADS if suffix in PICTURES else _NIFTI_HEADS if suffix in NIFTI else ()
        if not path.stat().st_size:
            yield f"{path.name} is empty (0 bytes)"
        elif heads and read:
            with path.open("rb") as file:
                head = file.read(16)
            if not head.startswith(heads):
                yield f"{path.name} is no {suffix.lstrip('.')} file: it begins with {head[:4].hex(' ')}"
