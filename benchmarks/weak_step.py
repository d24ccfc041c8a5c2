"""One step of stage 3 of weak segmentation: ours against a plain loop over the scales, as the authors of PBIP write it.

The plain loop compares every scale with every prototype on copied, normalised features, merges prototypes class by
class, takes the loss of every scale (also those of weight 0), and contrasts region by region. Images, weights, losses
and gradients are the same: the gradients are compared before anything is timed.

Prints for each backbone one line for memory (growth of the peak of a process that takes only such steps) and one for
time (medians of steps taken in turns).
"""

from __future__ import annotations

import argparse
import atexit
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.methods.weak import WeakMethod
from lamella.methods.weak_losses import WeakLossSettings, bounded
from lamella.models.prototypes import Prototypes
from lamella.models.pyramids.memory import LevelMemory
from lamella.models.weak_building import make_weak_model
from lamella.models.weak_settings import WeakModelSettings

CLASSES, PROTOTYPES_EACH, DIM = ("benign", "tumour", "stroma", "necrosis"), 3, 512
# PBIP's own backbone, trained whole or frozen, and the one that this package begins with. "remembered": as stage 3 runs
# with a frozen backbone, whose features are read again from disk from a tile's second visit on.
BACKBONES: dict[str, dict[str, Any]] = {
    "mit-b0, whole": {"backbone": {"name": "segformer", "size": "b0", "train": "whole"}, "from_scratch": True},
    "mit-b0, frozen": {"backbone": {"name": "segformer", "size": "b0", "train": "frozen"}, "from_scratch": True},
    "efficientnet, frozen": {"backbone": {"name": "efficientnet", "train": "frozen"}},
    "efficientnet, remembered": {"backbone": {"name": "efficientnet", "train": "frozen"}},
}
PEAK_RUNS = 2
# Of a gradient, over the norm of all: sums in another order; what is remembered has half precision.
LARGEST_DIFFERENCE = 1e-2
MEMORY_GB = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=10, help="PBIP's")
    parser.add_argument("--tile-px", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backbone", choices=list(BACKBONES), default=None, help="all by default")
    parser.add_argument("--peak-of", choices=list(LOSSES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print(peak_bytes(arguments))
        return
    chosen = tuple(BACKBONES) if arguments.backbone is None else (arguments.backbone,)
    # Memory first: a process inherits the peak of the one that starts it, which must therefore still be small.
    for backbone in chosen:
        peaks = {step: [peak_in_process(step, backbone, arguments) for _ in range(PEAK_RUNS)] for step in LOSSES}
        ours, plain = (statistics.median(peaks[step]) / 2**20 for step in ("ours", "plain"))
        print(f"{named(backbone, arguments)} peak memory: ours {ours:.0f} MiB, plain {plain:.0f} MiB, "
              f"ratio {plain / ours:.2f}, n {PEAK_RUNS}", flush=True)  # fmt: skip
    for backbone in chosen:
        arguments.backbone = backbone
        method, batch = setup(arguments)
        difference = gradient_difference(method, batch)
        if difference > LARGEST_DIFFERENCE:
            raise SystemExit(f"{backbone}: the gradients differ by {difference:.1e}")
        ours, plain = times(method, batch, arguments.repeats)
        print(f"{named(backbone, arguments)} time: ours {ours:.3f} s, plain {plain:.3f} s, ratio {plain / ours:.2f}, "
              f"n {arguments.repeats}, gradients differ by {difference:.0e}", flush=True)  # fmt: skip


def named(backbone: str, arguments: argparse.Namespace) -> str:
    return f"weak_step {backbone}, batch {arguments.batch} of {arguments.tile_px} px"


def setup(arguments: argparse.Namespace) -> tuple[WeakMethod, dict[str, Tensor]]:
    """The method with upstream's choices (no offsets, prototypes merged by the mean) and a batch."""
    generator = torch.Generator().manual_seed(0)
    names = (*CLASSES, "background")
    k_list = (PROTOTYPES_EACH,) * len(names)
    features = F.normalize(torch.randn(sum(k_list), DIM, generator=generator), dim=1)
    model = make_weak_model(
        WeakModelSettings.model_validate(BACKBONES[arguments.backbone]),
        Prototypes(features, names, k_list, "none", "0"),
        classes=CLASSES,
        background="background",
        mpp=0.5,
        tile_px=arguments.tile_px,
    )
    memory = None
    if arguments.backbone.endswith("remembered"):
        folder = tempfile.mkdtemp(prefix="weak_step_")
        atexit.register(shutil.rmtree, folder)
        memory = LevelMemory(model.backbone, Path(folder), MEMORY_GB)
    method = WeakMethod(model, WeakLossSettings(), memory=memory).train()
    model.backbone.eval()  # nothing is dropped at random: both ways must see the same
    B, side = arguments.batch, arguments.tile_px
    label = (torch.rand(B, len(names), generator=generator) < 0.5).float()
    image = torch.randint(0, 256, (B, 3, side, side), generator=generator).to(torch.uint8)
    return method, {"image": image, "label": label, "known": torch.ones_like(label)}


def loss_ours(method: WeakMethod, batch: dict[str, Tensor]) -> Tensor:
    return method(batch)[0]


def loss_plain(method: WeakMethod, batch: dict[str, Tensor]) -> Tensor:
    """The same loss, scale by scale, class by class and region by region."""
    model, loss = method.model, method.loss
    scores = model.scores
    levels = model.backbone(batch["image"])
    class_maps, features, prototypes = [], [], []
    for number, level in enumerate(levels):
        lifted = scores.lifts[number](level)
        B, C, h, w = lifted.shape
        rows = lifted.permute(0, 2, 3, 1).reshape(-1, C)
        rows = rows / rows.norm(dim=-1, keepdim=True)
        adapted = scores.adapters[number](scores.prototypes_KD)
        adapted = adapted / adapted.norm(dim=-1, keepdim=True)
        maps = (scores.factor_S[number] * rows @ adapted.t()).view(B, h, w, -1).permute(0, 3, 1, 2)
        merged, start = [], 0
        for name, k in enumerate(scores.k_list):
            merged.append(maps[:, start : start + k].mean(1) + scores.offset_SM[number, name])
            start += k
        class_maps.append(torch.stack(merged, dim=1))
        features.append(lifted)
        prototypes.append(adapted)
    total = torch.zeros(())
    for maps, weight in zip(class_maps, method.scale_weights, strict=True):
        logits = F.adaptive_avg_pool2d(maps, (1, 1)).flatten(1)
        total = total + weight * F.binary_cross_entropy_with_logits(logits, batch["label"])
    evidence = sum(
        weight * F.interpolate(maps.sigmoid(), class_maps[1].shape[-2:], mode="bilinear", align_corners=False)
        for maps, weight in zip(class_maps, model.fuse_weights, strict=True)
    )
    assert isinstance(evidence, Tensor)
    steps = [(evidence[..., 1:, :] - evidence[..., :-1, :]), (evidence[..., 1:] - evidence[..., :-1])]
    total = total + loss.total_variation * sum(each.abs().mean() for each in steps)
    total = total + loss.sparsity * evidence.abs().mean()
    marked, left = contrast_plain(method, class_maps[-1], features[-1], prototypes[-1], batch["label"])
    return total + loss.contrast.weight * (loss.contrast.foreground * marked + loss.contrast.background * left)


def contrast_plain(
    method: WeakMethod, maps: Tensor, features: Tensor, prototypes: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    settings, class_of_K = method.loss.contrast, method.model.scores.class_of_K
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])
    for tile, name in torch.nonzero(label).tolist():
        mask = bounded(maps[tile, name][None], settings.bound)[0]
        over = mask.detach() >= settings.threshold * mask.detach().max()
        own = prototypes[class_of_K == name], prototypes[class_of_K != name]
        for kind, weights in enumerate((mask * over, (1 - mask) * ~over)):
            if weights.detach().sum() <= 1e-6:
                continue
            query = (features[tile] * weights).sum((1, 2)) / weights.sum()
            near, far = own[kind], own[1 - kind]
            best = F.cosine_similarity(query[None], near).max() / settings.temperature
            others = F.cosine_similarity(query[None], far) / settings.temperature
            losses[kind].append(torch.cat([best[None], others]).logsumexp(0) - best)
    marked, left = (torch.stack(each).mean() for each in losses)
    return marked, left


LOSSES: dict[str, Callable[[WeakMethod, dict[str, Tensor]], Tensor]] = {"ours": loss_ours, "plain": loss_plain}


def gradient_difference(method: WeakMethod, batch: dict[str, Tensor]) -> float:
    """Norm of the difference of the two ways' gradients over the norm of one."""
    found = {}
    for name, loss in LOSSES.items():
        method.zero_grad(set_to_none=True)
        loss(method, batch).backward()
        found[name] = {
            key: torch.zeros_like(each) if each.grad is None else each.grad.clone()
            for key, each in method.named_parameters()
        }
    norm = sum(each.square().sum() for each in found["plain"].values()) ** 0.5
    apart = sum((found["ours"][key] - each).square().sum() for key, each in found["plain"].items()) ** 0.5
    return float(apart / norm)


def times(method: WeakMethod, batch: dict[str, Tensor], repeats: int) -> tuple[float, float]:
    """Median seconds of a step of ours and of the plain way, taken in turns."""
    optimizer = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], lr=1e-5)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for repeat in range(repeats + 1):
        for name, loss in LOSSES.items():
            started = time.perf_counter()
            step(method, optimizer, batch, loss)
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return statistics.median(seconds["ours"]), statistics.median(seconds["plain"])


def step(method, optimizer, batch, loss) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss(method, batch).backward()
    optimizer.step()


def peak_in_process(name: str, backbone: str, arguments: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--peak-of", name, "--backbone", backbone]
    command += ["--batch", str(arguments.batch), "--tile-px", str(arguments.tile_px)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_bytes(arguments: argparse.Namespace) -> int:
    """Growth of this process's peak resident memory over two steps."""
    method, batch = setup(arguments)
    optimizer = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], lr=1e-5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(method, optimizer, batch, LOSSES[arguments.peak_of])
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main()
