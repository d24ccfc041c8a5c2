"""Mask2Former through transformers, as a segmenter: Swin, and the head of queries.

From scratch it is a backbone and a head like others. A checkpoint of transformers becomes one here.
"""

from __future__ import annotations

from lamella.models.decoders.mask2former import Mask2FormerHead, Mask2FormerSettings, own_settings, take_weights
from lamella.models.dense_contract import DenseContract
from lamella.models.mask2former_folder import local_folder, whole_network
from lamella.models.pyramids.swin import Swin, fresh_swin
from lamella.models.segmenter import Segmenter


def fresh_mask2former(
    settings: Mask2FormerSettings, contract: DenseContract, name: str = "mask2former", **swin: object
) -> Segmenter:
    """A segmenter with weights drawn from torch's random state.

    Args:
        settings: Of the head.
        contract: What it is shown, and its classes.
        name: For tables.
        **swin: Sizes of the backbone, as of `transformers.SwinConfig`.
    """
    backbone = fresh_swin(**swin)
    return Segmenter(backbone, Mask2FormerHead(settings, backbone.widths, len(contract.channels)), contract, name)


def load_mask2former(
    place: str,
    *,
    mpp: float | None,
    tile_px: int,
    channels: tuple[str, ...] | None = None,
    background: str | None = None,
) -> Segmenter:
    """A checkpoint of transformers as a segmenter.

    Args:
        place: A folder, or a hub id such as facebook/mask2former-swin-tiny-ade-semantic.
        mpp: Micrometres per pixel of the tiles; None where nobody knows.
        tile_px: Side of a tile.
        channels: Classes that it shall be trained for: the class layer is then drawn afresh. None keeps the
            checkpoint's own classes.
        background: The class that is "none of these".

    Raises:
        CheckpointError: It is none, is damaged, or has another backbone than Swin.
    """
    whole = whole_network(place)
    names = whole.config.id2label
    classes = channels or tuple(str(names[number]) for number in range(whole.config.num_labels))
    folder = local_folder(place)
    backbone = Swin(whole.model.pixel_level_module.encoder, f"that of {folder.name}")
    head = Mask2FormerHead(own_settings(whole.config, Mask2FormerSettings()), backbone.widths, len(classes))
    take_weights(head, whole, classes=channels is None)
    contract = DenseContract(
        classes, mpp, tile_px, backbone.multiple_px, background=background, licence=backbone.licence
    )
    segmenter = Segmenter(backbone, head, contract, folder.name)
    segmenter.requires_grad_(channels is not None)
    return segmenter
