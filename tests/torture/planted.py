"""A campaign with a planted defect: `python -m tests.torture.planted NAME ARGUMENT...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from model.training.trainer import Trainer
from tests.torture import __main__ as torture
from tests.torture.__main__ import Campaign
from tests.torture.reference import Reference
from utils.output import json_line
from utils.run import checkpoint


def save_without_rename() -> None:
    """Write a checkpoint directly to its final name."""
    checkpoint.write_atomic = lambda path, content: Path(path).write_bytes(content)


def row_after_checkpoint() -> None:
    """Write the row of an evaluation to metrics.csv only after last.pt."""
    original = Trainer.evaluate_and_save

    def late(self: Trainer, run_log: Any, metrics: dict[str, float]) -> None:
        rows: list[Any] = []
        write, run_log.write = run_log.write, rows.append
        original(self, run_log, metrics)
        run_log.write = write
        for row in rows:
            write(row)

    Trainer.evaluate_and_save = late


def no_checksum() -> None:
    """Save and accept any checksum."""
    checkpoint.digest = lambda value: ""


class ImpatientCampaign(Campaign):
    """A campaign that ends with its first failure."""

    def run_trial(self, reference: Reference, kind: str) -> None:
        super().run_trial(reference, kind)
        if self.failures:
            print(json_line(vars(self)))
            sys.exit(1)


PLANTS = {
    plant.__name__: plant for plant in (save_without_rename, row_after_checkpoint, no_checksum)
}

if __name__ == "__main__":
    PLANTS[sys.argv[1]]()
    torture.Campaign = ImpatientCampaign
    sys.exit(torture.main(sys.argv[2:]))
