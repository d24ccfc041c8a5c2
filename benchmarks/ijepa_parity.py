"""Does a predictor that processes the context once learn as good features as the textbook's, which repeats it?

Trains I-JEPA on the training images of PneumoniaMNIST twice per seed, from the same weights on the same crops and
masks: with our predictor, and with the textbook's, where the context is repeated for every target and context tokens
attend to the queries of their copy. Then a linear probe on the frozen features (standardised; regularisation chosen on
the validation images): area under the ROC curve on the test images, beside that of the untrained encoder.

    python benchmarks/ijepa_parity.py ../shared/data/classification/pneumoniamnist.npz [--steps 600] [--seeds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lamella.data.images import ImageDataSettings, TrainingImages, prepared
from lamella.data.masked_images import MaskedImages, MaskedImageSettings
from lamella.engine.optim import OptimSettings, adamw, set_rates
from lamella.imaging.datasets.opening import open_collection
from lamella.methods.ijepa import IJepa, IJepaSettings
from lamella.models.encoders import InputContract
from lamella.models.predictor import Predictor, PredictorSettings
from lamella.models.vit import ViTSettings

SIZE_PX, PATCH_PX = 28, 4
# A few hundred thousand weights: minutes on two cores. Waves from two patches to four images.
ENCODER = ViTSettings(patch_px=PATCH_PX, dim=96, depth=4, heads=4, wave_min=8, wave_max=112)
PREDICTOR = PredictorSettings(width=48, depth=3, heads=4)
# I-JEPA's schedule; a shorter run needs a faster teacher than 0.996 at its start.
OPTIM = OptimSettings(lr=1e-3, lr_start=2e-4, lr_end=1e-6, weight_decay=0.04, weight_decay_end=0.4)
EMA_START = 0.99
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1)


class RepeatedContext(Predictor):
    """The textbook's predictor, with the same weights: one sequence of context and queries per target."""

    def forward(
        self,
        context_BND: Tensor,
        context_places_BNC: Tensor,
        query_places_BKQC: Tensor,
        query_um_B: Tensor | None = None,
        context_pad_BN: Tensor | None = None,
        query_pad_BKQ: Tensor | None = None,
        *,
        mask_token: int = 0,
    ) -> Tensor:
        targets, queries = query_places_BKQC.shape[1:3]
        context = (self.narrow(context_BND) + self.position(context_places_BNC)).repeat_interleave(targets, 0)
        asked = (self.mask_token[mask_token] + self.position(query_places_BKQC)).flatten(0, 1)
        tokens = torch.cat([context, asked], 1)
        pad = torch.cat([context_pad_BN.repeat_interleave(targets, 0), query_pad_BKQ.flatten(0, 1)], 1)
        for block in self.blocks:
            q, k, v = block.queries_keys_values(tokens)
            tokens = block.finish(tokens, F.scaled_dot_product_attention(q, k, v, attn_mask=~pad[:, None, None]))
        return self.widen(self.norm(tokens[:, -queries:])).unflatten(0, (-1, targets))


def make_method(images: TrainingImages, seed: int, *, repeated: bool) -> IJepa:
    torch.manual_seed(seed)
    mean, std = images.colour()
    contract = InputContract(None, SIZE_PX, mean, std, PATCH_PX, ENCODER.dim)
    method = IJepa(IJepaSettings(encoder=ENCODER, predictor=PREDICTOR, ema_start=EMA_START), contract)
    if repeated:
        method.predictor.__class__ = RepeatedContext
    return method


def train(method: IJepa, samples: MaskedImages, steps: int) -> float:
    """Seconds."""
    optimizer, started = adamw(method, OPTIM), time.perf_counter()
    for step in range(steps):
        set_rates(optimizer, step / steps, OPTIM)
        optimizer.zero_grad(set_to_none=True)
        method(samples.batch(step))[0].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        method.after_step((step + 1) / steps)
    return time.perf_counter() - started


def features(method: IJepa, pixels: Tensor) -> np.ndarray:
    encoder = method.encoder()
    return torch.cat([encoder.pooled(part) for part in pixels.split(256)]).numpy()


def auc(method: IJepa, parts: dict[str, tuple[Tensor, np.ndarray]]) -> float:
    """On the test images, of the probe that does best on the validation images."""
    scaler = StandardScaler().fit(features(method, parts["train"][0]))
    x = {name: scaler.transform(features(method, pixels)) for name, (pixels, _) in parts.items()}
    probes = [LogisticRegression(C=c, max_iter=2000).fit(x["train"], parts["train"][1]) for c in STRENGTHS]
    best = max(probes, key=lambda probe: roc_auc_score(parts["val"][1], probe.decision_function(x["val"])))
    return float(roc_auc_score(parts["test"][1], best.decision_function(x["test"])))


def read(path: Path, settings: ImageDataSettings) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Pixels (N, 3, Y, X) and 0 or 1 for each split."""
    collection, found = open_collection(path), {}
    for split in ("train", "val", "test"):
        items = [item for item in collection.items if item.split == split]
        pixels = np.stack([prepared(collection.read(item), settings) for item in items]).transpose(0, 3, 1, 2)
        labels = np.array([collection.classes.index(item.labels[0]) for item in items])
        found[split] = (torch.from_numpy(np.ascontiguousarray(pixels)), labels)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    settings = ImageDataSettings(size_px=SIZE_PX, batch_size=arguments.batch)
    parts, collection = read(arguments.path, settings), open_collection(arguments.path)
    differences = []
    for seed in range(arguments.seeds):
        images = TrainingImages([collection], settings, seed)
        samples = MaskedImages(images, MaskedImageSettings(), SIZE_PX, PATCH_PX)
        found, seconds = {"untrained": auc(make_method(images, seed, repeated=False), parts)}, {}
        for name in ("ours", "textbook"):
            method = make_method(images, seed, repeated=name == "textbook")
            seconds[name] = train(method, samples, arguments.steps)
            found[name] = auc(method, parts)
        differences.append(found["ours"] - found["textbook"])
        print(
            f"ijepa_parity seed {seed}: AUC ours {found['ours']:.4f}, textbook {found['textbook']:.4f}, untrained "
            f"{found['untrained']:.4f}; training {seconds['ours']:.0f} s and {seconds['textbook']:.0f} s",
            flush=True,
        )
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    print(
        f"ijepa_parity {arguments.steps} steps of {arguments.batch}: AUC ours minus textbook "
        f"{statistics.mean(differences):+.4f}, deviation over seeds {spread:.4f}, n {arguments.seeds}"
    )


if __name__ == "__main__":
    main()
