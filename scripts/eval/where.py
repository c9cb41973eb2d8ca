"""Where the loss is (`--where`): the excess over the floor, by kind of choice and by distance."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data.stories.story import NotAStory, floor_of, story_grammar
from scripts.eval.choices import KINDS, decide
from scripts.eval.scoring import TokenScores
from scripts.report import table
from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.output import progress_bar
from utils.run.figure import BLUE, draws, new_figure, save_figure, style_axes

FIRST = (1, 8, 16, 32, 64, 128)  # the shortest distance of each group but the first, in tokens
DISTANCES = ("none", "1-7", "8-15", "16-31", "32-63", "64-127", "128+")
LEGEND = """
(floor and excess in nats per byte; fixed: the grammar leaves no choice, and no name, thing, place
or promise is mentioned, as in the rest of a sentence; none: nothing to agree with, as for a first
mention, a free choice and all that is fixed)"""
TITLES = {"kinds": "kind of choice", "distances": "tokens since the mention it depends on"}


def breakdown(scores: TokenScores, tokenizer: BPETokenizer) -> dict[str, Any]:
    """Return the excess of scored stories, and its parts by kind of choice and by distance.

    The excess of a token is -ln of its probability under the model, less -ln of its probability
    under the grammar. Each token belongs to one kind and to one distance. All figures are in nats
    per byte of the whole text, so those of the parts add up. A standard error is that of the excess
    as an estimate for all stories.

    Raises:
        UserError: the grammar does not accept one of the stories.
    """

    @cache
    def encode(text: str) -> list[str]:
        return [tokenizer.token_bytes[one].decode() for one in tokenizer.encode(text)]

    ends = np.flatnonzero(scores.ids_N == tokenizer.eot_id) + 1
    decisions, bytes_S = [], []
    stories = np.split(scores.ids_N, ends)[:-1]
    for number, ids in enumerate(progress_bar(stories, desc="parse stories", leave=False)):
        tokens = [tokenizer.token_bytes[one].decode() for one in ids[:-1].tolist()]
        try:
            decisions.append(decide(story_grammar(), tokens, encode))
        except NotAStory as error:
            hint = "another version's grammar made it; name stories of this one with --text FILE"
            raise UserError(f"--where: story {number} is {error}: {hint}") from None
        bytes_S.append(sum(map(len, tokens)))
    floor_N, kind_N, distance_N = map(np.concatenate, zip(*decisions, strict=True))
    excess_N = scores.nats_N.astype(np.float64) - floor_N
    group_N = np.searchsorted(FIRST, distance_N, "right")
    story_N = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))

    def part(chosen_N: np.ndarray) -> dict[str, float]:
        nats_S = np.bincount(story_N, excess_N * chosen_N).tolist()
        excess = floor_of(list(zip(bytes_S, nats_S, strict=True)))
        floor = float(floor_N[chosen_N].sum()) / excess.n_bytes
        found = {"tokens": int(chosen_N.sum()), "floor": floor, "excess": excess.nats_per_byte}
        return found | {"standard_error": excess.standard_error}

    return part(kind_N >= 0) | {
        "kinds": {name: part(kind_N == i) for i, name in enumerate(KINDS)},
        "distances": {name: part(group_N == i) for i, name in enumerate(DISTANCES)},
    }


def describe(where: dict[str, Any]) -> str:
    """Return the breakdown as two tables for people."""
    tables = []
    for key, title in TITLES.items():
        rows = []
        for name, one in [*where[key].items(), ("all", where)]:
            tokens, share = (one[of] / (where[of] or math.nan) for of in ("tokens", "excess"))
            figures = [f"{one[of]:.6f}" for of in ("floor", "excess", "standard_error")]
            rows.append([name, f"{tokens:.1%}", *figures, f"{share:.1%}"])
        tables.append(table([title, "tokens", "floor", "excess", "+-", "of the excess"], rows))
    return "\n\n".join(tables) + LEGEND


@draws
def plot_where(where: dict[str, Any], out: Path) -> None:
    """Draw the parts of the excess as bars with their standard errors."""
    figure = new_figure(10, 4)
    percent = 100 / where["floor"]
    figure.suptitle(f"the loss is {where['excess'] * percent:.2f}% over the floor", fontsize=10)
    for axes, (key, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        bars = {name: one["excess"] * percent for name, one in where[key].items()}
        errors = [one["standard_error"] * percent for one in where[key].values()]
        axes.barh(list(bars), list(bars.values()), xerr=errors, color=BLUE)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("% of the floor")
        style_axes(axes)
    save_figure(figure, out)
