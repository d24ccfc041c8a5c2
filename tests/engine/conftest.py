"""The toy method, in this process and in others."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOY = Path(__file__).with_name("toy.py")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lamella_toy", TOY)
    module = importlib.util.module_from_spec(spec)
    sys.modules["lamella_toy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """toy_process(folder, processes=1, **options) trains the toy in a process of its own, or under torchrun."""

    def run(folder: Path, processes: int = 1, **options: Any) -> subprocess.CompletedProcess[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(torchrun if processes > 1 else []), str(TOY), str(folder), json.dumps(options)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run
