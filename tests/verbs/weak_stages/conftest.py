from __future__ import annotations

from pathlib import Path

import pytest
from tests.verbs.weak_stages.made_study import Made, made_study


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return made_study(tmp_path)
