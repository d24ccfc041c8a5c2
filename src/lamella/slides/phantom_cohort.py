"""Generated cohorts with weak labels: slides that hold only some of the classes, and say which but not where.

Each cohort is written twice: in the files of the PBIP project (split CSV, labels CSV, slide2vec coordinates, mask
folder) and as manifests. The same slides are also cut into patches with labels of their own. Truth is for judging.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.formats.atomic import whole_file
from lamella.formats.tables import write_csv
from lamella.slides.phantom import SCANNERS, scan, write_phantom
from lamella.slides.phantom_tissue import CLASSES, GLASS, LABEL_STEP_PX0, MPP, Tissue, draw_tissue

PARTS = ("train", "val", "test")
IDS: Mapping[str, int] = {name: number for number, name in CLASSES.items()}
"""Name of a class -> its value in the masks."""
PRESENT = 0.1
"""Least share of a patch that a class covers where the patch is labelled with it. Patches that hold less of one, but
not nothing, are not cut: nobody could say whether their label is right."""
PRESENT_ON_SLIDE = 0.01
"""The same of a slide's tissue: a tenth of a region."""
_SLIDES_OF_A_PATIENT = 2
# A structured array as slide2vec and PBIP have it, but the name as plain text: an object needs unpickling.
_TILE_FIELDS = (
    *((name, np.int32) for name in ("x", "y", "tile_level", "tile_size_resized", "tile_size", "tile_size_lv0")),
    ("resize_factor", np.float32),
)
_SLIDE_COLUMNS = ("slide_id", "wsi_path", "mpp", "patient", "site", "split", "label_mask_path")


@dataclass(frozen=True)
class CohortPlan:
    """What is drawn.

    Attributes:
        classes: The labelled classes, of `CLASSES`.
        elsewhere: Classes that every slide holds and no label names: background, as the glass is.
        slides: How many for train, val and test.
        share: Least and most parts of a slide's area that a labelled class has.
        elsewhere_share: The same of the other classes; a slide has 16 parts at most.
        held: Least and most labelled classes of a slide; None: any number, but one at least where `elsewhere` is empty.
        size_px: Side of a slide in level-0 pixels, a multiple of `LABEL_STEP_PX0`.
        tile_px: Side of tiles and patches in level-0 pixels.
        patches: At most so many are cut from a slide.
        seed: Of everything.
    """

    classes: tuple[str, ...] = ("gland", "lymphoid")
    elsewhere: tuple[str, ...] = ("stroma",)
    slides: tuple[int, int, int] = (16, 4, 8)
    share: tuple[int, int] = (1, 3)
    elsewhere_share: tuple[int, int] = (1, 3)
    held: tuple[int, int] | None = None
    size_px: int = 2048
    tile_px: int = 256
    patches: int = 24
    seed: int = 0


def write_cohort(folder: Path, plan: CohortPlan) -> Path:
    """Write slides, truth, coordinates, labels and split; slides that stand already are left alone.

    In `folder`: `slides/*.tif`, `masks/*.png` (values of `CLASSES`, 0 is background), `coordinates/*.npy`, `split.csv`
    (train,val,test), `labels.csv` (a 0/1 column per class), `manifest.csv` (all of it); `patches/*.png`,
    `patch_masks/*.png`, `patch_split.csv` (filename,split), `patch_labels.csv` (`1,0` per patch), `patches.csv` (a
    manifest of the patches), `patches_then_slides.csv` (patches to learn from, whole slides to test on), `images.csv`
    (the patches that are learnt from, with masks, for a segmenter that is taught with them: the upper bound).

    Returns:
        Path of `manifest.csv`.
    """
    folder = Path(folder)
    slides, patches = [], []
    parts = [part for part, number in zip(PARTS, plan.slides, strict=True) for _ in range(number)]
    for number, (part, held) in enumerate(zip(parts, _held(plan), strict=True)):
        scanner = SCANNERS[number % len(SCANNERS)]
        seed = plan.seed * 1000 + number  # 1000: more slides than any generated cohort has
        rng = np.random.default_rng([seed, 2])
        wanted = {**dict.fromkeys(held, plan.share), **dict.fromkeys(plan.elsewhere, plan.elsewhere_share)}
        shares = {name: int(rng.integers(least, most + 1)) for name, (least, most) in wanted.items()}
        tissue = draw_tissue(seed, plan.size_px, [IDS[name] for name, share in shares.items() for _ in range(share)])
        row = {
            "slide_id": f"case_{number:02d}_{scanner.name}",
            "patient": f"patient_{number // _SLIDES_OF_A_PATIENT:02d}",
            "site": scanner.name,
            "split": part,
            "mpp": MPP,
        }
        on_slide = _shares(tissue.labels, plan.classes) * tissue.labels.size / max(1, (tissue.labels > GLASS).sum())
        pixels = scan(tissue, scanner, seed)
        slides.append(row | _slide_files(folder, row["slide_id"], tissue, pixels, plan) | _labels(plan, on_slide))
        patches += [row | cut for cut in _patches(folder, str(row["slide_id"]), tissue, pixels, plan, rng)]
    _write_slide_tables(folder, plan, slides)
    _write_patch_tables(folder, plan, slides, patches)
    return folder / "manifest.csv"


def _held(plan: CohortPlan) -> list[tuple[str, ...]]:
    """The labelled classes of each slide: every subset of an allowed size, and its complement after it.

    So where both are allowed, any even number of slides holds each class in half of them. The order is the part's own.
    """
    number = len(plan.classes)
    subsets = [set(some) for size in range(number + 1) for some in itertools.combinations(plan.classes, size)]
    least, most = plan.held or (0 if plan.elsewhere else 1, number)
    pairs = [(some, set(plan.classes) - some) for some in subsets[: len(subsets) // 2]]
    held: list[set[str]] = []
    for part, slides in enumerate(plan.slides):
        rng = np.random.default_rng([plan.seed, part, 3])
        of_part: list[set[str]] = []
        while len(of_part) < slides:
            for index in rng.permutation(len(pairs)):
                of_part.extend(some for some in pairs[index] if least <= len(some) <= most)
        held.extend(of_part[:slides])
    return [tuple(name for name in plan.classes if name in some) for some in held]


def _shares(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(C,) share of the pixels that each class covers."""
    return np.array([(labels == IDS[name]).mean() for name in classes])


def _labels(plan: CohortPlan, shares: np.ndarray, least: float = PRESENT_ON_SLIDE) -> dict[str, int]:
    return {name: int(share >= least) for name, share in zip(plan.classes, shares, strict=True)}


def _labelled(truth: np.ndarray, plan: CohortPlan) -> np.ndarray:
    """The same without what no label names: tissue of other kinds is background, as the glass is."""
    return np.where(np.isin(truth, [IDS[name] for name in plan.classes]), truth, GLASS).astype(np.uint8)


# ---- slides ----------------------------------------------------------------------------------------------------------


def _slide_files(
    folder: Path, slide_id: str, tissue: Tissue, pixels: np.ndarray, plan: CohortPlan
) -> dict[str, str | float]:
    """Write a slide, its truth and its coordinates, and say where."""
    slide, tissue_mask, truth = (
        f"slides/{slide_id}.tif",
        f"tissue/{slide_id}.png",
        f"masks/{slide_id}.png",
    )
    if not all((folder / path).exists() for path in (slide, tissue_mask, truth)):
        write_phantom(tissue, pixels, folder / slide, folder / tissue_mask, folder / truth)
        half = LABEL_STEP_PX0 // 2
        with whole_file(folder / truth) as part:
            Image.fromarray(_labelled(tissue.labels, plan)[half::LABEL_STEP_PX0, half::LABEL_STEP_PX0]).save(part)
    _write_coordinates(folder / "coordinates" / f"{slide_id}.npy", slide_id, _corners(tissue, plan.tile_px), plan)
    return {"wsi_path": slide, "label_mask_path": truth}


def _corners(tissue: Tissue, side_px: int) -> np.ndarray:
    """(N, 2) x, y of the squares of a plain grid that are at least half tissue."""
    height, width = tissue.labels.shape
    squares = itertools.product(range(0, height - side_px + 1, side_px), range(0, width - side_px + 1, side_px))
    kept = [(x, y) for y, x in squares if (tissue.labels[y : y + side_px, x : x + side_px] > GLASS).mean() >= 0.5]
    return np.array(kept, np.int32).reshape(-1, 2)


def _write_coordinates(path: Path, slide_id: str, corners: np.ndarray, plan: CohortPlan) -> None:
    tiles = np.zeros(len(corners), [*_TILE_FIELDS, ("wsi_name", f"U{len(slide_id)}")])
    tiles["x"], tiles["y"] = corners.T
    for name in ("tile_size_resized", "tile_size", "tile_size_lv0"):
        tiles[name] = plan.tile_px
    tiles["resize_factor"] = 1
    tiles["wsi_name"] = slide_id
    with whole_file(path) as part, open(part, "wb") as file:
        np.save(file, tiles, allow_pickle=False)


def _write_slide_tables(folder: Path, plan: CohortPlan, slides: Sequence[Mapping[str, object]]) -> None:
    columns = (*_SLIDE_COLUMNS, *plan.classes)
    write_csv(folder / "manifest.csv", slides, columns)
    named = [{"image_name": row["slide_id"], **{name: row[name] for name in plan.classes}} for row in slides]
    write_csv(folder / "labels.csv", named, ("image_name", *plan.classes))
    # Ragged, as the source has it: a column for each part, and the shorter ones end in empty cells.
    of_part = [[row["slide_id"] for row in slides if row["split"] == part] for part in PARTS]
    rows = [dict(zip(PARTS, names, strict=True)) for names in itertools.zip_longest(*of_part)]
    write_csv(folder / "split.csv", rows, PARTS)


# ---- patches ---------------------------------------------------------------------------------------------------------


def _patches(
    folder: Path,
    slide_id: str,
    tissue: Tissue,
    pixels: np.ndarray,
    plan: CohortPlan,
    rng: np.random.Generator,
) -> Iterable[dict[str, object]]:
    """Cut the patches of a slide whose labels are beyond doubt."""
    side, cut = plan.tile_px, 0
    for x, y in rng.permutation(_corners(tissue, side)).tolist():
        truth = tissue.labels[y : y + side, x : x + side]
        shares = _shares(truth, plan.classes)
        if ((shares > 0) & (shares < PRESENT)).any():
            continue
        if cut == plan.patches:
            return
        cut += 1
        name = f"{slide_id}_{x}_{y}"
        paths = {"wsi_path": f"patches/{name}.png", "label_mask_path": f"patch_masks/{name}.png"}
        rasters = pixels[y : y + side, x : x + side], _labelled(truth, plan)
        for path, raster in zip(paths.values(), rasters, strict=True):
            if not (folder / path).exists():
                with whole_file(folder / path) as part:
                    Image.fromarray(raster).save(part)
        yield {"slide_id": name, **paths, **_labels(plan, shares, PRESENT)}


def _write_patch_tables(
    folder: Path, plan: CohortPlan, slides: Sequence[Mapping[str, object]], patches: Sequence[Mapping[str, object]]
) -> None:
    columns = (*_SLIDE_COLUMNS, *plan.classes)
    write_csv(folder / "patches.csv", patches, columns)
    tested = [row for row in slides if row["split"] == "test"]
    write_csv(
        folder / "patches_then_slides.csv", [*(row for row in patches if row["split"] != "test"), *tested], columns
    )
    images = [
        {
            "image_id": row["slide_id"],
            "image_path": row["wsi_path"],
            "mask_path": row["label_mask_path"],
            "patient": row["patient"],
            "split": row["split"],
        }
        for row in patches
        if row["split"] != "test"
    ]
    write_csv(folder / "images.csv", images, ("image_id", "image_path", "mask_path", "patient", "split"))
    split = [{"filename": f"{row['slide_id']}.png", "split": row["split"]} for row in patches]
    write_csv(folder / "patch_split.csv", split, ("filename", "split"))
    labels = [
        {"image_name": f"{row['slide_id']}.png", "label": ",".join(str(row[name]) for name in plan.classes)}
        for row in patches
    ]
    write_csv(folder / "patch_labels.csv", labels, ("image_name", "label"))
