"""A dense model at work: on its device, in its precision, tile by tile into a mosaic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lamella.dense.blending import BlendSettings, window
from lamella.dense.mosaic import Mosaic, Taker
from lamella.dense.tiling import Tiling
from lamella.dense.turning import averaged_maps
from lamella.errors import LamellaError
from lamella.models.dense_contract import DenseModel


@dataclass(frozen=True)
class Runtime:
    """How a model is run. It changes speed and rounding, nothing else.

    Attributes:
        device: Where the weights are and the tiles are blended.
        batch_size: Tiles shown at once.
        threads: Tiles decoded at once.
        bf16: Compute in bf16 where autocast does.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 8
    threads: int = 2
    bf16: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def device_of(model: DenseModel) -> torch.device:
    """Where the model's weights are; the CPU for a model without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def tile_side(model: DenseModel, tile_px: int | None = None) -> int:
    """Side of a tile in image pixels: the asked one, or the model's own.

    Raises:
        LamellaError: The model cannot take tiles of this size, or its maps have no whole number of pixels.
    """
    contract = model.contract
    side = contract.tile_px if tile_px is None else tile_px
    if side < 1 or side % contract.multiple_px or side % contract.stride:
        raise LamellaError(
            f"tiles of {side} px",
            f"{model.name} takes sides that are multiples of {contract.multiple_px} px"
            + (f" and of its stride, {contract.stride}" if contract.stride > 1 else ""),
            f"Set tile_px to such a number; its own is {contract.tile_px}.",
        )
    return side


def blend(
    model: DenseModel,
    batches: Iterable[Tensor],
    tiling: Tiling,
    settings: BlendSettings,
    taker: Taker,
    runtime: Runtime,
    *,
    first_row: int = 0,
    first_tile: int = 0,
) -> None:
    """Show a model the tiles and hand the blended maps on.

    Args:
        model: On the runtime's device.
        batches: uint8 (B, 3, H, H) images of the tiling's tiles, in its order.
        tiling: Of the maps' raster.
        settings: Window and turned copies.
        taker: Gets what is finished.
        runtime: Device and precision.
        first_row: Row of tiles to begin with.
        first_tile: Number of the first tile in `batches`; tiles above `first_row` are not laid.

    Raises:
        LamellaError: The model's maps have another shape than its contract says.
    """
    side, channels = tiling.side, len(model.contract.channels)
    weights = window(settings.window, side)
    mosaic = Mosaic(tiling, channels, weights, taker, first_row=first_row, device=runtime.device)
    with torch.no_grad():
        for images in batches:
            with runtime.autocast():
                maps = averaged_maps(model.maps, images.to(runtime.device, non_blocking=True), settings.tta)
            if tuple(maps.shape) != (len(images), channels, side, side):
                raise LamellaError(
                    model.name,
                    f"its maps are {tuple(maps.shape)}, not {(len(images), channels, side, side)} as its contract says",
                    "Mend the model, or its contract.",
                )
            with _one_thread(runtime.device):
                for number, tile in enumerate(tiling.tiles(first_tile, first_tile + len(images))):
                    if tile.row >= first_row:
                        mosaic.add(tile, maps[number])
            first_tile += len(images)
        with _one_thread(runtime.device):
            mosaic.finish()


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Blend on one core: its pieces are too small to share, and the other cores read, compress and write meanwhile."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
