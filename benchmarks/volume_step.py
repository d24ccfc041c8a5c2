"""One training step of the volume method: ViT-S, patches of 8 x 16 x 16, crops of 64 x 128 x 128, batch 2.

With and without activation checkpointing, each in a process of its own. Prints the growth of the process's peak
resident memory over its steps (activations, gradients and Adam's moments; the latter two are the same either way, and
are printed for themselves) and the median seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from lamella.data.mask_sets import MaskSetsSettings, mask_batch
from lamella.methods.space_time import VolumeSettings, space_time_jepa
from lamella.models.volume_encoder import VolumeContract
from lamella.models.volume_vit import grid_of

CROP = (64, 128, 128)
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["plain", "checkpointing"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measured(arguments.only == "checkpointing", arguments.batch, arguments.repeats)))
        return
    plain, spared = (in_process(kind, arguments) for kind in ("plain", "checkpointing"))
    name = f"volume_step vit-s 8x16x16 crop 64x128x128 batch {arguments.batch}"
    print(
        f"{name} peak memory: plain {plain['grown_mib']:.0f} MiB, checkpointing {spared['grown_mib']:.0f} MiB, ratio "
        f"{plain['grown_mib'] / spared['grown_mib']:.2f}; of it {plain['kept_mib']:.0f} MiB are gradients and moments, "
        f"so activations {plain['grown_mib'] - plain['kept_mib']:.0f} and "
        f"{spared['grown_mib'] - spared['kept_mib']:.0f}"
    )
    print(
        f"{name} time: plain {plain['seconds']:.2f} s, checkpointing {spared['seconds']:.2f} s, ratio "
        f"{spared['seconds'] / plain['seconds']:.2f}, n {arguments.repeats}; {plain['context']:.0f} context and "
        f"{plain['hidden']:.0f} hidden tokens per mask set, of {plain['tokens']}"
    )


def in_process(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", kind, "--batch", str(arguments.batch)]
    command += ["--repeats", str(arguments.repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(checkpointing: bool, samples: int, repeats: int) -> dict[str, float]:
    """Growth of the peak over the steps, what of it stays between steps, and the median seconds of a step."""
    torch.manual_seed(SEED)
    settings = VolumeSettings(checkpointing=checkpointing)
    patch, dim = settings.encoder.patch, settings.encoder.dim
    method = space_time_jepa(settings, VolumeContract("volume", 1, CROP, patch, dim, spacing_mm=(2.0, 1.0, 1.0)))
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    voxels = torch.randn(samples, 1, *CROP, generator=torch.Generator().manual_seed(SEED))
    batch = {"voxels": voxels, **mask_batch(MaskSetsSettings(), grid_of(CROP, patch), SEED, range(samples))}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss, logs = method(batch)
        loss.backward()
        optimizer.step()
        method.after_step(0.5)
        if repeat:  # the first step warms up and makes the moments
            seconds.append(time.perf_counter() - started)
    weights_bytes = sum(weight.nbytes for weight in trained)
    return {
        "seconds": statistics.median(seconds),
        "grown_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10,
        "kept_mib": 3 * weights_bytes / 2**20,  # gradients, and two moments
        "context": float(logs["context_keep_tokens"]),
        "hidden": float(logs["target_predict_tokens"]),
        "tokens": voxels.numel() // samples // (patch[0] * patch[1] * patch[2]),
    }


if __name__ == "__main__":
    main()
