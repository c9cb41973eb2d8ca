"""Try to lose data: `python -m scripts.torture --minutes 5`. The campaign is in tests/torture/."""

import os
import runpy
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.realpath(f"{__file__}/../.."))  # for `python scripts/torture.py`
    runpy.run_module("tests.torture", run_name="__main__", alter_sys=True)
