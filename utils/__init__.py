"""Helpers that do not depend on the tokenizer, the model or the data. One topic per file.

Every program imports this package before all others, so here a wrong Python is noticed.
"""

import sys
from importlib.util import find_spec


def require(fulfilled: bool, message: str) -> None:
    """End the program with one line unless a requirement is fulfilled.

    Packages call it while they are imported, which is before `run_cli` can handle a UserError.
    """
    if not fulfilled:
        print("error: " + message, file=sys.stderr)
        sys.exit(2)


version = sys.version.split()[0]
require(sys.version_info >= (3, 10), f"this is Python {version}; use 3.10 or newer")
require(
    bool(find_spec("numpy")), "numpy is not installed; use .venv/bin/python after `make install`"
)
