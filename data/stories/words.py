"""The words of the stories: pools that variables are sampled from, and shared word classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data.stories.template_grammar import Entry, Variable
from utils.config.tables import read_table


def tables() -> dict[str, Any]:
    """Return the tables of words.yaml by name."""
    return read_table(Path(__file__).with_name("words.yaml"))


def variables() -> dict[str, Variable]:
    """Return all variables by name."""
    return {name: Variable(**one) for name, one in tables()["variables"].items()}


def table(words: str) -> list[str]:
    """Split the text of a table into entries: at bars if it has any, else at white space.

    >>> table("red blue"), table("in a row|at\\n   once")
    (['red', 'blue'], ['in a row', 'at once'])
    """
    return " ".join(words.split()).replace("| ", "|").split("|") if "|" in words else words.split()


def entries(words: str, form: str = "", class_name: str = "") -> tuple[Entry, ...]:
    """Return the entries of a table. After a colon follows the form that `form` names.

    >>> entries("sunny:sun", "noun")
    ({'class': '', '': 'sunny', 'noun': 'sun'},)
    """
    pool = []
    for word in table(words):
        main, _, other = word.partition(":")
        pool.append({"class": class_name, "": main, **({form: other} if form else {})})
    return tuple(pool)


def people(gender: str, names: str) -> tuple[Entry, ...]:
    """Return names with the pronouns of their gender."""
    forms = dict(pair.split(":") for pair in tables()["pronouns"][gender].split())
    return tuple({"class": gender, "": name, **forms} for name in names.split())


def spots(class_name: str) -> tuple[Entry, ...]:
    """Return the spots of a class of place. Their form for later mentions is named "the"."""
    return tuple(
        {"class": class_name, "": spot, "the": re.sub(r" (a|some) ", " the ", spot, count=1)}
        for spot in table(tables()["spots"][class_name])
    )


def pools() -> dict[str, tuple[Entry, ...]]:
    """Return all pools by name. A subset such as "girl" shares its entries with "name"."""
    made = {"girl": people("girl", tables()["girls"]), "boy": people("boy", tables()["boys"])}
    made["name"] = made["girl"] + made["boy"]
    made["thing"] = tuple(
        e
        for class_name, words in tables()["things"].items()
        for e in entries(words, "", class_name)
    )
    made["place"] = tuple(
        {"class": class_name, "": noun, "at": f"{preposition} the {noun}"}
        for class_name, by_preposition in tables()["places"].items()
        for preposition, nouns in by_preposition.items()
        for noun in nouns.split()
    )
    for class_name in tables()["spots"]:
        made[f"spot.{class_name}"] = spots(class_name)
    made["spot"] = tuple(
        entry for class_name in tables()["spots"] for entry in made[f"spot.{class_name}"]
    )
    made["weather"] = entries(tables()["weathers"], "noun")
    made["promise"] = entries(tables()["promises"], "did")
    made["when"] = entries(tables()["whens"], "Then")
    for name in ("kind", "elder", "animal", "food"):
        made[name] = entries(tables()[f"{name}s"])
    return made


def rules() -> dict[str, list[str]]:
    """Return the rules for interchangeable words and phrases, for the hero and for the spots."""
    rules = {
        name: table(words) for name, words in {**tables()["words"], **tables()["phrases"]}.items()
    }
    rules["hero_named"] = ["girl named {hero=girl}", "boy named {hero=boy}"]
    for class_name in tables()["spots"]:
        rules[f"spot.{class_name}"] = [f"{{spot=spot.{class_name}}}"]
    return rules
