"""Tutorial: from unlabelled 2-D images to an encoder, and an honest answer to whether it learned something.

Run it as it is: it makes its own images and takes less than a minute. Then set DATA to a folder of yours and raise the
sizes. Every step is a command; the same words after `lamella` on a command line do the same.
"""

# %% What to change
from __future__ import annotations

from pathlib import Path

OUT = Path("tutorial_images")
DATA: Path | None = None  # a folder or CSV of images, HAM10000, PCam, a MedMNIST npz, ...; None generates some
REAL_SIZE = False  # True: ViT-small at 224 px, 200,000 images seen: hours on a GPU, days on a CPU

# %% The command line, from Python
from lamella.cli import main


def lamella(command: str) -> None:
    """Run one command and stop if it fails."""
    print(f"\n$ lamella {command}")
    status = main(command.split())
    if status != 0:
        raise SystemExit(status)


# %% Images
# Sixty "patients" with two images each. Half of them have many small spots, half have few large ones: that is what an
# encoder should notice. Brightness and tint differ from image to image and mean nothing.
#
# The table says which images belong to one patient, and which patients are kept for the test. Both matter: images of
# one patient are alike, and whoever trains on one and tests on the other measures memory.
import csv

import numpy as np
from PIL import Image


def spots(rng: np.random.Generator, many: bool, side: int = 48) -> np.ndarray:
    """(side, side, 3) uint8: small spots or large ones."""
    y, x = np.mgrid[:side, :side]
    dark = np.zeros((side, side), bool)
    while dark.mean() < 0.15:  # as much of it in both kinds, so that the mean colour does not tell them apart
        cy, cx = rng.uniform(0, side, 2)
        dark |= np.hypot(y - cy, x - cx) < (2 if many else 4)
    grey = rng.uniform(120, 200) * np.where(dark, 0.5, 1.0)
    tint = rng.uniform(0.8, 1.0, 3)
    return (grey[..., None] * tint + rng.normal(0, 4, (side, side, 3))).clip(0, 255).astype(np.uint8)


def generate(folder: Path, patients: int = 60) -> Path:
    """Write the images and images.csv with the columns image, label, patient, split."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        for number in range(2):
            rng = np.random.default_rng((patient, number))
            name = f"p{patient:02d}_{number}.png"
            Image.fromarray(spots(rng, many=patient % 2 == 0)).save(folder / name)
            label = "many" if patient % 2 == 0 else "few"
            split = "train" if patient < patients * 2 // 3 else "test"
            rows.append({"image": name, "label": label, "patient": f"p{patient:02d}", "split": split})
    with open(folder / "images.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "images.csv"


data = DATA or generate(OUT / "data")

# %% What is in it?
# Reads every image and says what cannot be read. Nothing unreadable ever becomes a blank.
lamella(f"datasets {data} check=true")

# %% Sizes
# LeJEPA embeds several views of an image and asks that they agree (invariance), while the embeddings of all images
# keep the shape of a normal distribution (SIGReg), so that agreeing on nothing at all is no way out.
if REAL_SIZE:
    SHAPE = "method.name=lejepa data.size_px=224"
    EFFORT = "budget.images=200000"
    PROBES = ""
else:
    SHAPE = (
        "method.name=lejepa data.size_px=32 views.local_px=16 views.local_views=2 data.batch_size=40 data.workers=0 "
        "method.encoder.patch_px=8 method.encoder.dim=48 method.encoder.depth=2 method.encoder.heads=4 "
        "method.projector.hidden=[64] method.projector.dim=16 method.slices=64 "
        # Positions are waves of these lengths, here in pixels: from one patch to four views.
        "method.encoder.wave_min=8 method.encoder.wave_max=128"
    )
    EFFORT = "budget.images=2400 optim.lr=5e-3 log.tensorboard=false"
    PROBES = "random_inits=3 imagenet=none"

# %% Look before you train
lamella(f"preview {data} -o {OUT}/previews num_samples=2 {SHAPE}")

# %% Pretrain, without labels
# The patients of the test split are left out (data.exclude_split=test is the default), and the model remembers what it
# has seen. Stop it whenever you like: the same command goes on.
lamella(f"pretrain {data} -o {OUT}/run {SHAPE} {EFFORT}")

# %% Evaluate
# Probes on the frozen features, fitted on the training patients and judged on the test patients. The table has the
# same network with random weights and plain pixel statistics beside it, each with an interval; without them a number
# means little: expect simple statistics to win on these simple images, and the table to say so. Had a test patient
# been in pretraining, this would be an error that names the patient.
lamella(f"evaluate {OUT}/run/model {data} -o {OUT}/results tasks=[linear,nshot] nshot.shots=[5,10] {PROBES}")
print((OUT / "results" / "results.md").read_text(encoding="utf-8")[:1500])

# %% Look at what it learned
# Where does it look, what does it tell apart, how did the training go, and are the classes neighbours? Each picture
# stands beside that of the untrained network. Open index.html in a browser.
lamella(f"explain {OUT}/run {data} -o {OUT}/pictures items=4")
lamella(f"explain {OUT}/results -o {OUT}/result_pictures")

# %% Use it
# A model folder is all that is needed. Images are uint8; normalisation is inside.
import torch

import lamella as lm

encoder = lm.from_pretrained(str(OUT / "run" / "model"))
side = encoder.contract.size_px
images = np.stack([spots(np.random.default_rng(seed), many=seed % 2 == 0, side=side) for seed in range(4)])
with torch.inference_mode():
    features = encoder.pooled(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
print(f"\nfeatures of four new images: {tuple(features.shape)}")
