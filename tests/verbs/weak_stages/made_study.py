"""A study of generated slides, made without files of labels: `fine` stripes, `coarse` stripes, flat background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tifffile

from lamella.config import Request, Resolved, Settings
from lamella.data.bags import Bag, WeakStudy
from lamella.formats.exemplars import CLASS
from lamella.formats.tables import write_parquet
from lamella.geometry import Frame
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import model_card, save_pretrained
from lamella.models.vit import ViTSettings
from lamella.verbs.weak_stages.prototype_settings import FeatureSettings, PrototypeSettings
from lamella.verbs.weak_stages.stage import COORDINATES, Stage

CLASSES, BACKGROUND, MPP, TILE_PX = ("fine", "coarse"), "plain", 0.5, 32
_PERIOD_PX = {"fine": 2, "coarse": 8, "plain": 0}
_SIDE = 4  # tiles of a slide, each way


class Config(Settings):
    """The part of a study's settings that stages 1 and 2 look at."""

    class_order: tuple[str, ...] = CLASSES
    background: str | None = BACKGROUND
    features: FeatureSettings = FeatureSettings()
    prototypes: PrototypeSettings = PrototypeSettings()
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """A study with the exemplars of stage 0, as tests change them."""

    folder: Path
    study: WeakStudy
    encoder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def stage(self, **settings: object) -> Stage:
        """A stage with these settings beside the defaults that tests use."""
        given = {"features": {"encoder": str(self.encoder), "device": "cpu"}, **settings}
        given["features"] = {"encoder": str(self.encoder), "device": "cpu", **settings.get("features", {})}  # type: ignore[dict-item]
        return Stage(Request("weak"), Resolved(Config(**given), {}), self.study, self.out)  # type: ignore[arg-type]

    def write_exemplars(self, of: dict[str, tuple[str, ...]]) -> pa.Table:
        """Stage 0's table: all tiles of these slides for each class."""
        parts = []
        for name, slides in of.items():
            for slide_id in slides:
                table = self.study.table(self.study.by_id[slide_id])
                parts.append(table.append_column(CLASS, pa.array([name] * table.num_rows)))
        table = pa.concat_tables(parts)
        write_parquet(self.out / COORDINATES / "tiles.parquet", table)
        return table


def made_study(folder: Path) -> Made:
    """Two slides of each class and of the background; exemplars are all their tiles."""
    bags = []
    for number, name in enumerate((*CLASSES, BACKGROUND) * 2):
        slide_id = f"{name}{number // 3}"
        path = folder / f"{slide_id}.tif"
        write_slide(path, name, number)
        side = _SIDE * TILE_PX
        corners = np.stack(np.meshgrid(*[np.arange(_SIDE) * TILE_PX] * 2), -1).reshape(-1, 2).astype(np.float64)
        labels = tuple(int(name == each) for each in CLASSES)
        bags.append(Bag(slide_id, path, Frame(side, side, MPP, MPP), corners, labels, None, slide_id, "train"))
    study = WeakStudy(CLASSES, BACKGROUND, tuple(sorted(bags, key=lambda bag: bag.slide_id)), MPP, TILE_PX, {})
    made = Made(folder, study, save_encoder(folder / "encoder", seed=0))
    made.write_exemplars({name: (f"{name}0", f"{name}1") for name in (*CLASSES, BACKGROUND)})
    return made


def write_slide(path: Path, kind: str, seed: int) -> None:
    """Stripes of one width and some noise; tiles differ."""
    rng, side = np.random.default_rng(seed), _SIDE * TILE_PX
    period = _PERIOD_PX[kind]
    stripes = np.arange(side) // period % 2 if period else np.full(side, 0.5)
    grey = 120 + 80 * np.tile(stripes, (side, 1)) + rng.normal(0, 8, (side, side))
    pixels = (grey[..., None] * (0.9, 0.6, 0.8)).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(path, pixels, tile=(32, 32), photometric="rgb")


def save_encoder(folder: Path, seed: int, mpp: float = MPP, patch_px: int = 8, dim: int = 16) -> Path:
    """A tiny ViT whose features are `dim` wide, which is no usual width."""
    settings = ViTSettings(patch_px=patch_px, dim=dim, depth=1, heads=2)
    contract = InputContract(mpp, 4 * patch_px, (0.7, 0.5, 0.6), (0.2, 0.2, 0.2), patch_px=patch_px, dim=dim)
    encoder = ViTEncoder(fresh_vit(settings, seed), contract, "tiny")
    facts = {"name": "tiny", "licence": "none", "data": "none", "limits": "random", "contract": contract}
    save_pretrained(encoder, folder, model_card(facts))
    return folder
