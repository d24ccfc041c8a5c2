"""A process with a worker of `lamella expression train train.jobs=2`; prints the worker's number, and waits."""

import multiprocessing
import threading
import time

from lamella.verbs.expression_stages.training_jobs import _end_with_parent


def work() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    time.sleep(120)


if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    time.sleep(10)  # the worker has imported what it needs
    print(worker.pid, flush=True)
    time.sleep(120)
