"""Stories: generate them from a grammar, parse them, and compute their exact probability.

A story is made by uniform choices, and its text shows each of them. So a text has exactly one
derivation, and -log p is the sum of log(number of alternatives) over its choices. The mean of
-log p per byte is the loss that no model can beat: the entropy floor (docs/theory.md, section 10).
Stories are ASCII, so a character is a byte.
"""

import hashlib
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data.stories import plots, words
from data.stories.template_grammar import Derivation, Grammar, NotAStory
from utils.errors import UserError
from utils.files import decode_utf8, read_bytes

SEPARATOR = "\n\n"  # between stories; the last one ends in a single newline
MAX_STORY_BYTES = 900  # upper bound of a story's length, proved in tests/data/stories


@dataclass(frozen=True)
class Story:
    """A story and its derivation.

    Attributes:
        choices: (name of the rule or variable, index of the chosen alternative, number of
            alternatives) in the order of the text.
        log_prob: natural logarithm of the story's probability.
    """

    text: str
    choices: tuple[tuple[str, int, int], ...]
    log_prob: float

    @property
    def bits(self) -> float:
        """The information of the story's choices, in bits."""
        return -self.log_prob / math.log(2)


@dataclass(frozen=True)
class Floor:
    """The mean of -log p per byte of some stories (separators not counted), in nats."""

    nats_per_byte: float
    standard_error: float  # of nats_per_byte as an estimate of the grammar's floor
    n_stories: int
    n_bytes: int
    total_nats: float

    @property
    def bits_per_byte(self) -> float:
        """The floor in bits per byte."""
        return self.nats_per_byte / math.log(2)


@lru_cache(maxsize=1)
def story_grammar() -> Grammar:
    """Return the grammar of the stories, compiled at the first call."""
    return Grammar({**plots.rules(), **words.rules()}, words.pools(), words.variables(), "story")


def grammar_identity() -> str:
    """Return the hex sha256 of all rules and words."""
    parts = ({**plots.rules(), **words.rules()}, words.pools(), words.variables())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def make_story(text: str, derivation: Derivation) -> Story:
    """Return the story with this text and derivation."""
    return Story(text, tuple(derivation), -sum(math.log(count) for _, _, count in derivation))


def generate_story(rng: random.Random) -> Story:
    """Generate a story from `rng.random()` alone, which is the same in all Python versions."""
    derivation: Derivation = []
    return make_story(story_grammar().write(rng.random, derivation), derivation)


def parse(text: str) -> Story:
    """Parse a story into its choices and probability.

    Raises:
        NotAStory: the grammar does not accept this text.
    """
    derivations = story_grammar().read(text)
    assert len(derivations) == 1, f"the grammar makes this text in {len(derivations)} ways: {text}"
    return make_story(text, derivations[0])


def log_prob(text: str) -> float:
    """Return the natural logarithm of a story's probability.

    Raises:
        NotAStory: the grammar does not accept this text.
    """
    return parse(text).log_prob


def generate_stories(seed: int, n_bytes: int) -> Iterator[str]:
    """Yield stories until a file of them (see `join`) would exceed `n_bytes` bytes.

    With the same seed, a larger `n_bytes` gives the same stories followed by more.

    Raises:
        ValueError: the seed is negative (Python would use its absolute value).
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative")
    rand, write = random.Random(seed).random, story_grammar().write
    left = n_bytes + len(SEPARATOR) - 1  # the last story has a newline in place of a separator
    while True:
        text = write(rand, [])
        left -= len(text) + len(SEPARATOR)
        if left < 0:
            return
        yield text


def join(stories: Iterable[str]) -> str:
    r"""Return the text of a file of stories.

    >>> join(["One.", "Two."])
    'One.\n\nTwo.\n'
    """
    joined = SEPARATOR.join(stories)
    return joined + "\n" if joined else ""


def split(text: str) -> list[str]:
    r"""Return the stories of a file's text, which are separated by blank lines.

    >>> split("One.\n\nTwo.\n")
    ['One.', 'Two.']
    """
    return [part.strip("\n") for part in re.split(r"\n{2,}", text) if part.strip("\n")]


def floor(stories: Iterable[str]) -> Floor:
    """Return the entropy floor of some stories, with its standard error.

    The floor is a ratio of two sums, so its error is that of a ratio estimator (Cochran, Sampling
    Techniques, section 2.11). For n stories of x_i bytes and y_i nats, with r = sum y / sum x, the
    error is sqrt(n s^2) / sum x, where s^2 is the sample variance of y_i - r x_i.

    Raises:
        NotAStory: the grammar does not accept one of the stories.
        ValueError: there are no stories.
    """
    return floor_of([(len(one), -log_prob(one)) for one in stories])


def floor_if_stories(documents: Iterable[bytes]) -> Floor | None:
    """Return the floor of documents; None if there are none, or if one is not a story."""
    try:
        return floor(document.decode() for document in documents)
    except ValueError:  # NotAStory and UnicodeDecodeError too
        return None


def floor_of(pairs: Sequence[tuple[int, float]]) -> Floor:
    """Return the floor from (bytes, nats) of each story.

    >>> floor_of([(10, 2.0), (30, 6.0)])
    Floor(nats_per_byte=0.2, standard_error=0.0, n_stories=2, n_bytes=40, total_nats=8.0)
    """
    if not pairs:
        raise ValueError("there are no stories")
    n_bytes, total_nats = sum(size for size, _ in pairs), math.fsum(nats for _, nats in pairs)
    ratio, count = total_nats / n_bytes, len(pairs)
    squares = math.fsum((nats - ratio * size) ** 2 for size, nats in pairs)
    error = math.sqrt(count * squares / (count - 1)) / n_bytes if count > 1 else math.nan
    return Floor(ratio, error, count, n_bytes, total_nats)


def sample_stories(seed: int, n_stories: int) -> list[Story]:
    """Return the first `n_stories` stories of `generate_stories`, with their derivations."""
    rng = random.Random(seed)
    return [generate_story(rng) for _ in range(n_stories)]


def read_stories(path: str | Path) -> list[str]:
    """Return the stories of a file.

    Raises:
        UserError: the file can't be read, is not UTF-8 or holds no story.
    """
    stories = split(decode_utf8(read_bytes(path), path, hint="convert the file to UTF-8"))
    if not stories:
        raise UserError(f"{path}: holds no text; make a file with --bytes N --seed S --out FILE")
    return stories


def floor_of_file(path: str | Path) -> Floor:
    """Return the floor of a file's stories.

    Raises:
        UserError: the grammar does not accept a story of the file.
    """
    pairs = []
    for number, one in enumerate(read_stories(path), start=1):
        try:
            pairs.append((len(one), -log_prob(one)))
        except NotAStory as error:
            raise UserError(
                f"{path}: text {number} is {error}; --check lists all such texts"
            ) from None
    return floor_of(pairs)
