"""One step of cross-resolution pretraining: ours against the plain way, at the same sizes and weights.

The plain way encodes every context token and selects afterwards (so targets leak into the context, which is why it is
no method of ours), and runs the predictor once per target with the context repeated. Teacher, loss and EMA are shared.

Prints one line for memory (growth of the peak of a process that takes only such steps) and one for time (medians of
steps taken in turns).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

from lamella.methods.cross_jepa import CrossJepa, CrossJepaSettings, smooth_l1_per_sample
from lamella.models.predictor import PredictorSettings
from lamella.models.vit import ViTSettings, patchify, token_centres_um
from lamella.slides.anchors.sampling import CrossSampling

# The shipped profile, but with free targets' largest footprint: K = 4 targets of 256 px in a context of 512 px.
SAMPLING = CrossSampling()
# Corners (um) of four targets off the patch grid on both axes: each touches 9 x 9 tokens.
CORNERS_UM = ((-231.0, -203.0), (83.0, -187.0), (-219.0, 41.0), (67.0, 91.0))
PEAK_RUNS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny", choices=["tiny", "small", "base"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak-of", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print(peak_bytes(arguments.peak_of, arguments.size, arguments.batch))
        return
    name = f"pretrain_step vit-{arguments.size} batch {arguments.batch}"
    # Memory first: a new process inherits the peak of the one that starts it, which must therefore still be small.
    peaks = {step: [peak_in_process(step, arguments) for _ in range(PEAK_RUNS)] for step in STEPS}
    ours, plain = (statistics.median(peaks[step]) / 2**20 for step in ("ours", "plain"))
    print(f"{name} peak memory: ours {ours:.0f} MiB, plain {plain:.0f} MiB, ratio {plain / ours:.2f}, n {PEAK_RUNS}")
    ours, plain = times(arguments.size, arguments.batch, arguments.repeats)
    print(f"{name} time: ours {ours:.2f} s, plain {plain:.2f} s, ratio {plain / ours:.2f}, n {arguments.repeats}")


def times(size: str, samples: int, repeats: int) -> tuple[float, float]:
    """Median seconds of a step of ours and of the plain way, taken in turns."""
    method, optimizer, batch = setup(size, samples)
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    for repeat in range(repeats + 1):
        for name, loss in STEPS.items():
            started = time.perf_counter()
            step(method, optimizer, batch, loss)
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return statistics.median(seconds["ours"]), statistics.median(seconds["plain"])


def peak_in_process(name: str, arguments: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--peak-of", name, "--size", arguments.size, "--batch", str(arguments.batch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_bytes(name: str, size: str, samples: int) -> int:
    """Growth of this process's peak resident memory over two steps."""
    method, optimizer, batch = setup(size, samples)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(method, optimizer, batch, STEPS[name])
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def setup(size: str, samples: int):
    torch.manual_seed(0)
    settings = CrossJepaSettings(encoder=ViTSettings.sized(size), predictor=PredictorSettings(width=192, depth=3))
    method = CrossJepa(settings, SAMPLING)
    optimizer = torch.optim.AdamW([weight for weight in method.parameters() if weight.requires_grad])
    return method, optimizer, make_batch(samples)


def make_batch(samples: int) -> dict[str, torch.Tensor]:
    grid, patch_um, half_um = SAMPLING.context_px // SAMPLING.patch_px, SAMPLING.patch_um, SAMPLING.context_fov_um / 2
    corners = torch.tensor(CORNERS_UM)
    boxes = torch.cat([corners, corners + SAMPLING.target_fov_um], dim=1)
    edges = torch.arange(grid) * patch_um - half_um
    touched = [(edges + patch_um > boxes[:, axis, None]) & (edges < boxes[:, axis + 2, None]) for axis in (0, 1)]
    footprint = (touched[1][:, :, None] & touched[0][:, None, :]).flatten(1)
    keep = (~footprint.any(0)).nonzero()[:, 0]
    tokens = torch.stack([row.nonzero()[:, 0] for row in footprint])
    targets = len(CORNERS_UM)
    pixels = (3, SAMPLING.target_px, SAMPLING.target_px)
    return {
        "context": torch.randint(0, 256, (samples, 3, SAMPLING.context_px, SAMPLING.context_px), dtype=torch.uint8),
        "targets": torch.randint(0, 256, (samples, targets, *pixels), dtype=torch.uint8),
        "context_keep": keep.expand(samples, -1),
        "context_pad": torch.zeros(samples, len(keep), dtype=torch.bool),
        "footprint": tokens.expand(samples, -1, -1),
        "footprint_pad": torch.zeros(samples, *tokens.shape, dtype=torch.bool),
        "target_boxes_um": boxes.expand(samples, -1, -1),
        "context_mpp": torch.full((samples,), SAMPLING.context_output_mpp),
        "target_mpp": torch.full((samples,), SAMPLING.target_output_mpp),
        "slide": torch.zeros(samples, dtype=torch.int64),
    }


def step(method, optimizer, batch, loss) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss(method, batch).backward()
    optimizer.step()
    method.after_step(0.5)


def loss_ours(method: CrossJepa, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return method(batch)[0]


def loss_plain(method: CrossJepa, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Encode all, select, and predict each target of each sample with its own copy of the context, jointly attended."""
    patch_px, predictor = method.settings.encoder.patch_px, method.predictor
    grid = batch["context"].shape[-1] // patch_px
    samples = torch.arange(len(batch["context"]))[:, None]
    xy_um = token_centres_um(grid, grid, patch_px * batch["context_mpp"])
    every = method.context_encoder(method.normalise(patchify(batch["context"], patch_px)), xy_um)
    context, context_xy_um = every[samples, batch["context_keep"]], xy_um[samples, batch["context_keep"]]
    target = method.encode_targets(batch)
    places_um = method._target_places_um(batch)
    B, K = places_um.shape[:2]
    queries = predictor._queries(places_um, patch_px * batch["target_mpp"]).flatten(0, 1)
    narrow = (predictor.narrow(context) + predictor.position(context_xy_um)).repeat_interleave(K, dim=0)
    tokens = torch.cat([narrow, queries], dim=1)
    for block in predictor.blocks:
        tokens = block(tokens)
    predicted = predictor.widen(predictor.norm(tokens[:, context.shape[1] :])).unflatten(0, (B, K))
    return smooth_l1_per_sample(predicted, target).mean()


STEPS = {"ours": loss_ours, "plain": loss_plain}

if __name__ == "__main__":
    main()
