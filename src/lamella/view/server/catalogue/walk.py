"""Which files lie below the given paths: bounded, and never out of them by a symbolic link."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEPTH = 8  # below a given folder: archives nest patient / study / series, and runs add three more
MAX_ENTRIES = 200_000  # files and folders in all: a second or two of listing; more is a disk, not a study
# What programs keep for themselves: weights and logs, chunks of rasters, packages. Nothing in them is to be looked at.
_INSIDES = frozenset({"model", "checkpoints", "tensorboard", "node_modules", "__pycache__", "site-packages"})


@dataclass(frozen=True)
class Place:
    """One folder and what lies directly in it, sorted by name.

    Attributes:
        folder: As below the path that the user gave.
        title: For people: its path from the given folder, or that folder's own name.
        files: In it.
        folders: In it; those whose names end in `.zarr` too, which are not walked into.
        whole: False where the user named only some files of it.
        made: Whether a verb wrote this folder or one around it: its pictures are results, not slides.
        leads_out: Whether a symbolic link in it leads out of the given paths. What is opened as a folder is left out
            then: whoever opens it would follow the link.
    """

    folder: Path
    title: str
    files: Sequence[Path]
    folders: Sequence[Path]
    whole: bool = True
    made: bool = False
    leads_out: bool = False

    def has(self, *names: str) -> bool:
        """Whether all of these lie in it, by name."""
        found = {path.name for path in (*self.files, *self.folders)}
        return all(name in found for name in names)


@dataclass
class Walk:
    """A walk over given files and folders.

    Attributes:
        roots: What the user gave; a root itself may be a symbolic link.
        said: What was left out, for people.
    """

    roots: Sequence[Path]
    said: list[str] = field(default_factory=list)
    _entries: int = 0
    _outside: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.roots = [Path(root).absolute() for root in self.roots]
        self._real = [root.resolve() for root in self.roots]

    def inside(self, path: Path) -> bool:
        """Whether a path, all links followed, lies at or below a given one."""
        real = path.resolve()
        return any(real == root or root in real.parents for root in self._real)

    def places(self) -> Iterator[Place]:
        """Every folder, each before what lies in it, then files that were given by name; cut where `said` says so."""
        seen: set[Path] = set()
        for root in self.roots:
            if root.is_dir():
                yield from self._below(root, root, 0, False, seen)
        by_folder: dict[Path, list[Path]] = {}
        for root in self.roots:
            if root.is_file():
                by_folder.setdefault(root.parent, []).append(root)
        for folder, files in by_folder.items():
            yield Place(folder, folder.name, sorted(set(files)), (), whole=False)
        self._say_links()

    def _below(self, root: Path, folder: Path, depth: int, made: bool, seen: set[Path]) -> Iterator[Place]:
        real = folder.resolve()
        if real in seen:
            return
        seen.add(real)
        outside = len(self._outside)
        files, folders = self._listed(folder)
        title = root.name if folder == root else folder.relative_to(root).as_posix()
        made = made or {"config.yaml", "run.json"} <= {path.name for path in files}
        yield Place(folder, title, files, folders, made=made, leads_out=len(self._outside) > outside)
        if self._entries > MAX_ENTRIES:
            self._say_once(f"Only the first {MAX_ENTRIES} files and folders were looked at: give smaller folders.")
            return
        for child in folders:
            # What a link leads to lies in the given paths and is walked there.
            if child.name in _INSIDES or child.suffix == ".zarr" or child.is_symlink():
                continue
            if depth == MAX_DEPTH:
                self._say_once(f"{folder}: folders that lie deeper than {MAX_DEPTH} below a given one are left out.")
                return
            yield from self._below(root, child, depth + 1, made, seen)

    def _listed(self, folder: Path) -> tuple[list[Path], list[Path]]:
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            self.said.append(f"{folder}: it cannot be listed ({error.strerror}).")
            return [], []
        self._entries += len(names)
        files, folders = [], []
        for name in names:
            path = folder / name
            if path.is_symlink() and not self._may_follow(path):
                continue
            if path.is_dir():
                folders.append(path)
            elif path.is_file():  # a pipe or a device would keep whoever opens it waiting
                files.append(path)
        return files, folders

    def _may_follow(self, link: Path) -> bool:
        """Whether it leads to something inside the given paths."""
        if not link.exists():
            self.said.append(f"{link}: it is a link to nothing.")
            return False
        if not self.inside(link):
            self._outside.append(link)
            return False
        return True

    def _say_links(self) -> None:
        if self._outside:
            more = f" and {len(self._outside) - 1} more" if len(self._outside) > 1 else ""
            self.said.append(
                f"{self._outside[0]}{more}: a symbolic link that leads out of the given paths is not followed. "
                "Give what it leads to as a path of its own."
            )

    def _say_once(self, sentence: str) -> None:
        if sentence not in self.said:
            self.said.append(sentence)
