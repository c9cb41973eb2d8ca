"""Settings that follow from the size of the text: the table `size.*`, as in configs/text.yaml."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from utils.config.load import build
from utils.config.schema import check, flatten, setting
from utils.errors import UserError

T = TypeVar("T", bound=Any)

HEAD_SIZE = 32  # n_head = n_embd / 32
# The budget for which the table's widths is meant. With the compute C, the best number of weights
# of a model grows as C^0.5 (Hoffmann et al. 2022, arXiv 2203.15556), and so the width as C^0.25.
BUDGET_MINUTES = 5.0
BYTES_IN_BUDGET = 1e5  # a text of this size is read as often as is useful in five minutes


def column(help: str, **limits: Any) -> Any:
    """Return the field of one row of the table."""
    return setting((), help, only_at_start=True, **{"minimum": 0, **limits})


@dataclass(frozen=True)
class SizeConfig:
    """A table of settings: column i applies from min_bytes[i] bytes of text on."""

    min_bytes: tuple[int, ...] = column("least bytes of text of each column; empty = no table")
    vocab_sizes: tuple[int, ...] = column("model.vocab_size, for Latin letters", minimum=257)
    # Fewer tokens would cut many of these characters, such as Chinese ones, into several.
    wide_vocab_sizes: tuple[int, ...] = column("the same for characters of 3 bytes", minimum=257)
    widths: tuple[int, ...] = column("model.n_embd, for a budget of 5 minutes", minimum=32)
    dropouts: tuple[float, ...] = column("model.dropout", below=1)
    weight_decays: tuple[float, ...] = column("optim.weight_decay")
    passes: tuple[float, ...] = column("train.max_passes", above=0)

    def __post_init__(self) -> None:
        check(self)
        if len({len(getattr(self, column.name)) for column in fields(self)}) > 1:
            raise UserError("size.*: lists of different lengths; give each as many numbers")
        if self.min_bytes != tuple(sorted({0, *self.min_bytes} if self.min_bytes else ())):
            raise UserError("size.min_bytes: must start at 0 and rise; change the order")


def sized(
    config: T,
    given: Mapping[str, Any],
    measure_text: Callable[[Any], tuple[int, float, int | None]],
) -> tuple[T, str]:
    """Return a run's config with the settings that its table gives for its text, and a log line.

    Without a table, or with train.init_from, the config is returned as it is, and "".

    Args:
        config: with the sections `size`, `data`, `model` and `train`.
        given: the settings that files or flags have set, by name; the table does not change them.
        measure_text: `data.prepare.measure_text`, called with the section `data`.
    """
    if not config.size.min_bytes or config.train.init_from:
        return config, ""
    n_bytes, wide_share, vocab_size = measure_text(config.data)
    chosen = settings_for(config.size, n_bytes, wide_share, config.train.max_minutes, vocab_size)
    n_embd = given.get("model.n_embd", chosen["model.n_embd"])
    chosen["model.n_head"] = max(1, n_embd // (given.get("model.head_size") or HEAD_SIZE))
    if "train.max_steps" in given:
        del chosen["train.max_passes"]
    chosen = {name: value for name, value in chosen.items() if name not in given}
    text = ", ".join(f"{name} {value}" for name, value in chosen.items())
    empty = {f"size.{column.name}": () for column in fields(config.size)}
    sized_config = build(type(config), flatten(config) | chosen | empty)
    return sized_config, f"for {n_bytes:,} bytes of text: {text}"


def settings_for(
    table: SizeConfig,
    n_bytes: int,
    wide_share: float,
    max_minutes: float,
    vocab_size: int | None = None,
) -> dict[str, Any]:
    """Return the settings of the column for a text.

    Args:
        max_minutes: the budget; 0 = that of the table.
        vocab_size: of the tokenizer, if it exists already.

    >>> rows = SizeConfig((0, 99), (300, 1024), (600, 2048), (64, 128), (0, 0.1), (1, 0.1), (9, 10))
    >>> for name, value in settings_for(rows, 1_600_000, 0.0, 80.0).items():
    ...     print(name, value)
    model.vocab_size 1024
    model.n_embd 256
    model.dropout 0.1
    optim.weight_decay 0.1
    train.max_passes 10
    """
    column = bisect_right(table.min_bytes, n_bytes) - 1
    useful = min(max_minutes / BUDGET_MINUTES, max(1.0, n_bytes / BYTES_IN_BUDGET))
    wider = useful**0.25 if max_minutes else 1.0
    n_heads = max(1, round(wider * table.widths[column] / HEAD_SIZE))
    latin, wide = table.vocab_sizes[column], table.wide_vocab_sizes[column]
    # In eighths, so that a few dashes and quotation marks change nothing.
    by_script = latin + round(8 * wide_share) * (wide - latin) // 8
    return {
        "model.vocab_size": vocab_size or by_script,
        "model.n_embd": n_heads * HEAD_SIZE,
        "model.dropout": table.dropouts[column],
        "optim.weight_decay": table.weight_decays[column],
        "train.max_passes": table.passes[column],
    }
