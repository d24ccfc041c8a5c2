"""CLIP: images and texts in one space, through `transformers.CLIPModel`. OpenAI's, PLIP, and others of that format.

The library's image processor may need torchvision, so images are prepared here: bicubic, aspect kept.

Shapes: B images, T texts, C = 3 channels, S side of the square image, F width of the shared space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from lamella.errors import CheckpointError, LamellaError, first_line
from lamella.models.contract import check_images
from lamella.models.fingerprint import module_fingerprint
from lamella.models.named import PLACE_MARK
from lamella.models.registry import (
    CONFIG_FILE,
    OLD_WEIGHTS_FILE,
    PARTS,
    PARTS_INDEX,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    EncoderEntry,
    find_entry,
)
from lamella.models.transformers_folder import architecture_of, network_from, quiet
from lamella.models.weights import download, weights_file

Fit = Literal["pad", "crop"]
TOKENIZER_FILE, VOCABULARY_FILES = "tokenizer.json", ("vocab.json", "merges.txt")
_TEXT_FILES = (TOKENIZER_FILE, *VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json")
_CLASS_IN_REGISTRY = "CLIPVisionModelWithProjection"  # entries whose folders also hold the text tower
_COUNTERS = (r".*\bposition_ids$",)  # saved by old versions of transformers
# Configurations from before transformers 4.31 say 2; the end of a text is then found as its largest token.
_OLD_END = 2


@dataclass(frozen=True)
class ClipContract:
    """What the image tower is shown.

    Attributes:
        size_px: Side of the square image.
        mean: Of red, green and blue (0 to 1), subtracted inside.
        std: Divided by inside.
        licence: Of the weights.
    """

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str = "not stated in its folder"

    @property
    def gray(self) -> tuple[int, int, int]:
        """The colour that becomes 0 when it is normalised: what stands for "nothing here"."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue


class Clip(nn.Module):
    """A pair of towers with its tokenizer. Weights are frozen."""

    def __init__(self, network: Any, tokenizer: Any, contract: ClipContract, name: str) -> None:
        super().__init__()
        self.network, self.tokenizer, self.contract, self.name = network, tokenizer, contract, name
        self.register_buffer("mean_C11", 255 * torch.tensor(contract.mean)[:, None, None], persistent=False)
        self.register_buffer("std_C11", 255 * torch.tensor(contract.std)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    @property
    def dim(self) -> int:
        return int(self.network.config.projection_dim)

    @property
    def longest_text(self) -> int:
        """Most tokens of a text, its begin and end included."""
        return int(self.network.config.text_config.max_position_embeddings)

    @property
    def scale(self) -> float:
        """What similarities are multiplied with before the softmax; learnt in pretraining."""
        return float(self.network.logit_scale.detach().exp())

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the weights, the image preparation or the tokenizer."""
        words = json.dumps([self.tokenizer.get_vocab(), self.longest_text], sort_keys=True)
        facts = {
            "network": architecture_of(self.network),
            "contract": asdict(self.contract),
            "tokenizer": hashlib.sha256(words.encode()).hexdigest(),
        }
        return module_fingerprint(self.network, facts)

    def images(self, images_BCYX: Tensor) -> Tensor:
        """Embeddings of images, of length 1.

        Args:
            images_BCYX: uint8 (B, 3, S, S), as of `prepared`.

        Returns:
            (B, F) float32.

        Raises:
            ValueError: They are not uint8 of that size.
        """
        check_images(images_BCYX)
        side = self.contract.size_px
        if images_BCYX.shape[-2:] != (side, side):
            raise ValueError(f"images must be {side} x {side} px, not {tuple(images_BCYX.shape[-2:])}")
        x = (images_BCYX.float() - self.mean_C11) / self.std_C11
        pooled = self.network.vision_model(pixel_values=x).pooler_output
        return normalize(self.network.visual_projection(pooled).float(), dim=-1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, of length 1, (T, F) float32.

        Raises:
            LamellaError: A text is longer than the model reads; it is not cut, because its end would count nothing.
        """
        tokens = self.tokenizer(list(texts), padding=False, truncation=False)["input_ids"]
        for text, row in zip(texts, tokens, strict=True):
            if len(row) > self.longest_text:
                raise LamellaError(
                    f"text {text[:60]!r}...",
                    f"it is {len(row)} tokens long, and {self.name} reads {self.longest_text}",
                    "Shorten it; a text is never cut in silence.",
                )
        longest, end = max(map(len, tokens)), self.tokenizer.eos_token_id
        # Filled up with the end mark: attention looks back only, so what stands behind the first end changes nothing.
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in tokens], device=self.mean_C11.device)
        used = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens], device=ids.device)
        pooled = self.network.text_model(input_ids=ids, attention_mask=used).pooler_output
        return normalize(self.network.text_projection(pooled).float(), dim=-1)

    def prepared(self, shown: Sequence[np.ndarray], fit: Fit = "pad") -> Tensor:
        """Pictures of any size as one batch, uint8 (B, 3, S, S).

        Args:
            shown: uint8 (h, w, 3) each.
            fit: `pad` scales the longer side and leaves gray around it: all of the region is seen. `crop` scales the
                shorter side and cuts the middle out, as CLIP's own preparation does.
        """
        side, gray = self.contract.size_px, self.contract.gray
        squares = np.stack([_square(pixels, side, fit, gray) for pixels in shown])
        return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous().to(self.mean_C11.device)

    def random_twin(self, seed: int) -> Clip:
        """The same architecture and tokenizer with weights drawn from this seed, on the same device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            twin = Clip(type(self.network)(self.network.config), self.tokenizer, self.contract, f"{self.name}-random")
        return twin.to(self.mean_C11.device)


def load_clip(spec: str | Path) -> Clip:
    """Load a CLIP model.

    Args:
        spec: A folder (config.json, weights, preprocessor_config.json, tokenizer); a name that `lamella encoders`
            lists (`clip-vit-base-patch32`, `plip`) or any hub id; such a name, `@`, and the downloaded folder.

    Raises:
        CheckpointError: There is no such model; a file is missing or damaged; weights, sizes or the tokenizer do not
            belong together. Nothing is put in the place of what is missing.
    """
    folder, entry, name = _place(str(spec))
    from transformers import CLIPModel  # seconds; needs no torchvision

    network = network_from(folder, CLIPModel, model_types=("clip",), unused=_COUNTERS)
    tokenizer = _tokenizer(folder, network)
    mean, std = _normalisation(folder, entry)
    size_px = int(network.config.vision_config.image_size)
    contract = ClipContract(size_px, mean, std, entry.licence if entry else ClipContract.licence)
    clip = Clip(network, tokenizer, contract, name)
    _try(clip, folder)
    return clip


def _place(spec: str) -> tuple[Path, EncoderEntry | None, str]:
    """The folder of a model, what the registry says of it, and its name."""
    if (Path(spec) / CONFIG_FILE).is_file():
        return Path(spec), None, Path(spec).name or "clip"
    name, at, place = spec.partition(PLACE_MARK)
    entry = find_entry(name)
    if entry is not None and entry.architecture != _CLASS_IN_REGISTRY:
        raise CheckpointError(name, "it has no text tower", "Give clip-vit-base-patch32, plip, or a folder of CLIP.")
    if at:
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise CheckpointError(folder, "there is no such folder", f"Give the folder that holds {CONFIG_FILE}.")
        return folder, entry, name
    hub_id = entry.hub_id if entry else spec
    if Path(spec).is_dir():
        raise CheckpointError(spec, f"it has no {CONFIG_FILE}", "Give the whole downloaded folder.")
    if hub_id.count("/") != 1 or hub_id[0] in "./~":
        raise CheckpointError(
            spec, "there is no such folder or model", "Give a folder, a hub id such as owner/name, or plip."
        )
    remedy = f"Check the network; or download it elsewhere and give {name}{PLACE_MARK}/path/to/folder."
    files = (CONFIG_FILE, PREPROCESSOR_FILE, *_TEXT_FILES)
    folder = download(hub_id, (*files, WEIGHTS_FILE, PARTS, PARTS_INDEX), remedy)
    if weights_file(folder) is None:
        folder = download(hub_id, (*files, OLD_WEIGHTS_FILE), remedy)
    return folder, entry, entry.name if entry else hub_id.rpartition("/")[2]


def _tokenizer(folder: Path, network: Any) -> Any:
    """The tokenizer of a folder. The library makes one of three words where the files are missing; here that fails."""
    from transformers import CLIPTokenizer

    has = [name for name in (TOKENIZER_FILE, *VOCABULARY_FILES) if (folder / name).is_file()]
    if TOKENIZER_FILE not in has and len(has) < len(VOCABULARY_FILES):
        missing = " and ".join(name for name in VOCABULARY_FILES if name not in has)
        raise CheckpointError(folder, f"its tokenizer is missing ({missing})", "Download the whole folder.")
    try:
        with quiet():
            tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exceptions of its own
        raise CheckpointError(
            folder, f"its tokenizer cannot be read ({first_line(error)})", "Download it again."
        ) from error
    config = network.config.text_config
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            folder,
            f"its tokenizer has {len(tokenizer)} tokens, and the text tower {config.vocab_size}",
            "Give tokenizer and weights of one model.",
        )
    end = tokenizer.eos_token_id
    if config.eos_token_id not in (end, _OLD_END):
        raise CheckpointError(
            folder,
            f"its tokenizer ends a text with token {end}, and the text tower looks for {config.eos_token_id}",
            "Give tokenizer and weights of one model.",
        )
    if config.eos_token_id == _OLD_END != end and end != max(tokenizer.get_vocab().values()):
        raise CheckpointError(
            folder,
            f"{CONFIG_FILE} is of an old kind, for which the end of a text must be the last token ({end} is not)",
            f"State text_config.eos_token_id in {CONFIG_FILE}.",
        )
    return tokenizer


def _normalisation(
    folder: Path, entry: EncoderEntry | None
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation that the folder states, else those of the registry."""
    path = folder / PREPROCESSOR_FILE
    if not path.is_file():
        if entry is None:
            raise CheckpointError(
                folder,
                f"it has no {PREPROCESSOR_FILE}, which says how images are normalised",
                f"Download the whole folder, or give NAME{PLACE_MARK}{folder} with a name of `lamella encoders`.",
            )
        return entry.mean, entry.std
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        mean, std = (tuple(float(part) for part in tree[key]) for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and deviation of three channels are needed")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Download it again.") from error
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


@torch.no_grad()
def _try(clip: Clip, folder: Path) -> None:
    """One image and one text through both towers: what comes out must be numbers."""
    side = clip.contract.size_px
    image = clip.images(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    if not (image.isfinite().all() and clip.texts(["tissue"]).isfinite().all() and clip.network.logit_scale.isfinite()):
        raise CheckpointError(folder, "it makes embeddings that are not numbers", "Copy the weights again.")


def _square(pixels_YXC: np.ndarray, side: int, fit: Fit, gray: tuple[int, int, int]) -> np.ndarray:
    """(S, S, 3) uint8 with the aspect kept, by the bicubic filter that CLIP was trained with."""
    height, width = pixels_YXC.shape[:2]
    reference = min(height, width) if fit == "crop" else max(height, width)
    # Cut, not rounded, as CLIP's own preparation has it.
    rows, columns = (max(1, side * length // reference) for length in (height, width))
    image = Image.fromarray(np.ascontiguousarray(pixels_YXC)).resize((columns, rows), Image.Resampling.BICUBIC)
    scaled = np.asarray(image)
    top, left = (abs(length - side) // 2 for length in (rows, columns))
    if fit == "crop":
        return scaled[top : top + side, left : left + side]
    square = np.empty((side, side, 3), np.uint8)
    square[...] = gray
    square[top : top + rows, left : left + columns] = scaled
    return square
