"""`lamella segment SLIDE --box x0,y0,x1,y1 -o out`: outline the objects that a user points at.

SLIDE is a slide or an image. Each object is shown to a promptable model (SAM 2) in a view around it; what comes back is
a mask of the view, its outline in level-0 pixels for QuPath, and a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, PngImagePlugin
from pydantic import Field

from lamella.config import Request, Settings
from lamella.engine.rundir import claim
from lamella.engine.world import DeviceName, choose_device
from lamella.errors import LamellaError
from lamella.formats.atomic import whole_file, write_json
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.ome_tiff import write_ome_tiff
from lamella.geometry import Frame
from lamella.models.everything import Sieve
from lamella.models.promptable import load_promptable
from lamella.models.promptable_model import PromptableModel
from lamella.slides.polygons import trace_mask
from lamella.slides.slide import Slide, open_slide
from lamella.verbs.prompting.answers import Answer, Asking, answers_of, everything_in, read_view
from lamella.verbs.prompting.asked import Asked, Question, question, region_of
from lamella.verbs.prompting.views import ShownView, view_around, view_of
from lamella.view.prompt_overlay import DrawnAnswer, draw_answers

ANSWERS, OUTLINES = "answers.json", "objects.geojson"
_NAMED = 20  # lines on the screen; the rest stands in the files


class EverythingSettings(Settings):
    """Which answers of a grid of clicks are kept; SAM 2's own numbers."""

    points_per_side: Annotated[int, Field(ge=1, le=256)] = 32
    """Clicks along each side of the region."""
    least_iou: Annotated[float, Field(ge=0, le=1)] = 0.8
    """The model must believe more than this of a mask."""
    least_stability: Annotated[float, Field(ge=0, le=1)] = 0.95
    """IoU of the masks that a logit above +1 and above -1 give."""
    largest_overlap: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Of the boxes around two masks, as IoU; of a pair beyond it the less believed one goes."""


class Config(Settings):
    """Settings of `lamella segment`."""

    model: str = "sam2.1-hiera-tiny"
    """A promptable model: a name such as sam2-hiera-tiny (downloaded once), such a name with @ and the place of its
    weights (sam2-hiera-tiny@/models/sam2_hiera_tiny.pt), or a model folder."""
    squash: bool = False
    """Stretch views that are not square to the model's square, as SAM 2's own predictor does, instead of padding."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of the view; unless given, such that the object and its surroundings fill it."""
    context: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Surroundings on each side of the object, relative to its longest side."""
    click_fov_um: Annotated[float, Field(gt=0)] = 500.0
    """Side in micrometres of the view around clicks alone."""
    multimask: bool | None = None
    """Let the model propose three masks and take the one it believes in most; unless given, for single clicks."""
    tidy: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Pieces left out and holes filled where they are smaller than this share of the mask; 0 keeps all of them."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Average the answers on 4 (flips) or 8 (d4) mirrored and turned views, a pass of the encoder each."""
    everything: EverythingSettings = EverythingSettings()
    """What --everything keeps."""
    polygons: Literal["box", "mask"] = "box"
    """What a polygon of --prompts says: the box around it, or also its outline, as a mask to be corrected."""
    negative_class: str = "negative"
    """Class of the points of --prompts that lie on none of the objects."""
    class_name: str = "object"
    """Class of objects that have none in --prompts."""
    mask_format: Literal["png", "ome.tif"] = "png"
    """Of the masks: PNG with 0 and 255, or pyramidal OME-TIFF with 0 and 1. Both state spacing and place."""
    device: DeviceName = "auto"
    """Where the model runs."""


def run(request: Request) -> int:
    """Answer every prompt; 1 if the model saw nothing at some of them.

    Raises:
        LamellaError: A prompt is wrong or the model or slide cannot be opened.
    """
    if len(request.paths) != 1:
        raise LamellaError(
            "lamella segment",
            f"it takes one slide or image, {len(request.paths)} path(s) given",
            "For example: lamella segment slide.svs --box 1000,800,1400,1200 -o out.",
        )
    resolved, options = request.resolve(Config), request.options
    config = resolved.config
    if config.tta != "none" and config.polygons == "mask":
        raise LamellaError("tta", "masks as prompts cannot be turned exactly", "Set tta=none or polygons=box.")
    with open_slide(request.paths[0], mpp=options.get("mpp")) as slide:
        asked = question(
            slide.frame,
            boxes=options.get("box") or (),
            points=options.get("points") or (),
            negatives=options.get("negatives") or (),
            prompts=options.get("prompts"),
            in_um=bool(options.get("um")),
            class_name=config.class_name,
            negative_class=config.negative_class,
            keep_polygons=config.polygons == "mask",
            optional=bool(options.get("everything")),
        )
        _check_everything(asked, config, options)
        model = load_promptable(config.model, squash=config.squash)
        views = _views(asked, slide, model, config, options)
        if request.dry_run:
            print(resolved.text())
            _say_views(asked, views)
            return 0
        out = request.folder()
        inputs = {
            "model_fingerprint": model.fingerprint,
            "slide": str(slide.path.absolute()),
            "mpp": slide.mpp,
            **asked.facts(),
        }
        inputs["views"] = [repr(view) for view in views]
        claimed = claim(out, resolved.tree(), resolved.origins, verb="segment", ignore=("device",), inputs=inputs)
        if (out / ANSWERS).is_file() and claimed.resumed:
            print(f"nothing to do: {out} is complete")
            return 0
        device, reason = choose_device(config.device)
        print(f"segment with {model.name} on {device.type} ({reason})")
        for sentence in model.absent:
            print(sentence)
        model.to(device)
        if options.get("everything"):
            sieve = Sieve(**config.everything.model_dump())
            answers = everything_in(views[0], slide, model, sieve, tidy=config.tidy, class_name=config.class_name)
        else:
            answers = answers_of(asked, views, slide, model, Asking(config.multimask, config.tta, config.tidy))
        return _write(answers, asked, slide, out, config)


def _views(asked: Question, slide: Slide, model: PromptableModel, config: Config, options: Any) -> list[ShownView]:
    """The view of each object."""
    if region := options.get("region"):
        box = region_of(region, slide.frame, in_um=bool(options.get("um")))
        return [view_of(box, slide.frame, model.image_px, config.mpp)] * max(1, len(asked.objects))
    return [
        view_around(
            one,
            slide.frame,
            model.image_px,
            mpp=config.mpp,
            context=config.context,
            click_fov_um=config.click_fov_um,
        )
        for one in asked.objects
    ]


def _check_everything(asked: Question, config: Config, options: Any) -> None:
    if not options.get("everything"):
        return
    if asked.objects or len(asked.negatives_px0):
        raise LamellaError("--everything", "it takes no box, no click and no --prompts", "Leave one or the other out.")
    if not options.get("region"):
        raise LamellaError(
            "--everything",
            "it looks at one region at a time, and none is given",
            "Add --region x0,y0,x1,y1; `lamella predict` labels whole slides.",
        )
    if config.tta != "none":
        raise LamellaError("--everything", f"it knows no tta={config.tta}", "Set tta=none.")


def _write(answers: list[Answer], asked: Question, slide: Slide, out: Path, config: Config) -> int:
    """Masks, pictures, outlines, and last the table of answers, which says that the folder is complete."""
    names = _numbered("mask", f".{config.mask_format}", len(answers))
    for name, answer in zip(names, answers, strict=True):
        _write_mask(out / name, answer, slide.frame)
    if not answers:
        print("the model found nothing that it believes in; see everything.least_iou and everything.least_stability")
    views = list(dict.fromkeys(answer.view for answer in answers))
    for name, view in zip(_numbered("overlay", ".png", len(views)), views, strict=True):
        _draw(out / name, view, [answer for answer in answers if answer.view == view], asked, slide)
    write_geojson(out / OUTLINES, (_outline(answer, slide.frame) for answer in answers if answer.mask.any()))
    rows = [_row(answer, name, slide.frame) for name, answer in zip(names, answers, strict=True)]
    write_json(out / ANSWERS, {"slide": slide.path.name, "model": config.model, "answers": rows})
    for row in rows[:_NAMED]:
        print(
            f"{row['prompt']}: {row['area_um2']:,.0f} um2 at {row['mpp_x']:.3g} um per pixel, "
            f"believed IoU {row['believed_iou']:.2f}"
            + ("" if row["object_probability"] is None else f", object there: {row['object_probability']:.2f}")
        )
    if len(rows) > _NAMED:
        print(f"and {len(rows) - _NAMED} more, see {ANSWERS}")
    empty = [row["prompt"] for row in rows if row["area_um2"] == 0]
    if empty:
        print(f"the model saw nothing at: {', '.join(empty)}; they have no outline. Give a box, or another mpp.")
    written = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} masks"
    print(f"wrote {written}, {OUTLINES} and pictures to {out}; QuPath opens the outlines over the slide")
    return 1 if empty else 0


def _numbered(stem: str, suffix: str, count: int) -> list[str]:
    return [f"{stem}{suffix}"] if count == 1 else [f"{stem}_{number}{suffix}" for number in range(1, count + 1)]


def _write_mask(path: Path, answer: Answer, slide: Frame) -> None:
    """Spacing and place are in the file itself, as texts of the PNG or as the OME-TIFF's annotation."""
    frame, box = answer.view.frame(slide), answer.view.box_px0
    place = {"x_px0": f"{box.x0:.0f}", "y_px0": f"{box.y0:.0f}", "width_px0": f"{box.width:.0f}"}
    place |= {"height_px0": f"{box.height:.0f}", "prompt": answer.asked.name}
    if path.suffix == ".png":
        texts = PngImagePlugin.PngInfo()
        for key, value in {"mpp_x": f"{frame.mpp_x:.6g}", "mpp_y": f"{frame.mpp_y:.6g}", **place}.items():
            texts.add_text(key, value)
        with whole_file(path) as part:
            Image.fromarray(answer.mask.astype(np.uint8) * 255).save(part, format="PNG", pnginfo=texts)
    else:
        write_ome_tiff(path, [answer.mask.astype(np.uint8)], frame, channels=["class"], annotation=place)


def _outline(answer: Answer, slide: Frame) -> GeoObject:
    polygons = tuple(tuple(answer.view.to_px0(ring) for ring in rings) for rings in trace_mask(answer.mask))
    numbers = {"believed IoU": answer.believed_iou, "area um^2": _area_um2(answer, slide)}
    if answer.object_probability is not None:
        numbers["object probability"] = answer.object_probability
    return GeoObject(
        polygons=polygons, name=answer.asked.name, classification=answer.asked.class_name, measurements=numbers
    )


def _area_um2(answer: Answer, slide: Frame) -> float:
    frame = answer.view.frame(slide)
    return float(answer.mask.sum()) * frame.mpp_x * frame.mpp_y


def _row(answer: Answer, mask: str, slide: Frame) -> dict[str, Any]:
    view, frame = answer.view, answer.view.frame(slide)
    return {
        "prompt": answer.asked.name,
        "class": answer.asked.class_name,
        "mask": mask,
        "view_px0": [view.box_px0.x0, view.box_px0.y0, view.box_px0.x1, view.box_px0.y1],
        "mask_px": [frame.width_px, frame.height_px],
        "mpp_x": frame.mpp_x,
        "mpp_y": frame.mpp_y,
        "area_um2": _area_um2(answer, slide),
        "believed_iou": answer.believed_iou,
        "object_probability": answer.object_probability,
    }


def _draw(path: Path, view: ShownView, answers: Sequence[Answer], asked: Question, slide: Slide) -> None:
    pixels = read_view(slide, view).permute(1, 2, 0).numpy()
    negatives = view.to_view(asked.negatives_px0[view.holds(asked.negatives_px0)])
    drawn = []
    for answer in answers:
        box = answer.asked.box_px0
        corners = None if box is None else view.to_view(np.array([[box.x0, box.y0], [box.x1, box.y1]])).reshape(-1)
        text = f"{answer.asked.name}: {answer.asked.class_name}, believed IoU {answer.believed_iou:.2f}"
        points = view.to_view(answer.asked.points_px0)
        drawn.append(DrawnAnswer(text, answer.mask, None if corners is None else tuple(corners), points, negatives))
    frame = view.frame(slide.frame)
    title = f"{slide.path.name}, {view.width_px} x {view.height_px} px at {view.mpp:.3g} µm per pixel"
    draw_answers(pixels, drawn, frame.mpp_x, title, path)


def _say_views(asked: Question, views: Sequence[ShownView]) -> None:
    for one, view in zip(asked.objects or (Asked("--everything"),), views, strict=True):
        box = view.box_px0
        print(
            f"{one.name}: would be shown level-0 pixels x {box.x0:.0f} to {box.x1:.0f}, y {box.y0:.0f} to {box.y1:.0f} "
            f"as {view.width_px} x {view.height_px} px at {view.mpp:.3g} um per pixel"
        )
