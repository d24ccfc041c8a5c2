from __future__ import annotations

import pytest

from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.pixel_statistics import PixelStatistics
from lamella.models.vit import ViTSettings
from lamella.verbs.evaluation import rival_encoders
from lamella.verbs.evaluation.rival_encoders import encoders_beside


@pytest.mark.parametrize(
    ("side", "name", "said"),
    [(64, "ImageNet (efficientnet-lite0 at 64 px)", 1), (224, "ImageNet (efficientnet-lite0)", 0),
     (None, "ImageNet (efficientnet-lite0)", 0)],
)  # fmt: skip
def test_an_encoder_shown_at_another_size_than_its_own_says_so(side, name, said, monkeypatch) -> None:
    monkeypatch.setattr(rival_encoders, "load_encoder", lambda _: PixelStatistics())  # its own size is 224 px, too
    contract = InputContract(None, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    settings = ViTSettings(dim=16, depth=1, heads=2, patch_px=8, wave_min=8, wave_max=64)
    judged = ViTEncoder(fresh_vit(settings, 0), contract, "tiny")
    encoders, notes = encoders_beside(judged, 1, "auto", side, grey=True)
    assert list(encoders) == ["tiny", "random init", "pixel statistics", name]
    assert len(notes) == said
    assert all("shown 64 px" in note and "224 px" in note for note in notes)
