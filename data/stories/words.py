"""The words of the stories: the pools that variables are drawn from, and the shared word classes.

Plain tables, one entry per word. Names, things and places stand nowhere else in the grammar, so a
swapped one is always a mistake. Adjectives that follow "a" begin with a consonant.
"""

from __future__ import annotations

import re

from data.stories.template_grammar import Entry, Variable

GIRLS = """Alice Bella Clara Dora Edith Fiona Greta Heidi Ingrid Julia Kate Laura Mabel Nora Olga
    Petra Rita Sofia Tessa Ida Vera Wendy Yara Zoe Emma Lucy Maya Nina Ruth Sara Tina Jane Molly
    Martha Helen Carmen Esther Irene Priya Amina"""
BOYS = """Adam Ben Carlo David Edgar Felix George Hugo Ivan Jack Kofi Liam Max Noah Oscar Peter
    Ruben Simon Tom Umar Victor Walter Xavier Yusuf Zack Henry Arthur Ralph Bruno Daniel Emil
    Finn Gustav Harry James Leo Marco Nils Omar Rashid"""

PRONOUNS = {
    "girl": "she:she She:She her:her Her:Her him:her hers:hers self:herself",
    "boy": "she:he She:He her:his Her:His him:him hers:his self:himself",
}

THINGS = {
    "toy": """kite ball puppet doll robot rocket pinwheel scooter truck marble balloon dinosaur
        wagon""",
    "wear": """scarf hat cap jacket cape crown mask helmet bracelet necklace ring mitten
        sweater""",
    "music": """drum flute whistle trumpet fiddle banjo bell horn harp rattle ukulele guitar
        violin""",
    "tool": """bucket basket lantern spyglass compass umbrella backpack hammer camera shovel
        notebook teapot pencil""",
    "treasure": """coin key feather button seashell pebble stamp locket postcard ribbon medal
        badge crystal""",
}

KINDS = """red blue green yellow purple pink white black brown silver golden striped spotted shiny
    scarlet speckled"""

PLACES = {
    "water": {
        "by": "river lake pond stream canal brook creek lagoon",
        "at": "harbour beach pier seaside dock bay jetty marina",
    },
    "green": {
        "in": "forest meadow orchard garden park valley woods pasture grove clearing vineyard",
        "on": "hill mountain moor hilltop common",
    },
    "town": {
        "at": "market station circus carnival zoo depot inn",
        "near": "bridge castle windmill tower fountain temple",
        "in": "square plaza village",
    },
    "indoor": {
        "in": """attic cellar kitchen barn stable library workshop nursery basement pantry
            bakery laundry shed garage cottage studio""",
    },
}

# Where a thing may lie or an animal may sit, by the class of the place.
SPOTS = {
    "water": """under a boat|behind a rock|beside a net|behind a barrel|under a plank|
        beside a puddle|under a rope|behind some reeds""",
    "green": """under a bush|behind a log|beside a fern|under a pine tree|behind a hedge|
        beside a nettle|under some leaves|behind a tree stump""",
    "town": """under a bench|behind a cart|beside a lamp post|behind a statue|under a stall|
        beside a flower pot|under a ladder|behind a wall""",
    "indoor": """under a table|behind a cupboard|beside a barrel|under a stool|behind a broom|
        beside a sack|under a blanket|behind a curtain""",
}

WEATHERS = """sunny:sunshine windy:wind rainy:rain foggy:fog snowy:snow frosty:frost misty:mist
    breezy:breeze"""

ELDERS = """mother father grandmother grandfather aunt uncle sister brother cousin godmother"""

ANIMALS = """kitten puppy hedgehog rabbit squirrel duckling gosling sparrow pigeon tortoise frog
    mouse lamb piglet hamster beaver lizard magpie crow parrot"""

FOODS = """pancakes muffins cookies dumplings noodles plums cherries raisins toast cheese popcorn
    waffles biscuits pears walnuts buns"""

# What is promised, and how it is told when the promise is kept.
PROMISES = """bake bread:baked bread|bake a cake:baked a cake|plant beans:planted beans|
    plant tulips:planted tulips|paint a fence:painted a fence|paint eggs:painted eggs|
    sing songs:sang songs|play chess:played chess|play cards:played cards|
    tell riddles:told riddles|tell stories:told stories|cook soup:cooked soup|
    squeeze lemons:squeezed lemons|pick berries:picked berries|pick daisies:picked daisies|
    build a fort:built a fort|build a raft:built a raft|draw dragons:drew dragons|
    draw maps:drew maps|dance a jig:danced a jig|knit socks:knitted socks|
    fold paper hats:folded paper hats|string beads:strung beads|race snails:raced snails|
    hunt for clues:hunted for clues|juggle apples:juggled apples|sew a quilt:sewed a quilt|
    blow bubbles:blew bubbles|carve a boat:carved a boat|read poems:read poems|
    write a play:wrote a play|feed the hens:fed the hens"""

WHENS = """tomorrow:The next day|tonight:That night|after supper:After supper|
    at sunset:At sunset|before bedtime:Before bedtime|in the morning:In the morning|
    next week:A week later|very soon:Very soon"""

VARIABLES = {
    "hero": Variable("name", rival="friend"),
    "friend": Variable("name", rival="hero"),
    "thing": Variable("thing", rival="swap"),
    "kind": Variable("kind", rival="tint"),
    "swap": Variable("thing", rival="thing"),
    "tint": Variable("kind", rival="kind"),
    "place": Variable("place"),
    "spot": Variable("spot"),
    "weather": Variable("weather"),
    "elder": Variable("elder"),
    "animal": Variable("animal"),
    "food": Variable("food"),
    "promise": Variable("promise"),
    "when": Variable("when"),
}

# Word classes of single words, and of phrases.
WORDS = {
    "day": "morning afternoon Monday Tuesday Wednesday Thursday Friday Saturday",
    "trait": """kind brave curious cheerful gentle clever quiet lively patient careful friendly
        playful thoughtful merry polite bold""",
    "walked": "walked ran skipped hurried strolled marched wandered raced",
    "manner": "happily slowly quickly cheerfully eagerly quietly merrily bravely",
    "happy": "happy glad proud thankful cheerful joyful delighted content",
    "sad": "sad worried upset gloomy unhappy miserable helpless sorry",
    "very": "very so quite rather",
    "best": "best dearest oldest closest",
    "small": "little young lost frightened tiny shy",
    "busy": "waiting resting drawing humming",
    "pleaded": "begged pleaded cried whispered",
    "said": "said called whispered shouted",
    "answered": "answered replied laughed whispered",
    "nodded": "nodded agreed smiled",
    "stroked": "stroked warmed dried calmed",
    "put": "put placed set laid",
    "saw": "saw spotted noticed found",
    "lovely": "lovely wonderful perfect splendid",
    "person": "farmer baker sailor gardener postman painter shepherd grocer",
}

PHRASES = {
    "together": "side by side|hand in hand|arm in arm|in high spirits|with big smiles|"
    "without delay",
    "long": "for hours|for a while|with great care|with great joy|without a pause|side by side",
    "often": "every day|every morning|after school|all the time|on weekends|whenever {she} could",
    "daily": "every day|every morning|after school|all the time|on weekends|whenever they can",
    "at_last": "At last|Finally|In the end|At long last",
    "suddenly": "All at once|Just then|A moment later|Before long",
    "off_they_went": "off they went|away they went|they set out|they went there",
    "home_spot": "on the shelf|beside the bed|by the window|above the stove|on the desk|"
    "near the door",
    "lair.water": "under a canoe|under a cliff|in a cave|behind a rock",
    "lair.green": "under an oak|in a cave|under a rock|in a hollow tree",
    "lair.town": "under an archway|in a doorway|under a roof|behind a wall",
    "lair.indoor": "under the stairs|in a wardrobe|under a blanket|in a dark corner",
}


def table(words: str) -> list[str]:
    """Splits at bars if there are any, else at white space.

    >>> table("red blue"), table("in a row|at\\n   once")
    (['red', 'blue'], ['in a row', 'at once'])
    """
    return " ".join(words.split()).replace("| ", "|").split("|") if "|" in words else words.split()


def entries(words: str, form: str = "", kind: str = "") -> tuple[Entry, ...]:
    """The entries of a table; after a colon stands the text of one more form.

    >>> entries("sunny:sun", "noun")
    ({'class': '', '': 'sunny', 'noun': 'sun'},)
    """
    pool = []
    for word in table(words):
        main, _, other = word.partition(":")
        pool.append({"class": kind, "": main, **({form: other} if form else {})})
    return tuple(pool)


def people(gender: str, names: str) -> tuple[Entry, ...]:
    """Names with the pronouns of their gender."""
    forms = dict(pair.split(":") for pair in PRONOUNS[gender].split())
    return tuple({"class": gender, "": name, **forms} for name in names.split())


def spots(kind: str) -> tuple[Entry, ...]:
    """Spots of one class of place; the form "the" is for later mentions: "under the bench"."""
    return tuple(
        {"class": kind, "": spot, "the": re.sub(r" (a|some) ", " the ", spot, count=1)}
        for spot in table(SPOTS[kind])
    )


def pools() -> dict[str, tuple[Entry, ...]]:
    """All pools by name. Parts of a pool are pools too, with the same entries: "name", "girl"."""
    made = {"girl": people("girl", GIRLS), "boy": people("boy", BOYS)}
    made["name"] = made["girl"] + made["boy"]
    made["thing"] = tuple(e for kind, words in THINGS.items() for e in entries(words, "", kind))
    made["place"] = tuple(
        {"class": kind, "": noun, "at": f"{preposition} the {noun}"}
        for kind, by_preposition in PLACES.items()
        for preposition, nouns in by_preposition.items()
        for noun in nouns.split()
    )
    for kind in SPOTS:
        made[f"spot.{kind}"] = spots(kind)
    made["spot"] = tuple(entry for kind in SPOTS for entry in made[f"spot.{kind}"])
    made["weather"] = entries(WEATHERS, "noun")
    made["promise"] = entries(PROMISES, "did")
    made["when"] = entries(WHENS, "Then")
    for name, words in (("kind", KINDS), ("elder", ELDERS), ("animal", ANIMALS), ("food", FOODS)):
        made[name] = entries(words)
    return made


def rules() -> dict[str, list[str]]:
    """The word classes as rules of the grammar."""
    rules = {name: table(words) for name, words in {**WORDS, **PHRASES}.items()}
    rules["hero_named"] = ["girl named {hero=girl}", "boy named {hero=boy}"]
    for kind in SPOTS:
        rules[f"spot.{kind}"] = [f"{{spot=spot.{kind}}}"]
    return rules
