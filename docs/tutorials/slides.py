"""Tutorial: an encoder of tissue, learned from whole slides in micrometres.

Run it as it is: it makes its own slides and takes about half a minute. Then set SLIDES to a folder of yours and raise
the sizes. `lamella demo` walks a longer road of the same kind.
"""

# %% What to change
from __future__ import annotations

from pathlib import Path

OUT = Path("tutorial_slides")
SLIDES: Path | None = None  # a folder of slides, or a manifest CSV; None generates some
REAL_SIZE = False  # True: the shipped profiles, 512 um contexts

# %% The command line, from Python
from lamella.cli import main


def lamella(command: str) -> None:
    """Run one command and stop if it fails."""
    print(f"\n$ lamella {command}")
    status = main(command.split())
    if status != 0:
        raise SystemExit(status)


# %% Slides
# Six generated slides of four tissue classes that differ in form, not in colour, scanned by two scanners that differ
# in colour, not in form. Four of them are kept for the test. Their manifest says where the true classes are.
from lamella.slides.phantom import write_phantoms

slides = SLIDES or write_phantoms(OUT / "phantom", slides=6, size_px=512, test_slides=4)

# %% Index: which slides are there, what is a pixel's size, where is tissue?
# Look at index/contact_sheet.png. A slide that cannot be used is listed with its reason; nothing is guessed.
lamella(f"index {slides} -o {OUT}/index")

# %% Anchors: the places to learn from
# A profile is a field of view and a resolution in micrometres, of the coarse context and of the finer targets in it.
if REAL_SIZE:
    PROFILE, METHOD, EFFORT = "-p ctx1p0_tgt0p5_fov512um_k4", "-p small", "budget.images=50000"
else:
    PROFILE = (
        "sampling.profile_id=tutorial sampling.context_fov_um=64 sampling.target_fov_um=16 sampling.patch_px=8 "
        "sampling.target_margin_um=0 sampling.min_tissue_fraction=0.5"
    )
    METHOD = (
        "method.encoder.patch_px=8 method.encoder.dim=48 method.encoder.depth=2 method.encoder.heads=4 "
        "method.predictor.width=24 method.predictor.depth=1 method.predictor.heads=2 data.batch_size=8 data.workers=0"
    )
    EFFORT = "budget.images=240 optim.lr=5e-3 log.tensorboard=false log.monitor_images=8"
lamella(f"anchors {OUT}/index -o {OUT}/anchors {PROFILE}")

# %% Look before you train
lamella(f"preview {OUT}/anchors -o {OUT}/previews num_samples=1")

# %% Pretrain: the coarse context predicts the embeddings of the finer targets
lamella(f"pretrain {OUT}/anchors -o {OUT}/run {METHOD} {EFFORT}")

# %% Embed: features of every tile, one HDF5 file per slide in TRIDENT's layout
lamella(f"embed {OUT}/run/model {OUT}/index -o {OUT}/features")

# %% Where does it look?
# Tiles of tissue with attention and components of their tokens; overview.png beside random_overview.png.
lamella(f"explain {OUT}/run {OUT}/index -o {OUT}/pictures items=3")

# %% Evaluate
# Needs tissue classes: the manifest's `label_mask_path` with the names of its values, or a table of labelled tiles.
# The generated slides have them; for yours see `lamella config evaluate`.
if SLIDES is None:
    lamella(
        f"evaluate {OUT}/run/model {OUT}/index -o {OUT}/results leave_out_seen=true max_tiles_per_slide=40 "
        "random_inits=1"
    )
    print((OUT / "results" / "results.md").read_text(encoding="utf-8")[:1500])
