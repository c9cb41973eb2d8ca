"""The words of the stories: pools that variables are sampled from, and shared word classes."""

import re
from pathlib import Path

from data.stories.template_grammar import Entry, Variable
from utils.config.tables import read_table

TABLES = read_table(Path(__file__).with_name("words.yaml"))


def variables() -> dict[str, Variable]:
    """Return all variables by name."""
    return {name: Variable(**one) for name, one in TABLES["variables"].items()}


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
    forms = dict(pair.split(":") for pair in TABLES["pronouns"][gender].split())
    return tuple({"class": gender, "": name, **forms} for name in names.split())


def spots(class_name: str) -> tuple[Entry, ...]:
    """Return the spots of a class of place. Their form for later mentions is named "the"."""
    return tuple(
        {"class": class_name, "": spot, "the": re.sub(r" (a|some) ", " the ", spot, count=1)}
        for spot in table(TABLES["spots"][class_name])
    )


def pools() -> dict[str, tuple[Entry, ...]]:
    """Return all pools by name. A subset such as "girl" shares its entries with "name"."""
    made = {"girl": people("girl", TABLES["girls"]), "boy": people("boy", TABLES["boys"])}
    made["name"] = made["girl"] + made["boy"]
    made["thing"] = tuple(
        e for class_name, words in TABLES["things"].items() for e in entries(words, "", class_name)
    )
    made["place"] = tuple(
        {"class": class_name, "": noun, "at": f"{preposition} the {noun}"}
        for class_name, by_preposition in TABLES["places"].items()
        for preposition, nouns in by_preposition.items()
        for noun in nouns.split()
    )
    for class_name in TABLES["spots"]:
        made[f"spot.{class_name}"] = spots(class_name)
    made["spot"] = tuple(one for name in TABLES["spots"] for one in made[f"spot.{name}"])
    made["weather"] = entries(TABLES["weathers"], "noun")
    made["promise"] = entries(TABLES["promises"], "did")
    made["when"] = entries(TABLES["whens"], "Then")
    for name in ("kind", "elder", "animal", "food"):
        made[name] = entries(TABLES[f"{name}s"])
    return made


def rules() -> dict[str, list[str]]:
    """Return the rules for interchangeable words and phrases, for the hero and for the spots."""
    rules = {name: table(words) for name, words in (TABLES["words"] | TABLES["phrases"]).items()}
    rules["hero_named"] = ["girl named {hero=girl}", "boy named {hero=boy}"]
    for class_name in TABLES["spots"]:
        rules[f"spot.{class_name}"] = [f"{{spot=spot.{class_name}}}"]
    return rules
