"""Samples of cross-resolution JEPA: a coarse context and finer targets inside it, as a pure function of a position.

`CrossSamples.place` decides where (geometry only), `sample` reads the pixels, `batch` stacks a rank's share of a step.
Every random draw is seeded by (seed, what it is for, position), never by rank, worker or history; so any process that
is asked for a position gives the same arrays.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.data.augment import StainChange, StainSettings, Turn
from lamella.data.footprint import Footprint, footprint
from lamella.data.sample import Batch, CrossPlace, CrossSample, collate
from lamella.data.strata import training_order
from lamella.data.windows import TissueWindows
from lamella.errors import EmptyTissueError, LamellaError
from lamella.geometry import Box
from lamella.slides.anchors.catalogue import Anchor, Catalogue
from lamella.slides.anchors.sampling import CrossSampling, Fraction
from lamella.slides.anchors.targets import place_targets
from lamella.slides.index import IndexedSlide
from lamella.slides.slide import SlideCache

# What a random number is for: each use has its own stream at every position.
_SCALE, _TARGETS, _TOKENS, _TURN, _STAIN, _SAME_RESOLUTION = range(6)
# A thousandth of a pixel over a view of 1,000 pixels; `Slide.read` copies pixels within it.
_SAME_SPACING = 1e-6

Factor = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class CrossDataSettings(Settings):
    """How samples are drawn from an anchor catalogue."""

    batch_size: Count = 64
    """Samples of one optimiser step, over all ranks together."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that read ahead; 0 reads in the training process. The samples are the same either way."""
    samples_per_epoch: Count | None = None
    """Length of an epoch; null is one pass. Shorter epochs go on through one permutation of the whole catalogue."""
    stain: StainSettings = StainSettings()
    """Variation of stain and scanner."""
    flips: bool = True
    """Mirror and turn context and targets together, in one of the eight orientations."""
    same_resolution_fraction: Fraction = 0.0
    """Share of the batches whose targets have the context's micrometres per pixel."""
    scale_factors: Annotated[tuple[Factor, ...], Field(min_length=1)] = (1.0,)
    """Scales relative to the profile, equally likely: 0.5 halves every length and every micrometre per pixel."""
    balance_by: str | None = None
    """Manifest column whose values are drawn equally often, such as `site`."""
    exclude_split: str | None = "test"
    """Slides with this `split`, and all slides of their patients, are never drawn."""
    max_open_slides: Count = 8
    """Slides held open in each process."""
    min_context_fraction: Fraction = 0.2
    """Least share of the context's tokens that must lie outside all targets."""
    redraws: Annotated[int, Field(ge=0)] = 16
    """Times that targets are placed anew where less context than that remains, before the anchor is refused."""
    max_context_tokens: Count | None = None
    """Use a random subset of at most this many context tokens."""
    max_target_tokens: Count | None = None
    """Ask the predictor for a random subset of at most this many tokens of each target."""


@dataclass
class _Open:
    """What one process holds open. A handle is never shared with the process that a worker was forked from."""

    process: int
    slides: SlideCache
    tissue: TissueWindows


class CrossSamples:
    """The samples of a catalogue.

    Args:
        catalogue: Anchors whose targets are known to fit.
        settings: How they are drawn.
        seed: Seed of the order, the placement and the augmentation.

    Raises:
        LamellaError: No anchor is left for training, or the column to balance by is missing.
    """

    def __init__(self, catalogue: Catalogue, settings: CrossDataSettings, seed: int) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.seed = seed
        self.order = training_order(
            catalogue, seed, exclude_split=settings.exclude_split, balance_by=settings.balance_by
        )
        self._slides = {slide.slide_id: (number, slide) for number, slide in enumerate(catalogue.index)}
        self._open: _Open | None = None

    def __len__(self) -> int:
        """Anchors that take part."""
        return len(self.order)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    @property
    def samples_per_epoch(self) -> int:
        return self.settings.samples_per_epoch or len(self)

    def place(self, position: int) -> CrossPlace:
        """Decide where the sample of a position lies.

        Raises:
            LamellaError: The targets leave too little context, whatever was drawn.
            SlideError: The slide or its mask cannot be read.
        """
        asked = float(self._rng(_SCALE, position).choice(self.settings.scale_factors))
        try:
            return self._place(position, asked, factor=asked)
        except EmptyTissueError:
            if asked == 1:
                raise
            return self._place(position, asked, factor=1.0)  # the catalogue proved that targets fit at this one

    def sample(self, position: int) -> CrossSample:
        """The sample of a position with its pixels.

        Raises:
            SlideError: Pixels cannot be read; the message names the slide. Nothing is put in their place.
            LamellaError: As for `place`.
        """
        place = self.place(position)
        _, indexed = self._slides[place.slide_id]
        slide = self._handles().slides.get(indexed.wsi_path, indexed.mpp_stated)
        sampling, tolerance = place.sampling, place.sampling.spacing_tolerance
        context = slide.read(place.context_px0, sampling.context_output_mpp, tolerance=tolerance)
        targets = slide.read_many(place.targets_px0, sampling.target_output_mpp, tolerance=tolerance)
        choice = slide.choose_level(sampling.target_output_mpp, tolerance)
        views = self._stained(position, [context.pixels, *targets])
        return CrossSample(
            **{field.name: getattr(place, field.name) for field in fields(place)},
            context=place.turn.image(views[0]),
            targets=place.turn.image(np.stack(views[1:])),
            source_context_mpp=context.source_mpp,
            output_context_mpp=context.output_mpp,
            context_method=context.method,
            source_target_mpp=slide.levels[choice.level].mpp,
            output_target_mpp=slide.frame.box_um(place.targets_px0[0]).width / targets.shape[2],
            target_method=choice.method,
        )

    def positions(self, step: int, rank: int = 0, world_size: int = 1) -> range:
        """The sample positions of a rank at a step: a contiguous share of the global batch.

        Raises:
            LamellaError: The batch cannot be shared equally.
        """
        share, rest = divmod(self.settings.batch_size, world_size)
        if rest:
            raise LamellaError(
                f"data.batch_size={self.settings.batch_size}",
                f"it cannot be shared equally by {world_size} processes",
                f"Choose a multiple of {world_size}.",
            )
        first = step * self.settings.batch_size + rank * share
        return range(first, first + share)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rank's share of the batch of a step, as tensors; see `lamella.data.sample.collate`."""
        return collate([self.sample(position) for position in self.positions(step, rank, world_size)])

    def close(self) -> None:
        """Close the slides that this process holds open."""
        if self._open is not None and self._open.process == os.getpid():
            self._open.slides.close()
        self._open = None

    def _place(self, position: int, asked: float, factor: float) -> CrossPlace:
        pass_index, row = self.order.at(position)
        anchor = self.catalogue.anchor(row)
        slide_number, slide = self._slides[anchor.slide_id]
        same_resolution = self._same_resolution(position // self.settings.batch_size)
        sampling = _at_scale(self.catalogue.sampling, factor, same_resolution)
        context_px0 = anchor.context_px0(slide.frame, sampling)
        context_um = slide.frame.box_um(context_px0)
        turn = Turn.drawn(self._rng(_TURN, position)) if self.settings.flips else Turn(False, 0)
        for redraws in range(self.settings.redraws + 1):
            placed_um = self._targets_um(position, redraws, anchor, slide, context_um, sampling)
            boxes_um = turn.boxes(placed_um, sampling.context_fov_um)
            sets = self._token_sets(position, redraws, boxes_um, sampling)
            if sets.keep.size and sets.free_fraction >= self.settings.min_context_fraction:
                break
        else:
            raise self._too_little_context(anchor, sampling, sets)
        on_slide_um = [Box(*box).shifted(context_um.x0, context_um.y0) for box in placed_um.tolist()]
        return CrossPlace(
            position=position,
            pass_index=pass_index,
            row=row,
            slide_id=anchor.slide_id,
            slide_number=slide_number,
            anchor_id=anchor.anchor_id,
            sampling=sampling,
            scale_factor=factor,
            asked_scale_factor=asked,
            same_resolution=same_resolution,
            context_px0=context_px0,
            targets_px0=tuple(slide.frame.box_px(box) for box in on_slide_um),
            turn=turn,
            boxes_um=boxes_um,
            footprint=sets,
            redraws=redraws,
        )

    def _targets_um(
        self,
        position: int,
        attempt: int,
        anchor: Anchor,
        slide: IndexedSlide,
        context_um: Box,
        sampling: CrossSampling,
    ) -> np.ndarray:
        """(K, 4) targets as they lie on the slide, from the context's top left."""
        tissue, window_um = self._handles().tissue.around(slide, context_um)
        rng = self._rng(_TARGETS, position, attempt)
        placed_um = place_targets(rng, tissue, window_um, sampling, anchor.min_target_tissue_fraction)
        if sampling.align_targets_to_patch_grid:
            return placed_um
        return _on_pixels(placed_um, (context_um.x0, context_um.y0), slide, sampling.target_output_mpp)

    def _token_sets(self, position: int, attempt: int, boxes_um: np.ndarray, sampling: CrossSampling) -> Footprint:
        tokens = sampling.context_px // sampling.patch_px
        return footprint(
            boxes_um / sampling.context_output_mpp,
            sampling.patch_px,
            tokens,
            tokens,
            rng=self._rng(_TOKENS, position, attempt),
            max_context_tokens=self.settings.max_context_tokens,
            max_target_tokens=self.settings.max_target_tokens,
        )

    def _too_little_context(self, anchor: Anchor, sampling: CrossSampling, sets: Footprint) -> LamellaError:
        return LamellaError(
            f"anchor {anchor.anchor_id}",
            f"its {sampling.targets_per_context} targets leave {sets.free_fraction:.0%} of the context in the last of "
            f"{self.settings.redraws + 1} draws; data.min_context_fraction asks for "
            f"{self.settings.min_context_fraction:.0%}",
            "Lower targets_per_context or target_fov_um in the profile, or data.min_context_fraction.",
        )

    def _same_resolution(self, step: int) -> bool:
        """Drawn per batch: targets at the context's spacing have fewer pixels, and a batch has one shape."""
        return bool(self._rng(_SAME_RESOLUTION, step).random() < self.settings.same_resolution_fraction)

    def _stained(self, position: int, views: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The context and its targets, in this order, with their draws of stain and scanner."""
        stain = self.settings.stain
        if not stain.enabled:
            return list(views)
        streams = stain.streams(len(views) - 1)
        changes = {stream: StainChange.drawn(stain, self._rng(_STAIN, position, stream)) for stream in set(streams)}
        return [changes[stream].apply(view) for stream, view in zip(streams, views, strict=True)]

    def _rng(self, use: int, number: int, draw: int = 0) -> np.random.Generator:
        return np.random.default_rng((use, number, draw, self.seed))

    def _handles(self) -> _Open:
        if self._open is None or self._open.process != os.getpid():
            self._open = _Open(os.getpid(), SlideCache(self.settings.max_open_slides), TissueWindows())
        return self._open


@lru_cache(maxsize=32)  # a handful of scales, twice
def _at_scale(sampling: CrossSampling, factor: float, same_resolution: bool) -> CrossSampling:
    """The profile with every length and spacing times `factor`; views keep their pixels and tokens."""
    lengths = ("context_mpp", "target_mpp", "context_fov_um", "target_fov_um", "target_margin_um")
    changed = {name: getattr(sampling, name) * factor for name in lengths}
    if same_resolution:
        changed["target_mpp"] = changed["context_mpp"]
    return CrossSampling.model_validate(sampling.model_dump() | changed)


def _on_pixels(boxes_um: np.ndarray, corner_um: tuple[float, float], slide: IndexedSlide, mpp: float) -> np.ndarray:
    """Move boxes by up to half a pixel onto the pixels of the level at exactly this spacing, if the slide has one.

    Pixels are then copied as the scanner made them. Interpolating between them would blur each target by another
    amount, and takes as long as decoding them.

    Args:
        boxes_um: (K, 4) from `corner_um`, all of one size.
        corner_um: x, y on the slide.
        slide: The slide.
        mpp: Spacing of the view.
    """
    for level in (slide.frame, *slide.levels):
        spacing = np.array([level.mpp_x, level.mpp_y])
        if np.abs(spacing / mpp - 1).max() < _SAME_SPACING:
            corners_um = np.round((boxes_um[:, :2] + corner_um) / spacing) * spacing - corner_um
            return np.concatenate([corners_um, corners_um + (boxes_um[:, 2:] - boxes_um[:, :2])], axis=1)
    return boxes_um
