"""Work that ends its process in the ways that slides do, for the tests and the report of the job runner."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time

FAULTS = {
    "segfault": "crashed in native code (SIGSEGV",
    "abort": "crashed in native code (SIGABRT",
    "kill -9": "it was killed (SIGKILL",
    "leave": "its process ended with status 7",
    "memory": "needed more memory than a worker may use",
    "hang": "ran longer than jobs.time_limit_s",
    "hang that holds the interpreter": "ran longer than jobs.time_limit_s",
    "raise": "KeyError: 'x' (deadly.py:",
}


def deadly(item: str) -> str:
    """`good ...` comes back in capitals; every other item is a fault by name."""
    if item == "segfault":
        ctypes.string_at(0)
    elif item == "abort":
        os.abort()
    elif item == "kill -9":
        os.kill(os.getpid(), signal.SIGKILL)
    elif item == "leave":
        os._exit(7)
    elif item == "memory":
        hold = []
        while True:  # 20 MB every 5 ms: the limit is looked at ten times a second
            hold.append(bytearray(20_000_000))
            time.sleep(0.005)
    elif item == "hang":
        time.sleep(600)
    elif item == "hang that holds the interpreter":
        re.match(r"(a+)+$", "a" * 60 + "b")  # years in one C call
    elif item == "raise":
        raise KeyError("x")
    time.sleep(0.02)
    return item.upper()
