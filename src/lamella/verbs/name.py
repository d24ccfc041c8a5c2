"""`lamella name CLIP DATA prompts=prompts.json -o results`: which class is a region of, by texts or by few labels?

DATA is a data set with masks: regions are given by the truth, and the names are judged. Or a slide with
`--regions objects.geojson`: its polygons get names and scores.
"""

from __future__ import annotations

from pathlib import Path

from lamella.config import Request, Settings
from lamella.errors import LamellaError
from lamella.slides.readers.registry import SLIDE_SUFFIXES
from lamella.verbs.embed_collection import open_data
from lamella.verbs.naming import collection, slide
from lamella.verbs.naming.settings import Config, SlideConfig

CONFIGS: dict[str, type[Settings]] = {
    "of regions of a data set with masks": Config,
    "of the polygons of a slide (--regions)": SlideConfig,
}


def run(request: Request) -> int:
    """Name regions; 1 where some could not be named.

    Raises:
        LamellaError: There are not two paths, or a slide comes without --regions.
    """
    if len(request.paths) != 2:
        raise LamellaError(
            "lamella name",
            f"it takes a CLIP model and a data set or a slide, {len(request.paths)} path(s) given",
            "For example: lamella name plip glas/manifest.csv prompts=glands -o names.",
        )
    regions, data = request.options.get("regions"), request.paths[1]
    if regions is not None:
        return slide.run(request, Path(regions))
    if data.is_file() and data.suffix.lower() in SLIDE_SUFFIXES:
        raise LamellaError(data, "it is a slide, and no regions are given", "Add --regions objects.geojson.")
    if request.options.get("mpp") is not None:
        raise LamellaError("--mpp", "it states the spacing of a slide", "Of a data set say dataset.mpp=0.5.")
    return collection.run(request, open_data(request))
