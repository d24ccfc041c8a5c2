"""One training step of I-JEPA (forward, backward, AdamW, moving average): ours against the textbook's.

The textbook encodes the context's tokens with one encoder and the full image with the other, like ours, and runs the
predictor once per target with the context repeated: B * K sequences of context and queries. Its moving average and its
optimiser go weight by weight, as the released code's do. Weights, masks and attention kernels are shared.

What differs in the result: in the textbook's predictor the context tokens attend to the queries of their copy, in ours
they attend to each other alone, which is what lets one pass serve all targets. Before anything is timed, the textbook
is run with that one direction masked, and must then give our loss and our gradients; the loss of the unmasked textbook
is printed beside.

Two sets of masks: ours as drawn (ragged, so both ways pad), and with every set cut to the shortest of the batch, as the
released code does, so that neither way pads.

    python benchmarks/ijepa_step.py [--threads 2]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F

from lamella.data.masks.kinds import draw_masks
from lamella.data.masks.multiblock import MultiBlockMaskSettings
from lamella.engine.optim import OptimSettings, adamw
from lamella.methods.ijepa import IJepa, IJepaSettings
from lamella.models.encoders import InputContract
from lamella.models.vit import Block, ViTSettings, patchify, token_centres_um

SIZE_PX, PATCH_PX = 224, 16
GRID = (SIZE_PX // PATCH_PX, SIZE_PX // PATCH_PX)
MOMENTUM = 0.998
Batch = dict[str, torch.Tensor]


def make_method(size: str) -> IJepa:
    torch.manual_seed(0)
    encoder = ViTSettings.sized(size)
    contract = InputContract(None, SIZE_PX, (0.5,) * 3, (0.25,) * 3, PATCH_PX, encoder.dim)
    return IJepa(IJepaSettings(encoder=encoder, ema_start=MOMENTUM, ema_end=MOMENTUM), contract)


def make_batch(samples: int, seed: int, even: bool) -> Batch:
    image = torch.randint(0, 256, (samples, 3, SIZE_PX, SIZE_PX), generator=torch.Generator().manual_seed(seed))
    arrays = draw_masks(MultiBlockMaskSettings(), GRID, seed, range(samples)).arrays()
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if even:
        for name in ("context", "targets"):
            shortest = int((~batch[f"{name}_pad"]).sum(-1).min())
            batch |= {key: batch[key][..., :shortest] for key in (name, f"{name}_pad")}
    return {"image": image.to(torch.uint8), **batch}


# ---- the textbook ---------------------------------------------------------------------------------------------------


def textbook_loss(method: IJepa, batch: Batch, *, joint: bool = True) -> torch.Tensor:
    """The loss with one predictor sequence per target; `joint=False` keeps the context from seeing the queries."""
    places = token_centres_um(*GRID, PATCH_PX)
    patches = method.normalise(patchify(batch["image"], PATCH_PX))
    samples = torch.arange(len(patches))[:, None]
    with torch.no_grad():
        target = method.target_encoder(patches, places[None])
        target = F.layer_norm(target.float(), target.shape[-1:])[samples[..., None], batch["targets"]]
    context_places = places[batch["context"]]
    context = method.context_encoder(patches[samples, batch["context"]], context_places, batch["context_pad"])
    predictor, (_, targets, queries) = method.predictor, batch["targets"].shape
    narrow = (predictor.narrow(context) + predictor.position(context_places)).repeat_interleave(targets, dim=0)
    asked = predictor.mask_token[0] + predictor.position(places[batch["targets"]]).flatten(0, 1)
    tokens = torch.cat([narrow, asked.to(narrow.dtype)], dim=1)
    seen = keys_seen(batch, joint)
    for block in predictor.blocks:
        tokens = attended(block, tokens, seen)
    predicted = predictor.widen(predictor.norm(tokens[:, -queries:])).unflatten(0, (-1, targets)).float()
    keep = ~batch["targets_pad"]
    distance = F.smooth_l1_loss(predicted, target, reduction="none").mean(-1) * keep
    return (distance.sum((1, 2)) / keep.sum((1, 2))).mean()


def attended(block: Block, tokens: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    queries, keys, values = block.queries_keys_values(tokens)
    return block.finish(tokens, F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen))


def keys_seen(batch: Batch, joint: bool) -> torch.Tensor | None:
    """(B * K, 1, 1 or N + Q, N + Q) True where a key may be seen; None where all are."""
    targets, queries = batch["targets"].shape[1:]
    context = batch["context"].shape[1]
    pad = torch.cat([batch["context_pad"].repeat_interleave(targets, 0), batch["targets_pad"].flatten(0, 1)], 1)
    if joint:
        return ~pad[:, None, None] if pad.any() else None
    seen = (~pad[:, None, None]).repeat(1, 1, context + queries, 1)
    seen[:, :, :context, context:] = False
    return seen


def textbook_average(method: IJepa) -> None:
    with torch.no_grad():
        pairs = zip(method.target_encoder.parameters(), method.context_encoder.parameters(), strict=True)
        for slow, fast in pairs:
            slow.mul_(MOMENTUM).add_((1 - MOMENTUM) * fast.detach())


# ---- steps ----------------------------------------------------------------------------------------------------------


def check(method: IJepa, batch: Batch) -> tuple[float, float]:
    """Ours equals the textbook with one direction of attention masked, in loss and gradients; returns both losses."""
    gradients, losses = [], []
    for loss in (method(batch)[0], textbook_loss(method, batch, joint=False)):
        method.zero_grad(set_to_none=True)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([weight.grad.flatten() for weight in method.parameters() if weight.requires_grad]))
    assert abs(losses[0] / losses[1] - 1) < 1e-5, losses
    error = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    assert error < 1e-3, error
    with torch.no_grad():
        return losses[0], textbook_loss(method, batch).item()


class Ours:
    def __init__(self, size: str) -> None:
        self.method = make_method(size)
        self.optimizer = adamw(self.method, OptimSettings())

    def loss(self, batch: Batch) -> torch.Tensor:
        return self.method(batch)[0]

    def average(self) -> None:
        self.method.after_step(0.5)


class Textbook(Ours):
    def __init__(self, size: str) -> None:
        super().__init__(size)
        trained = [weight for weight in self.method.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=2e-5)

    def loss(self, batch: Batch) -> torch.Tensor:
        return textbook_loss(self.method, batch)

    def average(self) -> None:
        textbook_average(self.method)


def step(way: Ours, batch: Batch, precision: str) -> dict[str, float]:
    """One step: CPU-seconds of its parts, over all threads, and its seconds by the clock."""
    started, marks = time.perf_counter(), [time.process_time()]
    way.optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
        loss = way.loss(batch)
    marks.append(time.process_time())
    loss.backward()
    marks.append(time.process_time())
    way.optimizer.step()
    marks.append(time.process_time())
    way.average()
    marks.append(time.process_time())
    parts = [after - before for before, after in itertools.pairwise(marks)]
    names = ("forward", "backward", "optimiser", "average")
    return {
        **dict(zip(names, parts, strict=True)),
        "step": marks[-1] - marks[0],
        "clock": time.perf_counter() - started,
    }


def measure(
    ways: dict[str, Ours], batches: Callable[[int], Batch], precision: str, repeats: int
) -> dict[str, dict[str, float]]:
    """Median seconds of the parts of a step, the two ways in turns, a fresh batch each time."""
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        batch = batches(repeat)
        for name, way in ways.items():
            parts = step(way, batch, precision)
            if repeat:  # the first round warms up
                seconds[name].append(parts)
    return {
        name: {part: statistics.median(each[part] for each in rows) for part in rows[0]}
        for name, rows in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=["tiny", "small", "base"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for even in (False, True):
        ours, textbook = check(make_method(arguments.size), make_batch(arguments.batch, 0, even))
        masks = "even" if even else "ragged"
        print(
            f"ijepa_step {masks} masks: loss ours {ours:.6f} = textbook with the context blind to queries; "
            f"textbook {textbook:.6f}"
        )
    for precision in arguments.precision:
        for even in (False, True):
            ways = {"ours": Ours(arguments.size), "textbook": Textbook(arguments.size)}
            found = measure(
                ways, lambda seed, even=even: make_batch(arguments.batch, seed, even), precision, arguments.repeats
            )
            ours, textbook = found["ours"], found["textbook"]
            per_second = {name: arguments.batch / parts["step"] for name, parts in found.items()}
            print(
                f"ijepa_step vit-{arguments.size} {SIZE_PX} px batch {arguments.batch} {precision} "
                f"{'even' if even else 'ragged'} masks: ours {per_second['ours']:.3f}, textbook "
                f"{per_second['textbook']:.3f} images per CPU-second, ratio {textbook['step'] / ours['step']:.2f} "
                f"(by the clock {textbook['clock'] / ours['clock']:.2f}), n {arguments.repeats}, "
                f"{arguments.threads} threads"
            )
            for name, parts in found.items():
                print(f"    {name}: " + ", ".join(f"{part} {value:.3f} s" for part, value in parts.items()), flush=True)


if __name__ == "__main__":
    main()
