"""Template grammars: a small language for probabilistic grammars that generate and parse texts.

A rule is a list of templates, from which one is chosen uniformly. In a template

    <rule>         is replaced by a template of another rule
    <rule:var>     is replaced by a template of `rule.CLASS`; CLASS is the class of `var`'s value
    [a|b|]         is a choice among inline templates (one may be empty)
    {var}          is a variable: sampled from its pool at the first mention, copied afterwards
    {var.form}     is another form of its value (a pronoun, a past tense)
    {var=pool}     is {var}, but sampled from `pool`, a part of its own pool
    {form}         is that form of the variable declared first, if no variable has that name

All other text is literal. Variables linked by distinct_from never have the same value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Entry = Mapping[str, str]  # form -> text; "" is the main form, "class" names the entry's class
# Of each choice made: name of the rule or variable, index chosen, number of alternatives.
Derivation = list[tuple[str, int, int]]
TOKEN = re.compile(r"\{[^{}]*\}|<[^<>]*>|[\[|\]]|[^\[\]{}<>|]+")


@dataclass(frozen=True)
class Variable:
    """A variable: the pool it is sampled from, and another variable that it must differ from."""

    pool: str
    distinct_from: str | None = None


@dataclass
class Choice:
    """A uniform choice among alternatives."""

    name: str
    alternatives: Sequence[tuple[Any, ...]] = ()  # of parts; () is the empty text

    @property
    def count(self) -> int:
        """The number of alternatives."""
        return len(self.alternatives)


@dataclass(frozen=True)
class VariableRef:
    """A mention of a variable in one of its forms. A first mention samples from `pool`."""

    name: str
    slot: int  # index of the variable in a list of values (`bindings`)
    form: str
    pool: tuple[Entry, ...]
    distinct_slot: int  # of the variable that it must differ from; -1: none

    def candidates(self, bindings: Sequence[Entry | None]) -> tuple[Entry, ...]:
        """Return the entries for a first mention, without the value it must differ from."""
        excluded = bindings[self.distinct_slot] if self.distinct_slot >= 0 else None
        return tuple(entry for entry in self.pool if entry is not excluded)


@dataclass(frozen=True)
class ByClass:
    """One choice for each class of a variable that already has a value."""

    slot: int  # of the variable
    choices: Mapping[str, Choice]


Part = str | Choice | VariableRef | ByClass


class Step(NamedTuple):
    """A choice among templates, or a mention of a variable, in a text that is parsed."""

    before: Step | None
    name: str  # of the rule or variable
    chosen: int  # index of the alternative
    n_choices: int  # alternatives
    start: int  # position in the text
    stop: int  # behind the mention; of a choice among templates, start + 1
    form: str | None = None  # of the variable; None: a choice among templates
    is_copy: bool = False  # of an earlier mention


# A parser state: position in the text, linked list (part, rest) of the parts to come, values of the
# variables by slot, probability, last step.
State = tuple[int, Any, tuple[Entry | None, ...], float, Step | None]


def chosen_by(part: Choice | ByClass, bindings: Sequence[Entry | None]) -> Choice:
    """Return `part` itself, or of a ByClass the choice for the class of its variable."""
    if isinstance(part, Choice):
        return part
    entry = bindings[part.slot]
    assert entry is not None, "a rule by class follows the first mention of its variable"
    return part.choices[entry["class"]]


class NotAStory(ValueError):  # noqa: N818 (a name that says what happened)
    """A text that the grammar does not accept. `position` is the index where parsing failed."""

    def __init__(self, position: int) -> None:
        super().__init__(f"not a story of the grammar: it goes wrong at byte {position}")
        self.position = position


class Grammar:
    """A compiled grammar.

    Example:
        >>> pools = {"pet": ({"": "cat", "class": ""}, {"": "dog", "class": ""})}
        >>> rules = {"start": ("A {pet} [sat|ran]. The {pet} slept.",)}
        >>> grammar = Grammar(rules, pools, {"pet": Variable("pet")}, "start")
        >>> grammar.write(iter([0.6, 0.1]).__next__, [])
        'A dog sat. The dog slept.'
        >>> grammar.read("A dog sat. The dog slept.")
        [[('pet', 1, 2), ('start.1', 0, 2)]]
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[str]],
        pools: Mapping[str, Sequence[Entry]],
        variables: Mapping[str, Variable],
        start: str,
    ) -> None:
        """Compile the rules. `start` names the rule that generates whole texts.

        Raises:
            ValueError: an unknown rule, variable, form or pool, or unbalanced brackets.
        """
        self.pools = {name: tuple(pool) for name, pool in pools.items()}
        self.variables = variables
        self.slots = {name: slot for slot, name in enumerate(variables)}
        self.choices = {name: Choice(name) for name in rules}
        for name, templates in rules.items():
            # Brackets of the rule compiled so far; their choices are named RULE.1, RULE.2, ...
            self.n_inline = 0
            self.choices[name].alternatives = [self._compile(name, text) for text in templates]
        self.start = (self.choices[start],)

    # Compiling

    def _compile(self, rule: str, template: str) -> tuple[Part, ...]:
        tokens = TOKEN.findall(template)
        if "".join(tokens) != template:
            raise ValueError(f"rule {rule}: a bracket is open in {template!r}")
        tokens.reverse()
        parts = self._sequence(rule, tokens)
        if tokens:
            raise ValueError(f"rule {rule}: {tokens[-1]!r} is out of place in {template!r}")
        return parts

    def _sequence(self, rule: str, tokens: list[str]) -> tuple[Part, ...]:
        """Compile tokens (a stack, next one last) up to the end, a `|` or a `]`."""
        parts: list[Part] = []
        while tokens and tokens[-1] not in ("|", "]"):
            token = tokens.pop()
            if token == "[":
                parts.append(self._brackets(rule, tokens))
            elif token[0] == "<":
                parts.append(self._reference(rule, token[1:-1]))
            elif token[0] == "{":
                parts.append(self._mention(rule, token[1:-1]))
            else:
                parts.append(token)
        return tuple(parts)

    def _brackets(self, rule: str, tokens: list[str]) -> Choice:
        self.n_inline += 1
        name = f"{rule}.{self.n_inline}"
        sequences = [self._sequence(rule, tokens)]
        while tokens and tokens[-1] == "|":
            tokens.pop()
            sequences.append(self._sequence(rule, tokens))
        if not tokens:
            raise ValueError(f"rule {rule}: a bracket is open")
        tokens.pop()
        return Choice(name, sequences)

    def _reference(self, rule: str, name: str) -> Choice | ByClass:
        name, _, variable = name.partition(":")
        if not variable:
            if name not in self.choices:
                raise ValueError(f"rule {rule}: there is no rule <{name}>")
            return self.choices[name]
        stem = name + "."
        choices = {n[len(stem) :]: c for n, c in self.choices.items() if n.startswith(stem)}
        if not choices or variable not in self.slots:
            raise ValueError(f"rule {rule}: <{name}:{variable}> has no rules or no variable")
        return ByClass(self.slots[variable], choices)

    def _mention(self, rule: str, name: str) -> VariableRef:
        name, _, pool = name.partition("=")
        name, _, form = name.partition(".")
        if name not in self.slots:  # {form}, of the variable declared first
            name, form = next(iter(self.slots)), name
        pool = pool or self.variables[name].pool
        entries = self.pools.get(pool, ())
        if not entries or any(form not in entry for entry in entries):
            raise ValueError(f"rule {rule}: no pool {pool!r}, or no form {form!r} in it")
        distinct_from = self.variables[name].distinct_from
        return VariableRef(
            name,
            self.slots[name],
            form,
            entries,
            self.slots[distinct_from] if distinct_from else -1,
        )

    # Writing

    def write(self, rand: Callable[[], float], derivation: Derivation) -> str:
        """Generate a text. `rand` returns numbers in [0, 1); choices are added to `derivation`."""
        out: list[str] = []
        bindings: list[Entry | None] = [None] * len(self.slots)

        def expand(sequence: tuple[Part, ...]) -> None:
            for part in sequence:
                if isinstance(part, str):
                    out.append(part)
                elif isinstance(part, VariableRef):
                    entry = bindings[part.slot]
                    if entry is None:
                        pool = part.candidates(bindings)
                        index = int(rand() * len(pool))
                        derivation.append((part.name, index, len(pool)))
                        entry = bindings[part.slot] = pool[index]
                    out.append(entry[part.form])
                else:
                    choice, index = chosen_by(part, bindings), 0
                    if choice.count > 1:
                        index = int(rand() * choice.count)
                        derivation.append((choice.name, index, choice.count))
                    expand(choice.alternatives[index])

        expand(self.start)
        return "".join(out)

    # Reading

    def read(self, text: str) -> list[Derivation]:
        """Return all derivations of a text, each as `write` would record it.

        Raises:
            NotAStory: the text has no derivation.
        """
        found: list[Derivation] = []
        furthest = 0
        for agree, _, _, step in self.branches(text):
            furthest = max(furthest, agree)
            if agree > len(text):
                steps = [one for one in history(step) if not one.is_copy]
                found.append([(one.name, one.chosen, one.n_choices) for one in steps])
        if not found:
            raise NotAStory(furthest)
        return found

    def branches(self, text: str) -> Iterator[tuple[int, str, float, Any]]:
        """Yield all that the grammar can generate, as far as it agrees with a text.

        A derivation is followed up to the first character that differs. So there are few branches,
        they exclude each other, and their probabilities add up to 1. This is a depth-first search
        with an explicit stack.

        Yields:
            How many characters agree, where the end of the text counts as one more character; the
            text that comes instead, up to the end of a literal; the probability of the branch; the
            last of its steps.
        """
        unknown: tuple[Entry | None, ...] = (None,) * len(self.slots)
        stack: list[State] = [(0, (self.start[0], None), unknown, 1.0, None)]
        while stack:
            position, rest, bindings, p, step = stack.pop()
            if rest is None:
                yield position + (position == len(text)), "", p, step
                continue
            part, rest = rest
            if isinstance(part, VariableRef):
                slot, known = part.slot, bindings[part.slot]
                pool = (known,) if known else part.candidates(bindings)
                for index, entry in enumerate(pool):
                    stop = position + len(word := entry[part.form])
                    what = (part.name, index, len(pool), position, stop, part.form, bool(known))
                    now = (*bindings[:slot], entry, *bindings[slot + 1 :])
                    stack.append((position, (word, rest), now, p / len(pool), Step(step, *what)))
            elif not isinstance(part, str):
                choice = chosen_by(part, bindings)
                for index, parts in enumerate(choice.alternatives):
                    after, made = rest, step
                    for follow in reversed(parts):
                        after = (follow, after)
                    if choice.count > 1:
                        made = Step(step, choice.name, index, choice.count, position, position + 1)
                    stack.append((position, after, bindings, p / choice.count, made))
            elif text.startswith(part, position):
                stack.append((position + len(part), rest, bindings, p, step))
            else:
                agree = common_prefix(part, text, position)
                yield position + agree, part[agree:], p, step


def common_prefix(literal: str, text: str, position: int) -> int:
    """Return the length of the common prefix of `literal` and `text[position:]`.

    >>> common_prefix("lantern", "a lamp", 2)
    2
    """
    length = 0
    while length < len(literal) and text.startswith(literal[length], position + length):
        length += 1
    return length


def history(step: Step | None) -> list[Step]:
    """Return a step and all before it, the first one first."""
    steps: list[Step] = []
    while step is not None:
        steps.append(step)
        step = step.before
    return steps[::-1]
