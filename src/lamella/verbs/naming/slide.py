"""`lamella name CLIP SLIDE --regions objects.geojson prompts=... -o named`: classes for the polygons of a slide.

Objects are read, named and written one batch at a time; memory holds one batch, however many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lamella.config import Request
from lamella.engine.rundir import claim
from lamella.engine.world import choose_device
from lamella.errors import ImageError, LamellaError
from lamella.formats.geojson import GeoObject, read_geojson, write_geojson
from lamella.geometry import Box
from lamella.metrics.naming import named_class, probabilities
from lamella.models.clip import Clip, load_clip
from lamella.models.regions import isolated, margin_px, region_of_mask
from lamella.models.text_prompts import read_text_prompts
from lamella.slides.polygons import fill_polygon
from lamella.slides.slide import Slide, open_slide
from lamella.verbs.evaluation.report import FAILED, record_failures
from lamella.verbs.naming.embedding import embedded_prompts, in_batches
from lamella.verbs.naming.settings import SlideConfig
from lamella.verbs.progress import progress
from lamella.view.class_colours import class_colours

NAMED = "named.geojson"
_IGNORED = ("batch_size", "device")
# Regions are read twice as fine as the network sees them; the bicubic filter then has something to average.
_FINER = 2


def run(request: Request, regions: Path) -> int:
    """Write the polygons with a class and a score for each; those that cannot be named are listed in failed.csv.

    Raises:
        LamellaError: Slide, polygons, prompts or model cannot be used.
    """
    resolved = request.resolve(SlideConfig)
    config = resolved.config
    prompts = read_text_prompts(config.prompts)
    clip = load_clip(str(request.paths[0]))
    texts = embedded_prompts(clip, [prompts])[0]
    if not regions.is_file():
        raise LamellaError(regions, "there is no such file", "Give a GeoJSON of QuPath with --regions.")
    with open_slide(request.paths[1], mpp=request.options.get("mpp")) as slide:
        if request.dry_run:
            print(resolved.text())
            print(f"would name the polygons of {regions} by {prompts.name} / {config.mode}")
            return 0
        out = request.folder()
        inputs = {
            "clip": clip.fingerprint,
            "prompts": {name: list(each) for name, each in prompts.texts.items()},
            "slide": str(request.paths[1].absolute()),
            "regions": str(regions.absolute()),
            "mpp": slide.mpp,
        }
        claim(out, resolved.tree(), resolved.origins, verb="name", ignore=_IGNORED, inputs=inputs)
        device, reason = choose_device(config.device)
        print(f"{clip.name} on {device.type} ({reason}); {prompts.name} / {config.mode}")
        namer = _Namer(slide, clip.to(device), texts, prompts.classes, config)
        path = out / (NAMED + (".gz" if regions.name.endswith(".gz") else ""))
        write_geojson(path, namer.named(regions))
    return _told(namer, path, out)


class _Namer:
    """Names objects as they come.

    Args:
        slide: Where they lie.
        clip: Names them.
        texts_CF: Class embeddings.
        classes: Their names.
        config: Isolation.
    """

    def __init__(
        self, slide: Slide, clip: Clip, texts_CF: np.ndarray, classes: tuple[str, ...], config: SlideConfig
    ) -> None:
        self._slide, self._clip, self._texts_CF, self._classes, self._config = slide, clip, texts_CF, classes, config
        self._colours = class_colours(classes)
        self.counts: Counter[str] = Counter()
        self.had_another = 0
        """Objects that came with another class."""
        self.failed: dict[str, str] = {}

    def named(self, regions: Path) -> Iterator[GeoObject]:
        """The objects of a file that can be named, in its order."""
        for batch in in_batches(self._shown(regions), self._config.batch_size):
            yield from self._answers([each for each, _ in batch], [pixels for _, pixels in batch])

    def _shown(self, regions: Path) -> Iterator[tuple[GeoObject, np.ndarray]]:
        for number, item in enumerate(progress(read_geojson(regions), "name"), start=1):
            try:
                yield item, self._pixels(item, f"object {number}")
            except ImageError as error:
                self.failed[error.thing] = str(error)

    def _pixels(self, item: GeoObject, name: str) -> np.ndarray:
        """What is shown of an object.

        Raises:
            ImageError: It has no area, or none on the slide.
        """
        if not item.polygons:
            raise ImageError(name, "it has no area (points or lines)", "Give polygons.")
        config, slide = self._config, self._slide
        x0, y0, x1, y1 = item.bounds_px0()
        side_px0 = max(x1 - x0, y1 - y0)
        around = margin_px(side_px0, config.region, slide.mpp, name) if config.mode in ("dim", "context") else 0.0
        box = Box(x0 - around, y0 - around, x1 + around, y1 + around).intersection(slide.frame.bounds_px)
        if box.width <= 0 or box.height <= 0:
            size = f"{slide.frame.width_px} x {slide.frame.height_px} pixels"
            raise ImageError(name, f"it lies outside the slide ({size})", "Give the polygons of this very slide.")
        longer_um = max(slide.frame.box_um(box).width, slide.frame.box_um(box).height)
        read = slide.read(box, max(slide.mpp, longer_um / (_FINER * self._clip.contract.size_px)))
        height, width = read.pixels.shape[:2]
        mask = np.zeros((height, width), bool)
        scale = np.array([width / box.width, height / box.height])
        for polygon in item.polygons:
            fill_polygon(mask, [(ring - (box.x0, box.y0)) * scale for ring in polygon])
        if not mask.any():
            raise ImageError(name, "no pixel of the slide lies in it", "Leave it out, or draw it on the tissue.")
        return isolated(
            read.pixels,
            region_of_mask(mask, source=name),
            config.mode,
            config.region,
            self._clip.contract.gray,
            mpp=read.output_mpp,
            source=name,
        )

    @torch.inference_mode()
    def _answers(self, items: list[GeoObject], shown: list[np.ndarray]) -> Iterator[GeoObject]:
        vectors = self._clip.images(self._clip.prepared(shown, self._config.fit)).cpu().numpy()
        chances = probabilities(vectors.astype(np.float64) @ self._texts_CF.T, self._clip.scale)
        for item, row, label in zip(items, chances, named_class(chances), strict=True):
            name = self._classes[label]
            self.counts[name] += 1
            self.had_another += bool(item.classification) and item.classification != name
            scores = {f"p {each}": round(float(chance), 4) for each, chance in zip(self._classes, row, strict=True)}
            measured = {**item.measurements, **scores}
            yield replace(item, classification=name, colour=self._colours[name], measurements=measured)


def _told(namer: _Namer, path: Path, out: Path) -> int:
    record_failures(out, namer.failed)
    named = sum(namer.counts.values())
    counts = ", ".join(f"{name} {count}" for name, count in namer.counts.most_common())
    print(f"named {named} objects: {counts or 'none'}; wrote {path}")
    if namer.had_another:
        print(f"{namer.had_another} of them came with another class, which was replaced")
    if namer.failed:
        print(f"objects that could not be named: {len(namer.failed)}, see {out / FAILED}; they are not in {path.name}")
    print(
        "No truth was used and nothing was judged: `lamella name` on a data set with masks says how good the names are."
    )
    return 1 if namer.failed else 0
