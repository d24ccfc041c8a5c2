"""`lamella explain MODEL DATA -o pictures`: where an encoder looks, and what it tells apart.

A run folder or a results folder alone is explained by its curves, scatters and label curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lamella.config import Request, Settings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import ImageError, LamellaError, SlideError
from lamella.formats.tables import write_csv
from lamella.imaging.datasets.collection import Collection
from lamella.imaging.datasets.opening import DatasetSettings, open_collection
from lamella.models.encoders import Twinned, random_twin
from lamella.models.hub import CONFIG_FILE, load_encoder, model_facts
from lamella.models.volume_encoder import VolumeContract
from lamella.slides.index import INDEX_FILE, SlideIndex
from lamella.verbs.evaluation.image_features import ViewSettings
from lamella.verbs.evaluation.space_time_views import STRIDE
from lamella.verbs.own_intensity import with_own_intensity
from lamella.verbs.pictures.items import (
    Choice,
    Shown,
    chosen,
    prepared_volumes,
    shown_film,
    shown_image,
    shown_tiles,
    shown_volume,
)
from lamella.verbs.pictures.logs import is_results, is_run, result_sections, run_section
from lamella.verbs.pictures.pages import Drawn, encoder_section
from lamella.verbs.progress import progress
from lamella.view.page import Section, write_page
from lamella.view.scatter import ScatterSettings

FAILED, PAGE = "failed.csv", "index.html"
_IGNORED = ("device",)


class Config(Settings):
    """Settings of `lamella explain`."""

    dataset: DatasetSettings = DatasetSettings()
    """How the folder or file is read as a data set."""
    view: ViewSettings = ViewSettings()
    """What an encoder is shown of an image; of volumes and films only its intensity."""
    items: Annotated[int, Field(ge=1, le=60)] = 6
    """Images, volumes, films or tiles that are shown, the classes (or slides) taking turns."""
    item_ids: tuple[str, ...] = ()
    """Show these items (or slides) instead."""
    attention: bool = True
    """Draw attention: rollout over all layers, and the heads of the last one."""
    heads: Annotated[int, Field(ge=0)] = 6
    """Heads that are drawn at most."""
    token: Annotated[int, Field(ge=0)] | None = None
    """Whose attention: this patch token's, counted row by row; null is the whole feature's."""
    components: bool = True
    """Draw the first three principal components of the patch tokens as colours."""
    foreground: bool = False
    """Split foreground from background by the first component, and colour the foreground alone."""
    random_twin: bool = True
    """Also draw the same pages for the same network with random weights."""
    frames: Annotated[int, Field(ge=1)] = 6
    """Frames of a film that are drawn at most."""
    channel: Annotated[int, Field(ge=0)] = 0
    """Channel of a volume that is drawn; the encoder gets all."""
    scatter: ScatterSettings = ScatterSettings()
    """How the features of an evaluation are laid out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the choice of items, and of the random weights."""
    device: DeviceName = "auto"
    """Where the encoder runs."""


def run(request: Request) -> int:
    """Draw what can be drawn of the paths given, and a page that lists it; 1 if some items could not be read."""
    resolved = request.resolve(Config)
    model, data, logs = _understood(request)
    if model is not None:
        resolved = with_own_intensity(resolved, model)
    config = resolved.config
    if request.dry_run:
        print(resolved.text())
        print(f"would explain {', '.join(str(path) for path in request.paths)}")
        return 0
    inputs = {"paths": [str(path) for path in request.paths]}
    # Opened before the folder is claimed: what cannot be opened leaves no claim behind that would refuse the next try.
    encoder = None if model is None else load_encoder(model)
    readers = [] if model is None or data is None else list(_readers(encoder, model_facts(model), data, config))
    claimed = claim(request.folder(), resolved.tree(), resolved.origins, verb="explain", ignore=_IGNORED, inputs=inputs)
    folder, sections, failed = claimed.folder, [], {}
    if encoder is not None and data is not None:
        sections, failed = _explain_model(encoder, data, readers, config, folder)
    for path in logs:
        if is_run(path):
            sections.append(run_section(path, folder))
        if is_results(path):
            sections += result_sections(path, folder, config.scatter)
    _record_failures(folder, failed)
    title = " and ".join(path.resolve().name for path in request.paths)
    write_page(
        folder / PAGE, f"{title}, explained", "Pictures from the model and its logs; no number is new here.", sections
    )
    pictures = sum(len(section.pictures) for section in sections)
    print(f"wrote {pictures} pictures to {folder}")
    if failed:
        print(f"items that failed: {len(failed)}, see {folder / FAILED}")
    print(f"next: open {folder / PAGE} in a browser")
    return 1 if failed else 0


def _understood(request: Request) -> tuple[str | None, Path | None, list[Path]]:
    """(model, data) if both are given, and the folders whose logs are drawn.

    Raises:
        LamellaError: The paths are neither a model with data nor a run or results folder.
    """
    paths = request.paths
    if len(paths) == 1 and (is_run(paths[0]) or is_results(paths[0])):
        return None, None, [paths[0]]
    if len(paths) != 2:
        raise LamellaError(
            "lamella explain",
            f"it takes a model and data, or one folder of pretrain or evaluate; {len(paths)} path(s) given"
            + ("" if len(paths) != 1 else f", and {paths[0]} is no such folder"),
            "For example: lamella explain runs/first/model images/ -o pictures.",
        )
    inner = paths[0] / "model"
    if is_run(paths[0]) and (inner / CONFIG_FILE).is_file():  # a run: its model, and its curves
        return str(inner), paths[1], [paths[0]]
    return str(paths[0]), paths[1], []


# ---- a model on data ------------------------------------------------------------------------------------------------


def _explain_model(
    encoder: Any, data: Path, readers: Sequence[tuple[str, Any]], config: Config, folder: Path
) -> tuple[list[Section], dict[str, str]]:
    """Pages of a model, and the items that could not be read."""
    failed: dict[str, str] = {}
    shown: list[Shown] = []
    for name, read in progress(readers, "read"):
        try:
            shown.append(read())
        except (ImageError, SlideError) as error:
            failed[name] = str(error)
    if not shown:
        raise LamellaError(data, f"none of the {len(failed)} items could be read", f"{next(iter(failed.values()), '')}")
    device, reason = choose_device(config.device)
    print(f"explain {encoder.name} on {device.type} ({reason}): {len(shown)} items")
    what = Drawn(config.attention, config.heads, config.token, config.components, config.foreground)
    sections = [encoder_section(encoder, shown, what, folder, "", device)]
    if config.random_twin and isinstance(encoder, Twinned):
        sections.append(encoder_section(random_twin(encoder, config.seed), shown, what, folder, "random_", device))
    return sections, failed


def _readers(encoder: Any, facts: Mapping[str, Any], data: Path, config: Config) -> Iterator[tuple[str, Any]]:
    """(name, how to read it) of each item; `facts` are what the model's folder says of its training.

    Raises:
        LamellaError: The encoder does not take such data.
    """
    choice = Choice(config.item_ids, config.items, config.seed, config.view, config.frames, config.channel)
    if STRIDE in facts:
        choice = replace(choice, frame_stride=facts[STRIDE])
    contract = encoder.contract
    takes = contract.kind if isinstance(contract, VolumeContract) else "image"
    if (data / INDEX_FILE).is_file():
        _refuse_other(encoder, takes, ("image",), "slides")
        for shown in shown_tiles(SlideIndex.load(data), contract, choice):
            yield shown.name, partial(_given, shown)
        return
    collection = open_collection(data, config.dataset, under="dataset.")
    # A film encoder takes slices of volumes in time, too.
    _refuse_other(
        encoder, takes, ("volume", "video") if collection.kind == "volume" else (collection.kind,), collection
    )
    volumes = prepared_volumes(collection, contract, config.view) if takes == "volume" else None
    for item in chosen(collection, choice):
        if takes == "image":
            yield item.item_id, partial(shown_image, collection, item, encoder, choice)
        elif volumes is not None:
            yield item.item_id, partial(shown_volume, collection, item, contract, choice, volumes)
        else:
            yield item.item_id, partial(shown_film, collection, item, contract, choice)


def _given(shown: Shown) -> Shown:
    return shown


def _refuse_other(encoder: Any, takes: str, offered: tuple[str, ...], data: Collection | str) -> None:
    if takes not in offered:
        what = data if isinstance(data, str) else f"{data.kind}s ({data.name})"
        raise LamellaError(
            encoder.name, f"it is an encoder of {takes}s, and the data are {what}", "Give data of its kind."
        )


def _record_failures(folder: Path, failed: dict[str, str]) -> None:
    if failed:
        rows = [{"item_id": name, "error": " ".join(error.split())} for name, error in failed.items()]
        write_csv(folder / FAILED, rows, ["item_id", "error"])
    else:
        (folder / FAILED).unlink(missing_ok=True)
