import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lamella.engine.log import LogSettings, RunLog, StepRow
from lamella.view import curves
from lamella.view.curves import _smoothed, draw_training


def test_training_is_drawn_also_where_a_monitor_is_no_number(tmp_path) -> None:
    with RunLog(tmp_path, LogSettings(tensorboard=False)) as log:
        for step in range(1, 31):
            log.step(StepRow(1, step, 1 / step, 10, 4, 5.0, 1e-3, 0.04, 8 * step), {})
        log.monitors(0, 0, {"rankme_centred": 3.0, "loss_prediction": 0.5, "loss_same_slide": float("nan")})
        log.monitors(30, 240, {"rankme_centred": float("nan"), "loss_prediction": 0.4, "loss_same_slide": 0.45})
    draw_training(tmp_path, tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as image:
        assert image.width > 3 * image.height


def test_a_run_without_steps_is_not_drawn(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"steps\.csv"):
        draw_training(tmp_path, tmp_path / "training.png")


def test_smoothing_is_the_mean_of_the_last_twenty() -> None:
    values = np.random.default_rng(0).normal(size=50)
    expected = [values[max(0, end - 20) : end].mean() for end in range(1, 51)]
    np.testing.assert_allclose(_smoothed(values), expected)


def test_every_logged_monitor_has_its_panel_and_warnings_are_named(tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: seen.append(figure))
    values = {
        "rankme": 9.0, "rankme_centred": 8.0, "tokens_rankme_centred": 5.0, "alpha_req": 1.2, "std_relative": 0.5,
        "sigreg_excess": 4.0, "regularised_sigreg_excess": 0.1, "position_share": 0.3, "image_share": 0.2,
        "target_distance": 0.1, "lidar": 3.0, "loss_prediction": 0.4, "loss_mean_predictor": 0.6, "odd": None,
        "warnings": ["rankme: it fell"],
    }  # fmt: skip
    with RunLog(tmp_path, LogSettings(tensorboard=False)) as log:
        log.step(StepRow(1, 1, 0.5, 10, 4, 5.0, 1e-3, 0.04, 8), {})
        log.monitors(0, 0, values)
        log.monitors(1, 8, values)
    draw_training(tmp_path, tmp_path / "training.png")
    panels = {axis.get_title(loc="left"): axis for axis in seen[0].axes if axis.axison}
    labels = {title: [line.get_label() for line in axis.get_lines()] for title, axis in panels.items()}
    assert labels.pop("training loss") == ["each step", "mean of 20 steps"]
    assert labels == {
        "loss on held views, beside trivial answers": ["the model", "mean embedding of all"],
        "effective rank of the features (RankMe)": ["pooled", "tokens"],
        "spread over root mean square of the features": ["pooled"],
        "decay of the spectrum (alpha-ReQ)": ["pooled"],
        "SIGReg excess, embeddings it regularises": ["regularised"],
        "SIGReg excess, features as they are": ["pooled"],
        "share of the tokens' variance explained by": ["position", "image"],
        "distance to the target encoder": ["target distance"],
        "LiDAR": ["lidar"],
    }
    assert "warning during the run: rankme" in seen[0].texts[0].get_text()
    assert panels["training loss"].get_xlabel() == "images seen"
    plt.close(seen[0])
