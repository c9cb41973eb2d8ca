"""The plots of the stories, read from plots.yaml.

A plot is a sequence of turns, such as losing a thing, searching and finding it. The sentence frames
of a turn are the templates from which its text is chosen.
"""

from pathlib import Path

from utils.config.tables import read_table

Rules = dict[str, list[str]]


SECTIONS: dict[str, Rules] = read_table(Path(__file__).with_name("plots.yaml"))


def sentence_frames() -> Rules:
    """Return turn -> its sentence frames."""
    # "plots" and "uses" are described at `rules`; all other sections hold turns.
    turns = [rules for name, rules in SECTIONS.items() if name not in ("plots", "uses")]
    return {name: texts for rules in turns for name, texts in rules.items()}


def rules() -> Rules:
    """Return the rules of plots, turns, and uses (what the hero does with a thing).

    The classes of words are in data/stories/words.py.
    """
    return {**SECTIONS["plots"], **sentence_frames(), **SECTIONS["uses"]}
