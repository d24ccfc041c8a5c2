"""`lamella release MODEL RESULTS... -o folder`: a model folder to hand on, its card filled from its own results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamella.config import Request, Settings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError, storage_faults
from lamella.formats.atomic import whole_file, write_text
from lamella.metrics.bootstrap import Estimate
from lamella.metrics.report import span
from lamella.metrics.segments.protocol import refuse_mixed_trees
from lamella.models.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, card_with, from_pretrained
from lamella.models.pretraining_record import RECORD_FILE
from lamella.verbs.evaluation.results_files import RESULTS_FILE, results_of


class Config(Settings):
    """Settings of `lamella release`."""

    name: str | None = None
    """Name on the card; the run's unless given."""
    licence: str | None = None
    """Licence of the weights, for whoever trained them to state; SPDX short names are understood by the hub."""
    measures: tuple[str, ...] = ("AUC", "balanced accuracy", "Dice")
    """Measures of the results that go on the card, each with its interval, baseline and n."""


def run(request: Request) -> int:
    """Copy a model and write its measured results, beside their baselines, into its card."""
    resolved = request.resolve(Config)
    if len(request.paths) < 2:
        raise LamellaError(
            "lamella release",
            f"it takes a model folder and at least one results folder, {len(request.paths)} paths were given",
            "Example: `lamella release runs/first/model results -o release licence=apache-2.0`.",
        )
    model, *results = request.paths
    encoder = from_pretrained(model)
    tables = [_table(folder, encoder.fingerprint, resolved.config.measures) for folder in results]
    card = card_with(
        (model / CARD_FILE).read_text(encoding="utf-8"),
        metrics="\n\n".join(tables),
        name=resolved.config.name,
        licence=resolved.config.licence,
    )
    if request.dry_run:
        print(card)
        return 0
    out = request.folder()
    claimed = claim(
        out,
        resolved.tree(),
        resolved.origins,
        verb="release",
        inputs={"encoder_fingerprint": encoder.fingerprint, "results": [str(folder) for folder in results]},
    )
    target = claimed.folder / "model"
    for name in (WEIGHTS_FILE, RECORD_FILE, CONFIG_FILE):  # the configuration last: a folder that has one is whole
        if (model / name).exists():
            with storage_faults(target / name), whole_file(target / name) as part:
                shutil.copyfile(model / name, part)
    write_text(target / CARD_FILE, card)
    print(f"wrote {target} with the card {target / CARD_FILE}")
    if resolved.config.licence is None:
        print("the card states no licence of the weights; licence=... sets it")
    print(f'next: lamella.from_pretrained("{target}"), or `hf upload OWNER/NAME {target}`')
    return 0


def _table(folder: Path, fingerprint: str, measures: Sequence[str]) -> str:
    """The rows of one evaluation as Markdown.

    Raises:
        LamellaError: The results are of another model, or hold none of the measures.
    """
    report = results_of(folder)
    judged = json.loads((folder / "run.json").read_text(encoding="utf-8"))["inputs"].get("encoder_fingerprint")
    if judged != fingerprint:
        raise LamellaError(
            folder / RESULTS_FILE,
            f"these are results of another model ({judged}, not {fingerprint})",
            "Give results that `lamella evaluate` made of this very model folder.",
        )
    rows = [row for row in report["rows"] if row["measure"] in measures]
    if not rows:
        held = ", ".join(dict.fromkeys(row["measure"] for row in report["rows"]))
        raise LamellaError(folder / RESULTS_FILE, "it holds none of the measures asked for", f"measures=[...]: {held}.")
    lines = [f"### {report['title']}", "", *(f"> {warning}" for warning in report["warnings"])]
    for table in _one_protocol_each(rows):
        lines += [
            "| question | measure | probe | encoder | value [95 % interval] | baseline | n | groups |",
            "|---" * 8 + "|",
            *(_line(row) for row in table),
            "",
        ]
    return "\n".join([*lines, f"Repeat: `{report['command']}`"])


def _one_protocol_each(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows in tables: those of a segmentation's protocol by themselves, those of the other questions together."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        protocol = row.get("protocol")
        tables.setdefault("" if protocol is None else protocol["table"], []).append(row)
    for table in tables.values():
        refuse_mixed_trees(table, table[0]["question"])
    return list(tables.values())


def _line(row: dict[str, Any]) -> str:
    estimate = Estimate(**row["estimate"])
    cells = (
        row["question"],
        row["measure"],
        row["probe"],
        row["encoder"],
        span(estimate),
        f"{row['baseline']['value']:.2f} {row['baseline']['name']}",
        str(estimate.n),
        str(estimate.groups),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
