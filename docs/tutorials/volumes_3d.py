"""Tutorial: an encoder of volumes, learned from unlabelled scans, and a segmentation head on top of it.

Run it as it is: it makes its own volumes and takes about half a minute. Then set DATA to a data set of yours (a
Medical Segmentation Decathlon task, BraTS, a CSV of NIfTI files or DICOM series) and raise the sizes.
"""

# %% What to change
from __future__ import annotations

from pathlib import Path

OUT = Path("tutorial_volumes")
DATA: Path | None = None
REAL_SIZE = False  # True: ViT-small on crops of 64 x 128 x 128 voxels; a GPU's day

# %% The command line, from Python
from lamella.cli import main


def lamella(command: str) -> None:
    """Run one command and stop if it fails."""
    print(f"\n$ lamella {command}")
    status = main(command.split())
    if status != 0:
        raise SystemExit(status)


# %% Volumes
# Heads with a lesion: bright, somewhere else in each. The voxels are 2 x 2 x 3 mm, and the affine says so; everything
# below is in millimetres, so scans of several spacings can be learned from together.
import csv

import nibabel as nib
import numpy as np


def head(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) float32 intensities as a scanner might store them, and the lesion."""
    x, y, z = np.mgrid[:32, :40, :24].astype(float)
    centre = np.array([16, 20, 12]) + rng.uniform(-2, 2, 3)
    body = ((x - centre[0]) / 13) ** 2 + ((y - centre[1]) / 17) ** 2 + ((z - centre[2]) / 10) ** 2 < 1
    at = centre + rng.uniform(-4, 4, 3)
    lesion = np.sqrt((x - at[0]) ** 2 + (y - at[1]) ** 2 + (1.5 * (z - at[2])) ** 2) < rng.uniform(4, 6)
    values = 300 * body + 250 * lesion + rng.normal(0, 20, body.shape)
    return values.astype(np.float32), lesion.astype(np.uint8)


def generate(folder: Path, patients: int = 8) -> Path:
    """Write scans, masks and volumes.csv with the columns image, mask, patient, split."""
    folder.mkdir(parents=True, exist_ok=True)
    affine, rows = np.diag([2.0, 2.0, 3.0, 1.0]), []
    for patient in range(patients):
        values, lesion = head(np.random.default_rng(patient))
        image, mask = f"p{patient}.nii.gz", f"p{patient}_mask.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), folder / image)
        nib.save(nib.Nifti1Image(lesion, affine), folder / mask)
        split = "train" if patient < patients - 3 else "test"
        rows.append({"image": image, "mask": mask, "patient": f"p{patient}", "split": split})
    with open(folder / "volumes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "volumes.csv"


data = DATA or generate(OUT / "data")
lamella(f"datasets {data}")

# %% Sizes
# V-JEPA: most of a crop is hidden, and the embeddings of the hidden patches are predicted from those that are shown.
# Two masks a sample: many small blocks, and few large ones.
if REAL_SIZE:
    SHAPE = "method.name=volume"
    EFFORT = "budget.images=20000"
    HEADS = ""
else:
    SHAPE = (
        "method.name=volume data.spacing_mm=[3,2,2] data.crop=[16,32,32] data.batch_size=5 data.workers=0 "
        "method.encoder.patch=[4,8,8] method.encoder.dim=48 method.encoder.depth=2 method.encoder.heads=4 "
        "method.predictor.width=24 method.predictor.depth=1 method.predictor.heads=2 "
        # Positions are waves of these lengths in millimetres: from one patch to four crops.
        "method.encoder.wave_min=16 method.encoder.wave_max=256"
    )
    EFFORT = "budget.images=300 optim.lr=5e-3 log.tensorboard=false log.monitor_images=8"
    HEADS = "segmentation.epochs=10 segmentation.random_inits=1"

# %% Look before you train
# Three planes with the patient's right on the left, as radiologists look at them; the hidden patches are pale.
lamella(f"preview {data} -o {OUT}/previews num_samples=1 {SHAPE}")

# %% Pretrain, without labels
lamella(f"pretrain {data} -o {OUT}/run {SHAPE} {EFFORT}")

# %% Evaluate
# A small head reads the lesion from the frozen tokens; Dice with an interval over patients, beside the same head on a
# network with random weights. A handful of generated patients allows no claim: the table says how many there are.
lamella(f"evaluate {OUT}/run/model {data} -o {OUT}/results {HEADS}")
print((OUT / "results" / "results.md").read_text(encoding="utf-8")[:1500])

# %% Look at what it learned
# Attention and the components of the tokens in the three planes, through most of the lesion.
lamella(f"explain {OUT}/run {data} -o {OUT}/pictures items=2")

# %% Use it
# Volumes are (channels, z, y, x), read and normalised by the rule that the model was trained with.
import torch

import lamella as lm
from lamella.imaging.intensity import IntensitySettings, to_network
from lamella.imaging.reading import read_volume
from lamella.imaging.spacing import respaced

encoder = lm.from_pretrained(str(OUT / "run" / "model"))
contract = encoder.contract
if DATA is None:
    volume = read_volume(OUT / "data" / "p0.nii.gz")
    if contract.spacing_mm is not None:
        volume = respaced(volume, contract.spacing_mm)
    values = to_network(volume, IntensitySettings.model_validate(contract.intensity))
    crop = values[:, : contract.size[0], : contract.size[1], : contract.size[2]]
    with torch.inference_mode():
        tokens = encoder.tokens(torch.from_numpy(crop.copy())[None])
    print(f"\ntokens of one crop: {tuple(tokens.shape)}")
