"""Samples are a pure function of the position, and their geometry is that of the slide."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lamella.data.augment import StainSettings
from lamella.data.cross import CrossDataSettings, CrossSamples
from lamella.data.loader import batches
from lamella.errors import EmptyTissueError, LamellaError, SlideError
from lamella.geometry import Box, Frame
from lamella.slides.anchors.catalogue import Anchor, Catalogue
from lamella.slides.anchors.cataloguing import build_catalogue
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.slides.indexing import build_index
from lamella.slides.manifest import find_slides
from lamella.slides.masks import write_mask
from lamella.slides.slide import open_slide
from lamella.slides.tissue import TissueSettings

SIZE_PX = 512
SAMPLING = CrossSampling(
    profile_id="small",
    context_mpp=1.0,
    target_mpp=0.5,
    context_fov_um=128.0,
    target_fov_um=32.0,
    targets_per_context=3,
    patch_px=8,
    target_margin_um=4.0,
)
PLAIN = CrossDataSettings(batch_size=4, workers=0, flips=False, stain=StainSettings(enabled=False))
AUGMENTED = CrossDataSettings(batch_size=4, workers=0)


@dataclass
class Anchors:
    """A catalogue in memory: anchors at stated centres, the same on every slide."""

    index: Sequence[IndexedSlide]
    centres_px0: Sequence[tuple[float, float]] = ((140, 140), (300, 140), (140, 300), (301, 333), (256, 256))
    sampling: CrossSampling = SAMPLING
    shards: list[tuple[str, int, int]] = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.centres_px0)
        self.shards = [(slide.slide_id, number * rows, rows) for number, slide in enumerate(self.index)]

    def __len__(self) -> int:
        return len(self.index) * len(self.centres_px0)

    def anchor(self, row: int) -> Anchor:
        slide, number = divmod(row, len(self.centres_px0))
        slide_id, (x, y) = self.index[slide].slide_id, self.centres_px0[number]
        return Anchor(
            anchor_id=f"{slide_id}_{number:07d}",
            slide_id=slide_id,
            center_x_px0=float(x),
            center_y_px0=float(y),
            tissue_fraction=1.0,
            min_target_tissue_fraction=0.25,
        )


def chart() -> np.ndarray:
    """(SIZE_PX, SIZE_PX, 3) whose red tells x and whose green tells y, in half pixels."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    return np.stack([x // 2, y // 2, np.full_like(x, 128)], -1).astype(np.uint8)


SlideAdder = Callable[..., IndexedSlide]


@pytest.fixture
def add_slide(tmp_path: Path) -> SlideAdder:
    """add_slide("a", pixels=chart(), mpp=0.5, mask=None) -> an indexed plain image."""

    def add(
        slide_id: str,
        pixels: np.ndarray | None = None,
        mpp: float = 0.5,
        mask: np.ndarray | None = None,
    ) -> IndexedSlide:
        pixels = chart() if pixels is None else pixels
        mask = np.ones((64, 64), bool) if mask is None else mask
        wsi_path, mask_path = tmp_path / f"{slide_id}.png", tmp_path / f"{slide_id}_mask.png"
        Image.fromarray(pixels).save(wsi_path)
        write_mask(mask_path, mask)
        frame = Frame(pixels.shape[1], pixels.shape[0], mpp, mpp)
        return IndexedSlide(slide_id, wsi_path, mask_path, frame, frame.resized(*mask.shape[::-1]))

    return add


@pytest.fixture
def catalogue(add_slide: SlideAdder) -> Anchors:
    return Anchors([add_slide("a"), add_slide("b", np.full((SIZE_PX, SIZE_PX, 3), 150, np.uint8))])


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- a pure function of the position --------------------------------------------------------------------------------


def test_a_position_gives_the_same_arrays_whenever_and_wherever_it_is_asked_for(catalogue: Anchors) -> None:
    forth, back = CrossSamples(catalogue, AUGMENTED, 3), CrossSamples(catalogue, AUGMENTED, 3)
    expected = [forth.sample(position) for position in range(8)]
    for position in reversed(range(8)):
        sample = back.sample(position)
        assert np.array_equal(sample.context, expected[position].context)
        assert np.array_equal(sample.targets, expected[position].targets)
        assert np.array_equal(sample.boxes_um, expected[position].boxes_um)
        assert sample.anchor_id == expected[position].anchor_id


def test_another_seed_gives_other_samples(catalogue: Anchors) -> None:
    one, other = (CrossSamples(catalogue, AUGMENTED, seed).batch(0) for seed in (0, 1))
    assert not torch.equal(one["context"], other["context"])
    assert not torch.equal(one["target_boxes_um"], other["target_boxes_um"])


def test_ranks_share_the_batch_of_one_process_and_augment_alike(catalogue: Anchors) -> None:
    whole = CrossSamples(catalogue, AUGMENTED, 0).batch(5)
    halves = [CrossSamples(catalogue, AUGMENTED, 0).batch(5, rank, world_size=2) for rank in (0, 1)]
    for name in ("context", "targets", "target_boxes_um", "slide", "position"):
        assert torch.equal(torch.cat([half[name] for half in halves]), whole[name]), name
    assert whole["position"].tolist() == [20, 21, 22, 23]


def test_the_samples_of_different_ranks_are_augmented_differently(catalogue: Anchors) -> None:
    """The source used one augmentation seed on every rank. Slide b has one colour, so a colour is a draw."""
    samples = CrossSamples(Anchors(catalogue.index[1:]), AUGMENTED, 0)
    both = [samples.batch(0, rank, world_size=2) for rank in (0, 1)]
    colours = {tuple(view[:, 0, 0].tolist()) for batch in both for view in batch["context"]}
    assert len(colours) == 4


def test_a_batch_that_the_processes_cannot_share_is_refused(catalogue: Anchors) -> None:
    with pytest.raises(LamellaError, match=r"data.batch_size=4: it cannot be shared equally by 3 processes"):
        CrossSamples(catalogue, PLAIN, 0).batch(0, 0, world_size=3)


def test_workers_and_resuming_change_nothing(catalogue: Anchors) -> None:
    samples = CrossSamples(catalogue, AUGMENTED, 0)
    alone = list(batches(samples.batch, 0, 4))
    helped = list(batches(samples.batch, 0, 4, workers=2))  # forked with open handles, which they must not share
    resumed = list(batches(partial(CrossSamples(catalogue, AUGMENTED, 0).batch), 2, 2))
    assert all(map(equal, alone, helped))
    assert all(map(equal, alone[2:], resumed))


def test_every_anchor_comes_once_per_pass_through_short_epochs(catalogue: Anchors) -> None:
    samples = CrossSamples(catalogue, PLAIN.model_copy(update={"samples_per_epoch": 3}), 0)
    assert (len(samples), samples.samples_per_epoch) == (10, 3)
    places = [samples.place(position) for position in range(20)]
    first = [place.anchor_id for place in places[:10]]
    assert len(set(first)) == 10
    assert sorted(place.anchor_id for place in places[10:]) == sorted(first)
    assert [place.pass_index for place in places] == [0] * 10 + [1] * 10


def test_the_same_anchor_is_placed_anew_on_the_next_pass(catalogue: Anchors) -> None:
    samples = CrossSamples(Anchors(catalogue.index[:1], [(256, 256)]), PLAIN, 0)
    one, other = samples.place(0), samples.place(1)
    assert one.anchor_id == other.anchor_id
    assert not np.array_equal(one.boxes_um, other.boxes_um)


# ---- geometry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [False, True])
def test_no_kept_context_token_shows_a_target(catalogue: Anchors, flips: bool) -> None:
    samples = CrossSamples(catalogue, PLAIN.model_copy(update={"flips": flips}), 0)
    for position in range(40):
        place = samples.place(position)
        seen = np.zeros((128, 128), bool)
        for token in place.footprint.keep:
            row, column = divmod(int(token), 16)
            seen[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = True
        for x0, y0, x1, y1 in place.boxes_px:
            assert not seen[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].any()


def test_a_batch_pads_and_cuts_nothing(catalogue: Anchors) -> None:
    samples = CrossSamples(catalogue, PLAIN, 0)
    batch = samples.batch(1)
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}
    kept, asked = batch["context_keep"].shape[1], batch["footprint"].shape[2]
    assert shapes == {
        "context": ((4, 3, 128, 128), torch.uint8),
        "targets": ((4, 3, 3, 64, 64), torch.uint8),
        "context_keep": ((4, kept), torch.int64),
        "context_pad": ((4, kept), torch.bool),
        "footprint": ((4, 3, asked), torch.int64),
        "footprint_pad": ((4, 3, asked), torch.bool),
        "target_boxes_um": ((4, 3, 4), torch.float32),
        "context_mpp": ((4,), torch.float32),
        "target_mpp": ((4,), torch.float32),
        "slide": ((4,), torch.int64),
        "position": ((4,), torch.int64),
    }
    lengths = (~batch["context_pad"]).sum(1).tolist()
    assert max(lengths) == kept
    assert len(set(lengths)) > 1  # ragged, or this test shows nothing
    for sample in range(4):
        keep = batch["context_keep"][sample][~batch["context_pad"][sample]].tolist()
        targets = batch["footprint"][sample][~batch["footprint_pad"][sample]].tolist()
        assert set(keep) | set(targets) == set(range(256))
        assert not set(keep) & set(targets)
        place = samples.place(int(batch["position"][sample]))
        assert keep == place.footprint.keep.tolist()


@pytest.mark.parametrize("flips", [False, True])
def test_boxes_say_where_in_the_context_the_targets_are(catalogue: Anchors, flips: bool) -> None:
    """On the chart a colour is a place: a target and its box in the context agree in their corners."""
    samples = CrossSamples(Anchors(catalogue.index[:1]), PLAIN.model_copy(update={"flips": flips}), 0)
    batch = samples.batch(0)
    for context, targets, boxes_um in zip(batch["context"], batch["targets"], batch["target_boxes_um"], strict=True):
        for target, (x0, y0, x1, y1) in zip(targets, boxes_um.tolist(), strict=True):
            for row, y_um in ((0, y0 + 0.5), (-1, y1 - 0.5)):
                for column, x_um in ((0, x0 + 0.5), (-1, x1 - 0.5)):
                    seen = context[:2, int(y_um + 64), int(x_um + 64)].int()
                    # one context pixel is one step of the chart; the box is off the pixel grid by less than one
                    assert (seen - target[:2, row, column].int()).abs().max() <= 2


def test_target_pixels_are_the_slides_own_read_of_the_box(catalogue: Anchors) -> None:
    samples = CrossSamples(catalogue, PLAIN, 0)
    for position in range(6):
        sample = samples.sample(position)
        indexed = next(slide for slide in catalogue.index if slide.slide_id == sample.slide_id)
        with open_slide(indexed.wsi_path, mpp=0.5) as slide:
            assert np.array_equal(sample.context, slide.read(sample.context_px0, 1.0).pixels)
            for target, box_um, box_px0 in zip(sample.targets, sample.boxes_um, sample.targets_px0, strict=True):
                left, top = sample.context_px0.x0, sample.context_px0.y0
                expected_px0 = Box(*(box_um / 0.5 + [left, top, left, top]).tolist())
                assert (box_px0.x0, box_px0.y1) == pytest.approx((expected_px0.x0, expected_px0.y1))
                assert np.array_equal(target, slide.read(box_px0, 0.5).pixels)


def test_targets_are_copied_pixels_where_the_slide_has_their_spacing(add_slide: SlideAdder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    sample = CrossSamples(Anchors([add_slide("noise", noise)], [(256, 256)]), PLAIN, 0).sample(0)
    for target, box_px0 in zip(sample.targets, sample.targets_px0, strict=True):
        x0, y0 = round(box_px0.x0), round(box_px0.y0)
        assert np.array_equal(target, noise[y0 : y0 + 64, x0 : x0 + 64])


def test_only_then_do_boxes_move_and_by_half_a_pixel_at_most(add_slide: SlideAdder) -> None:
    exact = CrossSamples(Anchors([add_slide("exact")], [(256, 256)]), PLAIN, 0).place(0)
    coarser = CrossSamples(Anchors([add_slide("coarser", mpp=0.501)], [(256, 256)]), PLAIN, 0).place(0)
    assert 0 < np.abs(exact.boxes_um - coarser.boxes_um).max() <= 0.25


def test_flips_turn_pixels_and_boxes_alike(catalogue: Anchors) -> None:
    plain = CrossSamples(catalogue, PLAIN, 0)
    turned = CrossSamples(catalogue, PLAIN.model_copy(update={"flips": True}), 0)
    turns = set()
    for position in range(24):
        one, other = plain.sample(position), turned.sample(position)
        turns.add(other.turn)
        assert one.targets_px0 == other.targets_px0
        assert np.array_equal(other.context, other.turn.image(one.context))
        assert np.array_equal(other.targets, other.turn.image(one.targets))
        assert np.allclose(other.boxes_um, other.turn.boxes(one.boxes_um, 128.0))
    assert len(turns) >= 6


def test_what_was_read_is_kept_apart_from_what_is_shown(add_slide: SlideAdder) -> None:
    sample = CrossSamples(Anchors([add_slide("fine", mpp=0.4)], [(256, 256)]), PLAIN, 0).sample(0)
    assert (sample.source_context_mpp, sample.source_target_mpp) == pytest.approx((0.4, 0.4))
    assert (sample.output_context_mpp, sample.output_target_mpp) == pytest.approx((1.0, 0.5))
    assert (sample.context_method, sample.target_method) == ("from_finer", "from_finer")
    assert sample.context_px0.width == pytest.approx(128 / 0.4)
    assert sample.slide_id == "fine"
    assert sample.slide_number == 0


def test_stain_leaves_geometry_alone_and_differs_between_context_and_targets(catalogue: Anchors) -> None:
    one_colour = Anchors(catalogue.index[1:])
    settings = PLAIN.model_copy(update={"stain": StainSettings()})
    plain, stained = (CrossSamples(one_colour, chosen, 0).sample(0) for chosen in (PLAIN, settings))
    assert np.array_equal(plain.boxes_um, stained.boxes_um)
    assert not np.array_equal(plain.context, stained.context)
    assert stained.context[0, 0].tolist() != stained.targets[0, 0, 0].tolist()
    assert stained.targets[0, 0, 0].tolist() == stained.targets[1, 0, 0].tolist()
    shared = settings.model_copy(update={"stain": StainSettings(drawn_per="sample")})
    together = CrossSamples(one_colour, shared, 0).sample(0)
    assert together.context[0, 0].tolist() == together.targets[0, 0, 0].tolist()


# ---- too little context ---------------------------------------------------------------------------------------------


def test_a_draw_that_leaves_too_little_context_is_drawn_again(catalogue: Anchors) -> None:
    """Three targets off the patch grid touch 75 of 256 tokens (0.71 left), fewer where they overlap."""
    strict = CrossSamples(catalogue, PLAIN.model_copy(update={"min_context_fraction": 0.73, "redraws": 200}), 0)
    places = [strict.place(position) for position in range(20)]
    assert max(place.redraws for place in places) > 0
    assert min(place.footprint.free_fraction for place in places) >= 0.73


def test_an_anchor_without_enough_context_is_refused(catalogue: Anchors) -> None:
    samples = CrossSamples(catalogue, PLAIN.model_copy(update={"min_context_fraction": 0.95, "redraws": 2}), 0)
    with pytest.raises(LamellaError, match=r"anchor [ab]_\d{7}: its 3 targets leave \d\d% of the context"):
        samples.sample(0)


def test_a_maximum_of_tokens_subsamples_and_returns_none_to_the_context(catalogue: Anchors) -> None:
    most = PLAIN.model_copy(update={"max_context_tokens": 50, "max_target_tokens": 9})
    all_tokens, fewer = CrossSamples(catalogue, PLAIN, 0), CrossSamples(catalogue, most, 0)
    for position in range(5):
        everything, some = all_tokens.place(position).footprint, fewer.place(position).footprint
        assert some.keep.size == 50
        assert set(some.keep.tolist()) < set(everything.keep.tolist())
        assert all(asked.size == 9 for asked in some.asked)
    assert fewer.batch(0)["context_keep"].shape == (4, 50)


# ---- other scales ---------------------------------------------------------------------------------------------------


def test_other_scales_keep_the_tensors_and_halve_the_micrometres(catalogue: Anchors) -> None:
    scaled = PLAIN.model_copy(update={"scale_factors": (1.0, 0.5)})
    places = [CrossSamples(catalogue, scaled, 0).sample(position) for position in range(16)]
    assert {place.scale_factor for place in places} == {1.0, 0.5}
    for place in places:
        assert place.context.shape == (128, 128, 3)
        assert place.output_context_mpp == pytest.approx(place.scale_factor)
        assert place.output_target_mpp == pytest.approx(0.5 * place.scale_factor)
        assert place.context_px0.width == pytest.approx(256 * place.scale_factor)
        assert (place.boxes_px[:, 2] - place.boxes_px[:, 0]) == pytest.approx(np.full(3, 32.0))
    seen = [CrossSamples(catalogue, scaled, 0).batch(step)["context_mpp"] for step in range(4)]
    assert torch.equal(torch.cat(seen), torch.tensor([place.output_context_mpp for place in places]))


def test_a_scale_at_which_targets_do_not_fit_gives_way_and_says_so(add_slide: SlideAdder) -> None:
    y, x = np.mgrid[:64, :64]
    ring = (np.abs(x - 31.5) > 8) | (np.abs(y - 31.5) > 8)  # no tissue within 64 um of the middle, but around it
    anchors = Anchors([add_slide("ring", mask=ring)], [(256, 256)])
    halved = PLAIN.model_copy(update={"scale_factors": (0.5,)})
    place = CrossSamples(anchors, halved, 0).place(0)
    assert (place.asked_scale_factor, place.scale_factor) == (0.5, 1.0)
    with pytest.raises(EmptyTissueError):
        CrossSamples(Anchors([add_slide("none", mask=np.zeros((64, 64), bool))]), halved, 0).place(0)


def test_same_resolution_is_drawn_per_batch(catalogue: Anchors) -> None:
    mixed = PLAIN.model_copy(update={"same_resolution_fraction": 0.5})
    samples = CrossSamples(catalogue, mixed, 0)
    seen = [samples.batch(step) for step in range(8)]
    assert {batch["targets"].shape[-1] for batch in seen} == {32, 64}
    for batch in seen:
        same = batch["targets"].shape[-1] == 32
        assert batch["target_mpp"].tolist() == [1.0 if same else 0.5] * 4


# ---- a real catalogue ------------------------------------------------------------------------------------------------


def test_every_anchor_of_a_real_catalogue_gives_a_sample(tmp_path: Path, make_slide: Callable[..., Path]) -> None:
    """What the catalogue proved when it was built holds when it is drawn from."""
    paths = [make_slide(f"{name}.tif", 700, 900, seed=seed, levels=2) for seed, name in enumerate("ab")]
    index_folder, folder = tmp_path / "index", tmp_path / "anchors"
    build_index(find_slides(paths), index_folder, TissueSettings(), {})
    # Half of each target must be tissue: at the rim of the tissue, few places will do.
    demanding = SAMPLING.model_copy(update={"min_target_tissue_fraction": 0.5, "target_attempts": 2})
    build_catalogue(SlideIndex.load(index_folder), demanding, folder)
    catalogue = Catalogue.load(folder)
    samples = CrossSamples(catalogue, AUGMENTED, 0)
    tissue = {slide.slide_id: slide.tissue() for slide in catalogue.index}
    places = [samples.place(position) for position in range(len(catalogue))]
    assert len({place.anchor_id for place in places}) == len(catalogue) > 20
    for place in places:
        anchor = catalogue.anchor(place.row)
        assert (anchor.anchor_id, anchor.slide_id) == (place.anchor_id, place.slide_id)
        frame = catalogue.index[place.slide_id].frame
        for box_px0 in place.targets_px0:
            assert place.context_px0.contains(box_px0)
            fraction = tissue[place.slide_id].fraction(frame.box_um(box_px0))
            # Targets move by up to half a pixel on each axis, onto the slide's own pixels, after their share is proven.
            moved = SAMPLING.target_mpp / SAMPLING.target_fov_um
            assert fraction >= anchor.min_target_tissue_fraction - moved
    assert samples.batch(0)["context"].shape == (4, 3, 128, 128)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_open_slides_are_bounded_and_stay_in_their_process(add_slide: SlideAdder) -> None:
    slides = [add_slide(name) for name in "abcde"]
    samples = CrossSamples(Anchors(slides, [(256, 256)]), PLAIN.model_copy(update={"max_open_slides": 2}), 0)
    for position in range(10):
        samples.sample(position)
    held = samples._handles()
    assert len(held.slides) == 2
    assert copy.copy(samples)._open is None  # what a spawned worker would be sent
    samples.close()
    assert len(held.slides) == 0


def test_pixels_that_cannot_be_read_are_an_error_and_never_blank(
    catalogue: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(*_: object, **__: object) -> SimpleNamespace:
        raise SlideError("a.png", "level 0, tile 7: it cannot be decoded", "Fetch the slide again.")

    monkeypatch.setattr("lamella.slides.slide.Slide.read", corrupt)
    samples = CrossSamples(catalogue, PLAIN, 0)
    for workers in (0, 1):
        with pytest.raises(SlideError, match="tile 7"):
            next(iter(batches(samples.batch, 0, 1, workers=workers)))


def test_a_slide_that_vanished_is_named(catalogue: Anchors) -> None:
    catalogue.index[0].wsi_path.unlink()
    samples = CrossSamples(Anchors(catalogue.index[:1]), PLAIN, 0)
    with pytest.raises(SlideError, match=r"a\.png"):
        samples.sample(0)
