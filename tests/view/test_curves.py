import numpy as np
import pytest
from PIL import Image

from lamella.engine.log import LogSettings, RunLog, StepRow
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
