"""A worker does not outlive the command that started it: a rerun may take its folders."""

import os
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
def test_workers_end_with_the_command_that_is_killed() -> None:
    command = [sys.executable, "-m", "tests.faults.training_crew"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crew:
        assert crew.stdout is not None
        worker = int(crew.stdout.readline())
        os.kill(worker, 0)
        crew.kill()
        crew.wait()
        for _ in range(100):
            time.sleep(0.1)
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                return
    pytest.fail("the worker is still there")
