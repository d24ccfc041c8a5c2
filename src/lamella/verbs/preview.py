"""`lamella preview DATA -o previews`: draw training samples as the model will get them.

Slides are here; images, volumes and video in `pictures.samples`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lamella.config import Request, Settings
from lamella.data.cross import CrossDataSettings, CrossSamples
from lamella.data.sample import CrossPlace, CrossSample
from lamella.engine.rundir import claim
from lamella.errors import ConfigError, LamellaError, SlideError
from lamella.formats.tables import write_csv
from lamella.slides.anchors.catalogue import Catalogue
from lamella.slides.index import IndexedSlide
from lamella.slides.slide import Region
from lamella.verbs.pictures.samples import (
    IJepaPreview,
    JepaPreview,
    LeJepaPreview,
    SampleSettings,
    VideoPreview,
    VolumePreview,
    run_samples,
)
from lamella.verbs.progress import progress
from lamella.view.flow import PANEL_PX, flow_image, panels, write_gif, write_png, zoom_image

FAILED = "failed.csv"
# They change how samples are fetched, not what they are.
_IGNORED = ("data.workers", "data.batch_size", "data.samples_per_epoch", "data.max_open_slides")
_THUMBNAIL_PX = 1600  # enough for the panel at the largest scale in use
_ZOOM_SCALE = 2.0
_GIF_SCALE = 0.75  # a GIF has no use for more: it is looked at in a chat or a README


class Config(Settings):
    """Settings of `lamella preview`."""

    num_samples: Annotated[int, Field(ge=1)] = 8
    """Samples to draw: the first that training with these settings and this seed would get."""
    final_png_scale: Annotated[float, Field(gt=0, le=8)] = 2.0
    """Size of `..._all_steps.png` relative to `preview_...png`."""
    num_zoomed_previews: Annotated[int, Field(ge=0)] = 2
    """Samples that also get a `zoom4_...png`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the samples; the same as in pretraining shows the same samples."""
    data: CrossDataSettings = CrossDataSettings()
    """How samples are drawn; give pretraining's."""


_SAMPLES: dict[str, type[SampleSettings]] = {
    "lejepa": LeJepaPreview,
    "ijepa": IJepaPreview,
    "jepa": JepaPreview,
    "volume": VolumePreview,
    "video": VideoPreview,
}
# What `lamella config preview` prints.
CONFIGS: dict[str, type[Settings]] = {
    "of slides (an anchors folder)": Config,
    **{f"of data sets, method.name={name}": schema for name, schema in _SAMPLES.items()},
}


def run(request: Request) -> int:
    """Draw what the method of the settings will see; pictures that stand already are left alone.

    Raises:
        ConfigError: There is no such method.
    """
    name = request.chosen("method.name")
    if name is None:
        return _run_slides(request)
    if name not in _SAMPLES:
        raise ConfigError([f"method.name: {name!r} is none of {', '.join(_SAMPLES)}; slides need no method"], "preview")
    return run_samples(request, _SAMPLES[name])


def _run_slides(request: Request) -> int:
    """Write the four kinds of picture of each sample."""
    resolved = request.resolve(Config)
    config = resolved.config
    if len(request.paths) != 1:
        raise LamellaError(
            "lamella preview",
            f"it takes one anchors folder, {len(request.paths)} given",
            "Give the folder of `anchors`, or a data set with method.name=lejepa, ijepa, jepa, volume or video.",
        )
    catalogue = Catalogue.load(request.paths[0])
    samples = CrossSamples(catalogue, config.data, config.seed)
    count = min(config.num_samples, len(samples))
    if request.dry_run:
        print(resolved.text())
        print(f"would draw {count} of {len(samples)} samples from {len(catalogue.index)} slides")
        return 0
    out = request.folder()
    inputs = {"catalogue": catalogue.hash}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="preview", ignore=_IGNORED, inputs=inputs)
    drawn, failed = _draw_all(samples, count, config, claimed.folder)
    return _finish(out, drawn, count, failed, request.paths[0])


def _draw_all(samples: CrossSamples, count: int, config: Config, folder: Path) -> tuple[int, list[dict[str, str]]]:
    """Pictures written now, and the rows of failed.csv."""
    drawn, failed = 0, []
    index = samples.catalogue.index

    @lru_cache(maxsize=4)  # some megabytes each
    def thumbnail(slide_id: str) -> Region:
        with index[slide_id].open() as opened:
            return opened.thumbnail(_THUMBNAIL_PX)

    for position in progress(range(count), "preview"):
        place = samples.place(position)
        missing = {kind: path for kind, path in _pictures(folder, place, config).items() if not path.exists()}
        if not missing:
            continue
        slide = index[place.slide_id]
        try:
            _draw(samples.sample(position), slide, thumbnail(place.slide_id), missing, config)
            drawn += len(missing)
        except SlideError as error:
            failed.append({"slide_id": place.slide_id, "path": str(slide.wsi_path), "error": str(error)})
    samples.close()
    return drawn, failed


def _pictures(folder: Path, place: CrossPlace, config: Config) -> dict[str, Path]:
    """Kind -> file of a sample's pictures, with the source project's names."""
    name = f"s{place.position:03d}_{place.anchor_id}"  # an anchor's id begins with its slide's
    names = {
        "preview": f"preview_{name}.png",
        "gif": f"ijepa_{name}.gif",
        "all_steps": f"ijepa_{name}_all_steps.png",
    }
    if place.position < config.num_zoomed_previews:
        names["zoom4"] = f"zoom4_{name}.png"
    return {kind: folder / file for kind, file in names.items()}


def _draw(
    sample: CrossSample, slide: IndexedSlide, thumbnail: Region, missing: Mapping[str, Path], config: Config
) -> None:
    heading = f"{slide.slide_id}, anchor {sample.anchor_id.removeprefix(slide.slide_id + '_')}"
    for kind, path in missing.items():
        scale = {"preview": 1.0, "gif": _GIF_SCALE, "zoom4": _ZOOM_SCALE, "all_steps": config.final_png_scale}[kind]
        steps = panels(sample, slide, thumbnail, round(scale * PANEL_PX))
        if kind == "gif":
            write_gif(steps, heading, path)
        else:
            write_png(zoom_image(steps, heading) if kind == "zoom4" else flow_image(steps, heading), path)


def _finish(folder: Path, drawn: int, count: int, failed: list[dict[str, str]], anchors: Path) -> int:
    if failed:
        write_csv(folder / FAILED, failed, ["slide_id", "path", "error"])
        print(f"{len(failed)} of {count} samples failed; the reasons are in {folder / FAILED}")
    else:
        (folder / FAILED).unlink(missing_ok=True)
    print(f"wrote {drawn} pictures of {count} samples to {folder}" if drawn else f"nothing to do: {folder} is complete")
    print(f"next: lamella pretrain {anchors} -p small -o runs/first")
    return 1 if failed else 0
