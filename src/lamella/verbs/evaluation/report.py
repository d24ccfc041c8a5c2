"""From answers to files: results.md, its page, results.json, and the tables and arrays that pictures are drawn from."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lamella.config import Request
from lamella.formats.atomic import whole_file
from lamella.formats.tables import write_csv
from lamella.metrics.image_study import ImageAnswer, ImageStudy
from lamella.metrics.report import Report, Unasked
from lamella.metrics.study import CannotAsk
from lamella.verbs.progress import progress
from lamella.view.markdown_page import write_report_page

RESULTS = "results.json"
FAILED = "failed.csv"
EMBEDDING = "embedding.npz"
FEW_GROUPS = 10  # below, no bootstrap of groups is trustworthy to the second digit
Question = tuple[str, Callable[[], ImageAnswer]]


def ask_all(questions: Sequence[Question]) -> tuple[list[ImageAnswer], list[Unasked]]:
    """Every answer, and the questions that the data cannot answer with the reason."""
    answers, unasked = [], []
    for title, ask in progress(questions, "questions"):
        try:
            # A probe is a thousand small fits: on two threads each of them took ten times as long as on one.
            with threadpool_limits(1, user_api="blas"):
                answer = ask()
        except CannotAsk as reason:
            unasked.append(Unasked(title, str(reason)))
            continue
        answers.append(answer)
        unasked += answer.unasked
    return answers, unasked


def write_tables(folder: Path, answers: Sequence[ImageAnswer]) -> list[Path]:
    """One CSV for each table of the answers; those of one name follow each other."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for answer in answers:
        for name, rows in answer.tables.items():
            tables.setdefault(name, []).extend(rows)
    written = []
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        path = folder / f"{name}.csv"
        write_csv(path, rows, columns)
        written.append(path)
    return written


def write_embedding(folder: Path, study: ImageStudy) -> Path:
    """Features of the judged items for scatter plots.

    Arrays: `features`, `random_init` where there is one, `labels` (text, "" for none), `item_ids`, `groups`, `encoder`.
    """
    rows = study.test_rows
    arrays: dict[str, np.ndarray] = {
        "features": study.features[study.judged][0][rows],
        "labels": np.array([_label(study, row) for row in rows], dtype=np.str_),
        "item_ids": study.items[rows].astype(np.str_),
        "groups": study.groups[rows].astype(np.str_),
        "encoder": np.array(study.judged),
    }
    if study.twin is not None:
        arrays["random_init"] = study.features[study.twin][0][rows]
    path = folder / EMBEDDING
    with whole_file(path) as part:
        np.savez(part, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return path


def record_failures(folder: Path, failed: Mapping[str, str], *, name: str = FAILED) -> None:
    """Write failed.csv, or remove the one of an earlier run when nothing failed any more."""
    if failed:
        rows = [{"item_id": item_id, "error": " ".join(error.split())} for item_id, error in sorted(failed.items())]
        write_csv(folder / name, rows, ["item_id", "error"])
    else:
        (folder / name).unlink(missing_ok=True)


def cautions(groups: int, noun: str) -> list[str]:
    """What every reader of the intervals must know."""
    texts = [
        f"Intervals resample whole {noun}s, and random initialisations where there are several. Each model was trained "
        "once: how much another seed of its training would change is not in them."
    ]
    if groups < FEW_GROUPS:
        texts.append(f"{groups} {noun}s are few: the intervals are rough, and other {noun}s may differ more.")
    return texts


def command_of(request: Request) -> str:
    """The exact command line of this run."""
    words = ["lamella", request.verb, *map(str, request.paths)]
    words += ["-p", str(request.profile)] if request.profile else []
    words += ["-r", str(request.run)] if request.run else []
    return shlex.join([*words, "-o", str(request.out), *request.overrides])


def finish(report: Report, folder: Path, files: Sequence[Path], failed: Mapping[str, str], noun: str) -> int:
    """Write the report, say what it says, and return the exit status: 2 where nothing could be answered."""
    text, data = report.write(folder)
    page = write_report_page(text)
    written = [text, page, data, *files]
    unasked = [f"{skipped.question}: not asked, {skipped.reason}" for skipped in report.unasked]
    print("\n".join(f"- {line}" for line in [*report.conclusions, *unasked]))
    print(f"wrote {', '.join(path.name for path in written)} to {folder}")
    if failed:
        print(f"{noun} that failed: {len(failed)}, see {folder / FAILED}. The same command tries them again.")
    if not report.rows:
        print("no question could be answered: nothing was measured")
        return 2
    print(f"next: read {text}, or open {page.name} beside it in a browser")
    return 1 if failed else 0


def _label(study: ImageStudy, row: int) -> str:
    if not study.labelled[row]:
        return ""
    if study.multi_label:
        return "|".join(name for name, has in zip(study.class_names, study.labels[row], strict=True) if has)
    return study.class_names[study.labels[row]]
