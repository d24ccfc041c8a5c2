"""Real data beside the checkout; every test here is skipped, and says why, where it is absent."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)
            if not DATA.is_dir():
                item.add_marker(pytest.mark.skip(reason=f"real data folder {DATA} is absent"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    return DATA
