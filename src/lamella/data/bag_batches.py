"""Batches of weakly labelled tiles as a pure function of the step.

Labels of patches: each sample is a tile with labels of its own. Labels of slides: each sample is a bag, of which
several tiles are drawn; its label is repeated for them, and `bag` says which belong together. Where the label of a
slide is to be taken for each tile's own (a control), that is the method's doing, not the batch's.

Whether a tile or slide shows background is not known, unless it shows none of the classes: then it does.

Shapes: B samples of a step, T tiles of a sample (1 with labels of patches), C channels (the classes, then the
background where there is one), H = W = tile_px.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from lamella.config import Settings
from lamella.data.bag_units import Unit, field_px0, labels_of_unit, strata_of, target_of, units_of
from lamella.data.bags import Bag, WeakStudy
from lamella.data.image_augment import NoColour
from lamella.data.kept import Kept
from lamella.data.sample import Batch
from lamella.data.segmentation_augment import Labelled, SegmentationAugmentSettings, augmented
from lamella.errors import DatasetError
from lamella.slides.slide import SlideCache

# What a random number is for: each use has its own stream at every position. Other first numbers than other samples of
# the package have, so that two methods of one seed share no draws by accident.
_PLACE, _AUGMENT, _VIEW, _WHICH_VIEW = range(24, 28)
_ROUNDING_PX0 = 1e-6  # a field that is larger than its slide by this much is as large as it
# The source's epoch: 1,000 batches of 10 tiles. A pass over all tiles of a hundred whole slides would be a day's work,
# and neighbouring tiles teach much the same.
_EPOCH_TILES = 10_000

Count = Annotated[int, Field(ge=1)]


class BagBatchSettings(Settings):
    """How tiles are drawn for training."""

    batch_size: Count = 10
    """Samples of one optimiser step, over all processes together: tiles with labels of patches, slides with labels of
    slides."""
    tiles_per_bag: Count = 8
    """Tiles drawn of each slide (labels of slides); a slide with fewer gives some of them again, varied anew."""
    sampler: Literal["balanced", "uniform"] = "balanced"
    """balanced: a class (or none of them, where that occurs), then a group (patient) that has it, then a slide, then
    tiles: rare classes come as often as common ones. uniform: every slide, or tile with a label, is equally likely."""
    samples_per_epoch: Count | None = None
    """Samples of an epoch; null: as many as show each tile once, but of slides' labels 10,000 tiles at most."""
    mpps: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Multi-level tiles: each slide is shown at one of these micrometres per pixel, drawn at random, around the same
    places and with the same number of pixels. Empty: at data.mpp. Only with labels of slides: a wider or narrower field
    has other contents than the patch that was labelled."""
    augment: SegmentationAugmentSettings = SegmentationAugmentSettings(
        elastic=0, stain_scale=0.2, stain_shift=0.1, colour=NoColour()
    )
    """How tiles are varied."""
    views: Annotated[int, Field(ge=0)] = 4
    """With a frozen backbone: each tile is varied in so many ways, and what the backbone makes of them is kept on disk
    and drawn again and again. 0 varies and encodes anew at every step, as other backbones do."""
    features_gb: Annotated[float, Field(ge=0)] = 10.0
    """Most disk space for what was encoded, in training/features; it is removed when all models are trained."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that read ahead; 0 reads in the training process. The samples are the same either way."""
    cache_mb: Annotated[float, Field(ge=0)] = 1024
    """Decoded tiles kept in memory by each process."""
    max_open_slides: Count = 8
    """Slides held open in each process."""


@dataclass
class _Open:
    """What one process holds open. A handle is never shared with the process that a worker was forked from."""

    process: int
    slides: SlideCache


@dataclass(frozen=True)
class Drawn:
    """The tiles of one sample."""

    bag: int
    rows: tuple[int, ...]
    mpp: float


class BagBatches:
    """The batches of some bags.

    Args:
        study: What the bags are of.
        bags: Those that are drawn from; bags and tiles without a label are left out.
        settings: How.
        seed: Of every draw.
        views: Ways in which each tile is varied; 0: another way each time.
        view_seed: Of these ways: models of several seeds share what was made of them.

    Raises:
        DatasetError: Nothing has a label; labels of patches are asked of slides that have one for several tiles; or a
            field of `mpps` does not fit into a slide.
    """

    def __init__(
        self,
        study: WeakStudy,
        bags: Sequence[Bag],
        settings: BagBatchSettings,
        seed: int,
        *,
        views: int = 0,
        view_seed: int = 0,
    ) -> None:
        self.study, self.settings, self.seed, self.labels_are = study, settings, seed, study.labels_are
        self.views, self.view_seed = views, view_seed
        self.bags = [bag for bag in bags if len(bag) and (bag.labels is not None or bag.tile_labels is not None)]
        if not self.bags:
            raise DatasetError("labels", "no slide that is trained on has one", "Check labels and split.")
        self._units = units_of(self.bags, self.labels_are)
        self._strata = strata_of(self.bags, self._units, self.labels_are)
        self._check_mpps()
        self._kept: Kept[np.ndarray] = Kept(settings.cache_mb)
        self._open: _Open | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def __len__(self) -> int:
        """Samples that are told apart: tiles with labels, or slides."""
        return len(self._units)

    @property
    def tiles_per_sample(self) -> int:
        return self.settings.tiles_per_bag if self.labels_are == "slide" else 1

    @property
    def tiles_per_epoch(self) -> int:
        """Tiles of an epoch: what the budget counts as images."""
        tiles = len(self)
        if self.labels_are == "slide":
            tiles = max(min(sum(map(len, self.bags)), _EPOCH_TILES), tiles)
        return (self.settings.samples_per_epoch or -(-tiles // self.tiles_per_sample)) * self.tiles_per_sample

    @property
    def tiles_per_step(self) -> int:
        return self.settings.batch_size * self.tiles_per_sample

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """Positions of a rank's share of a step; the ranks' shares follow each other."""
        batch = self.settings.batch_size
        return range(step * batch + rank * batch // world_size, step * batch + (rank + 1) * batch // world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step.

        Returns:
            image: uint8 (B * T, 3, H, W).
            label: uint8 (B * T, C), 0 or 1; that of its slide where slides are labelled.
            known: uint8 (B * T, C), 1 where the label is known.
            bag: int64 (B * T,), equal for the tiles of one sample. Only where slides are labelled.
            position: int64 (B * T,).

        Raises:
            SlideError: Pixels cannot be read; nothing is put in their place.
        """
        positions = self.positions(step, rank, world_size)
        side, tiles = self.study.tile_px, self.tiles_per_sample
        images = np.empty((len(positions) * tiles, 3, side, side), np.uint8)
        labels, known = [], []
        for number, position in enumerate(positions):
            drawn = self.drawn(position)
            for place, row in enumerate(drawn.rows):
                pixels = self._varied(drawn, row, position * tiles + place)
                images[number * tiles + place] = np.moveaxis(pixels, -1, 0)
                label_C, known_C = self.target(drawn.bag, row)
                labels.append(label_C)
                known.append(known_C)
        position = np.repeat(np.array(positions, np.int64), tiles)
        batch = {
            "image": torch.from_numpy(images),
            "label": torch.from_numpy(np.stack(labels)),
            "known": torch.from_numpy(np.stack(known)),
            "position": torch.from_numpy(position),
        }
        return {**batch, "bag": torch.from_numpy(position)} if self.labels_are == "slide" else batch

    def drawn(self, position: int) -> Drawn:
        """Which tiles the sample of a position has; no pixels are read."""
        rng = np.random.default_rng((_PLACE, position, 0, self.seed))
        number, row = self._drawn_unit(rng)
        mpp = float(rng.choice(self.settings.mpps)) if self.settings.mpps else self.study.mpp
        if row is not None:
            return Drawn(number, (row,), mpp)
        tiles, wanted = len(self.bags[number]), self.tiles_per_sample
        order = np.concatenate([rng.permutation(tiles) for _ in range(-(-wanted // tiles))])
        return Drawn(number, tuple(int(each) for each in order[:wanted]), mpp)

    def target(self, number: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(C,) uint8 labels, and which of them are known, of a tile of bag `number`."""
        return target_of(self.study, labels_of_unit(self.bags[number], row, self.labels_are))

    # ---- pixels -----------------------------------------------------------------------------------------------------

    def tiles(self, number: int, rows: Sequence[int], mpp: float | None = None) -> torch.Tensor:
        """uint8 (n, 3, H, W): tiles of bag `number` as they are."""
        pixels = [self._tile(number, row, mpp or self.study.mpp) for row in rows]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)

    def close(self) -> None:
        """Close the slides that this process holds open."""
        if self._open is not None and self._open.process == os.getpid():
            self._open.slides.close()
        self._open = None

    def _varied(self, drawn: Drawn, row: int, tile: int) -> np.ndarray:
        rng = np.random.default_rng((_AUGMENT, tile, 0, self.seed))
        if self.views:
            view = int(np.random.default_rng((_WHICH_VIEW, tile, 0, self.seed)).integers(self.views))
            name = blake2b(f"{self.bags[drawn.bag].slide_id}/{row}/{drawn.mpp}".encode(), digest_size=8).digest()
            rng = np.random.default_rng((_VIEW, int.from_bytes(name), view, self.view_seed))
        return augmented(Labelled(self._tile(drawn.bag, row, drawn.mpp)), self.settings.augment, rng).pixels_YXC

    def _tile(self, number: int, row: int, mpp: float) -> np.ndarray:
        return self._kept.get((number, row, mpp), lambda: self._read(self.bags[number], row, mpp))

    def _read(self, bag: Bag, row: int, mpp: float) -> np.ndarray:
        slides = self._handles()
        box = field_px0(bag, row, self.study, mpp)
        (pixels,) = slides.get(bag.wsi_path, bag.mpp_stated).read_many([box], mpp)
        return pixels

    def _handles(self) -> SlideCache:
        if self._open is None or self._open.process != os.getpid():
            self._open = _Open(os.getpid(), SlideCache(self.settings.max_open_slides))
        return self._open.slides

    # ---- draws ------------------------------------------------------------------------------------------------------

    def _drawn_unit(self, rng: np.random.Generator) -> Unit:
        """Number of a bag, and of a tile of it where tiles have labels of their own."""
        if self.settings.sampler == "uniform":
            return self._units[int(rng.integers(len(self._units)))]
        groups = self._strata[int(rng.integers(len(self._strata)))]
        bags = groups[int(rng.integers(len(groups)))]
        units = bags[int(rng.integers(len(bags)))]
        return units[int(rng.integers(len(units)))]

    def _check_mpps(self) -> None:
        wider = [mpp for mpp in self.settings.mpps if mpp != self.study.mpp]
        if wider and self.labels_are == "patch":
            raise DatasetError(
                "train.batches.mpps",
                "a patch's label is of the field that was labelled, and a wider or narrower one shows something else",
                "Leave it empty, or use labels of slides.",
            )
        for mpp in wider:
            side_um = mpp * self.study.tile_px
            small = [bag.slide_id for bag in self.bags if min(bag.frame.size_um) < side_um - _ROUNDING_PX0]
            if small:
                raise DatasetError(
                    "train.batches.mpps",
                    f"a field of {side_um:g} um ({self.study.tile_px} px at {mpp:g}) is larger than {len(small)} "
                    f"slide(s): {', '.join(small[:5])}",
                    "Leave that spacing out.",
                )
