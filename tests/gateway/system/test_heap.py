"""The gateway's memory settings, in a process of their own: they last as long as it does."""

from __future__ import annotations

import json
import subprocess
import sys

LOOK = """
import gc, json, resource
from modelhub.serving.gateway.system import heap
heap.settle()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(2 << 20)
before = faults()
for _ in range(20):
    bytearray(2 << 20)
print(json.dumps([gc.get_freeze_count(), gc.get_threshold()[0], gc.isenabled(), faults() - before]))
"""


def test_what_is_there_is_frozen_and_bodies_use_memory_again() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    frozen, threshold, enabled, faults = json.loads(done.stdout)
    assert frozen > 1000
    assert threshold == 10_000
    assert enabled
    assert faults < 20 * 512 / 4  # pages of 4 KiB; without it each of the 20 has 512
