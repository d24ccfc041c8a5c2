"""A CLIP of a few thousand random weights with a tokenizer of letters, saved as its authors would save theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

SIDE, LONGEST, DIM = 32, 24, 16
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Letters, letters that end a word, one merged pair, and the two marks, in CLIP's order: marks last."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,.&-")
    merges = ["a n</w>", "t h"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    return {word: number for number, word in enumerate([*words, BEGIN, END])}, merges


def tiny_clip(seed: int = 3) -> Any:
    words, _ = vocabulary()
    text = {
        **_TOWER,
        "vocab_size": len(words),
        "max_position_embeddings": LONGEST,
        "bos_token_id": words[BEGIN],
        "eos_token_id": words[END],
        "pad_token_id": words[END],
        "projection_dim": DIM,
    }
    vision = {**_TOWER, "image_size": SIDE, "patch_size": 8, "projection_dim": DIM}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def save_tiny_clip(folder: Path, seed: int = 3) -> Any:
    """config.json, model.safetensors, preprocessor_config.json, vocab.json, merges.txt; the network is returned."""
    network = tiny_clip(seed)
    network.save_pretrained(folder)
    words, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    told = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": SIDE}, "crop_size": SIDE, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return network


def reference_tokenizer(folder: Path) -> Any:
    return CLIPTokenizer.from_pretrained(str(folder))
