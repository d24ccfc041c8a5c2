"""`lamella evaluate MODEL DATA -o results`: what did the encoder learn? Of slides, images, volumes or films.

A segmenter is asked how well it labels every pixel, a promptable model how well it answers prompts: different
questions, in different tables.

Every answer stands beside the same network with random weights, plain statistics, the constant answer and exchanged
labels. A question that cannot be asked is answered by the reason.
"""

from __future__ import annotations

from pathlib import Path

from lamella.config import Request, Settings
from lamella.errors import LamellaError
from lamella.models.promptable import is_promptable
from lamella.slides.index import INDEX_FILE
from lamella.verbs.embed_collection import open_data
from lamella.verbs.evaluation import automatic, images, prompted, slides, videos, volumes
from lamella.verbs.evaluation.segment_models import segmenters_in

CONFIGS: dict[str, type[Settings]] = {
    "of slides (DATA is the folder of a slide index)": slides.Config,
    "of images (DATA is a data set of 2-D images)": images.Config,
    "of volumes (DATA is a data set of 3-D images)": volumes.Config,
    "of films (DATA is a data set of films, or of volumes in time)": videos.Config,
    "of a segmenter (MODEL is its folder or a run with folds, DATA are images with masks)": automatic.Config,
    "of a promptable model (MODEL is SAM 2, or a run that fine-tuned it; DATA are images with masks)": prompted.Config,
}


def run(request: Request) -> int:
    """Judge an encoder and write results.md and results.json.

    Raises:
        LamellaError: There are not two paths, or what they name does not belong together.
    """
    if len(request.paths) != 2:
        raise LamellaError(
            "lamella evaluate",
            f"it takes a model and an index folder or data set, {len(request.paths)} path(s) given",
            "For example: lamella evaluate runs/first/model index -o out.",
        )
    model, data = request.paths
    segments = bool(segmenters_in(model))
    answers = is_promptable(str(model)) or bool(prompted.promptables_in(model))
    if is_slide_index(data):
        if segments or answers:
            remedy = "Give a data set of images with masks; `lamella predict` and `lamella segment` are for slides."
            raise LamellaError(model, "it makes masks, and a slide index holds none to judge them by", remedy)
        return slides.run(request)
    collection = open_data(request)
    if segments:
        return automatic.run(request, collection)
    if answers:
        return prompted.run_prompted_evaluation(request, collection)
    if collection.kind == "image":
        return images.run(request, collection)
    if collection.kind == "volume":
        return volumes.run(request, collection)
    return videos.run(request, collection)


def is_slide_index(data: Path) -> bool:
    """Whether a folder is a slide index."""
    return (data / INDEX_FILE).is_file()
