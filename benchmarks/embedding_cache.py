"""What the embedding cache saves: 5 prompts of each of 5 classes on one image, with 1 pass of the encoder and with 25.

Passes are counted at the encoder itself. The prompts are those of the five-prompt protocol but its last (the box on
turned images: those are other images), and a box with a click in its place. Weights: SAM 2 Hiera-tiny with random
values unless --model is given; time does not depend on them. Also: an image that comes back from a folder on disk.

    python benchmarks/embedding_cache.py [--model sam2-hiera-tiny@/path/to/weights] [--threads 1] [--rounds 1]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
import transformers

from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.promptable import load_promptable
from lamella.models.promptable_model import Embedded, PromptableModel
from lamella.models.prompts import NOT_THIS, THIS, Prompts
from lamella.models.sam2 import Sam2, config_of
from lamella.models.sam2_keys import SIZES

CLASSES, HEIGHT, WIDTH = 5, 522, 775  # an image of the GlaS set


def prompts() -> Iterator[Prompts]:
    """Five prompts of an object of each class."""
    for kind in range(CLASSES):
        x, y = 100.0 + 120 * kind, 80.0 + 80 * kind
        box = torch.tensor([[[x - 60, y - 40, x + 60, y + 40]]])
        centre = torch.tensor([[[[x, y]]]])
        several = centre + torch.tensor([[0.0, 0], [20, 10], [-20, 10]])
        beside = torch.tensor([[[[x + 70, y]]]])
        mine, three = torch.full((1, 1, 1), THIS), torch.full((1, 1, 3), THIS)
        yield Prompts(centre, mine)
        yield Prompts(several, three)
        yield Prompts(boxes_BM4=box)
        yield Prompts(beside, torch.full((1, 1, 1), NOT_THIS), box)
        yield Prompts(centre, mine, box)


def answer_all(model: PromptableModel, embed: Callable[[torch.Tensor], Embedded], image: torch.Tensor) -> float:
    """Seconds for all prompts, the image embedded anew for each by `embed`."""
    started = time.perf_counter()
    with torch.no_grad():
        for prompt in prompts():
            embedded = embed(image)
            model.upsample(model.decode(embedded, prompt).logits_BMKhw, embedded)
    return time.perf_counter() - started


def random_tiny() -> Sam2:
    torch.manual_seed(0)
    return Sam2(transformers.Sam2Model(config_of(SIZES[0].architecture())), "sam2-hiera-tiny, random", "none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_promptable(arguments.model) if arguments.model else random_tiny()
    passes: list[int] = []
    model.network.vision_encoder.register_forward_hook(lambda *_: passes.append(1))
    image = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    cached, anew, counts = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            passes.clear()
            cached.append(answer_all(model, EmbeddingCache(model, f"{folder}/{number}").embed, image))
            with_cache = len(passes)
            passes.clear()
            anew.append(answer_all(model, model.embed, image))
            counts.add((with_cache, len(passes)))
        passes.clear()
        later = answer_all(model, EmbeddingCache(model, f"{folder}/0").embed, image)
        counts_later = len(passes)
    (with_cache, without), *others = counts
    if others:
        raise SystemExit(f"the rounds differ in their passes: {counts}")
    ours, theirs = statistics.median(cached), statistics.median(anew)
    print(
        f"embedding cache, {model.name}, {WIDTH} x {HEIGHT} px, 5 prompts x {CLASSES} classes, {arguments.threads} "
        f"thread(s): {with_cache} encoder pass(es) in {ours:.2f} s, against {without} in {theirs:.2f} s: "
        f"{theirs / ours:.1f} times as fast (median of {arguments.rounds}); from an earlier process's folder "
        f"{counts_later} in {later:.2f} s"
    )


if __name__ == "__main__":
    main()
