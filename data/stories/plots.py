"""The frames of the stories: what happens, turn by turn, as templates (see template_grammar.py).

A plot is a row of turns, a turn a handful of frames, a frame a sentence or two. Who, what, where
and what was promised are variables, drawn once and kept to the last sentence.
"""

from __future__ import annotations

from data.stories import plots_friends, plots_things

# The plots. Turns that several plots share stand below, the others in the two files of plots.
STORY = {
    "story": [
        "<open> <own> <go> [<sense:place> <loss> <beg>|<loss> <beg> <search>] <find> <keep> <end>",
        "<open> <own> <go> <storm> <shelter> <comfort> <recover> <keep> <end>",
        "<open> <birthday> <buy> <hide> [<wonder> <lead>|<lead> <sense:place>] <joy> <keep> "
        "<end_gift>",
        "<open> <own> <go> <trade> <regret> <wish> <back> <keep> <end_swap>",
        "<open> <carry> [<sense:place> <cry> <plight> <plan> <rescue>|<cry> <plight> <plan> "
        "<rescue> <feed>] <keep> <end_animal>",
        "<open> <meet> <both> <quarrel> <apart> [<sorry> <turns>|<turns> <peace>] <keep> "
        "<end_shared>",
        "<open> <pal> <leaving> <keepsake> <vow> [<waiting> <return>|<return> <same>] <kept> "
        "<end_far>",
    ],
}

OPENINGS = {
    "open": [
        "One {weather} <day>, a <trait> <hero_named> [woke|got up] [early|with a smile|in a good "
        "mood|full of plans].",
        "Once there was a <trait> <hero_named> who loved [old songs|long walks|funny stories"
        "|loud music|silly jokes] and [sweet pies|big puddles|secret codes|soft rain|old trees].",
        "[Long ago|Not long ago|Some time ago], [in a small town|beyond the mountains|across the "
        "sea|not far from here], there lived a <trait> <hero_named>.",
        "In a [tiny|tall|crooked|cosy|quiet] house with a [round|crooked|mossy|painted] [door"
        "|chimney|roof] lived a <trait> <hero_named>.",
        "It was a {weather} <day>, and {hero} felt [rather|a little|very|quite] [bored|restless"
        "|sleepy|hungry|curious].",
        "Everyone [in town|at school] knew {hero}, a <trait> child with [curly|dark|messy|long] "
        "hair and a [big|shy|warm|crooked] smile.",
        "There was once a <trait> <hero_named> who [hummed|whistled|sang|smiled] while [walking"
        "|washing|thinking|climbing trees|brushing {her} teeth].",
        "On {weather} days, {hero} [usually|always|often] [sang|danced|dreamed|read aloud] [in "
        "the bath|over breakfast|on the stairs|by the stove].",
    ],
}

# The hero has a thing, and goes somewhere with a friend.
BEGINNINGS = {
    "own": [
        "{She} had a {kind} {thing}, a [gift|present] from {her} {elder}, and <use:thing>.",
        "What {hero} loved [best|most] was {her} {kind} {thing}, which {her} {elder} had [found"
        "|bought|chosen|mended].",
        "{Her} {elder} had [once|just|kindly] [given|sent|lent|brought] {him} a {kind} {thing}, "
        "and <use:thing>.",
        "{She} [never|hardly ever|rarely] [left home|went out] without {her} {kind} {thing}, for "
        "<use:thing>.",
        "{Her} [greatest|only|dearest|finest] treasure was a {kind} {thing} that [once belonged "
        "to|came from] {her} {elder}.",
        "{She} owned [just one|one] [special|precious|fine] thing, a {kind} {thing}, and "
        "<use:thing>.",
    ],
    "go": [
        "[So|Then|After breakfast|Before noon] {hero} and {her} friend {friend} <walked> to the "
        "{place} <together>.",
        "{Her} <best> friend {friend} [wanted|asked|longed|hoped] to see the {place}, so "
        "<off_they_went> <together>.",
        "[Soon|That day|Later] {hero} took it to the {place}, and {her} <best> friend {friend} "
        "[came too|went along|followed].",
        '"[Come|Walk|Run|Hurry] with me to the {place}," <said> {hero} to {her} friend {friend}, '
        "and <off_they_went>.",
        "{hero} <walked> to the {place}, where {her} <best> friend {friend} was <busy>.",
        "[So|Soon|That day|Later] {hero} and {her} <best> friend {friend} <walked> through the "
        "{weather.noun} to the {place}.",
    ],
}

# What can be seen and heard, by the class of the place.
SENSES = {
    "sense.water": [
        "[Little|Gentle|Playful] waves [rolled|splashed|danced] <manner>, and [gulls|swans] "
        "[called|drifted past|bobbed about].",
        "The water was [clear|calm|cold|dark], and [fish|crabs|ducks] [played|rested] [near "
        "the shore|in the reeds|all day].",
        "Everything smelled of [salt|seaweed|mud], and a [faded|small|painted] [sail"
        "|boat|raft] [rocked|floated|turned] <manner>.",
        "They [threw|tossed] [flat stones|sticks|pine cones] into the water and [counted|watched"
        "|admired] the [rings|splashes|bubbles].",
    ],
    "sense.green": [
        "The leaves [rustled|whispered|trembled] <manner>, and a [cuckoo|blackbird] "
        "[sang|called|hopped] [nearby|far away].",
        "[Butterflies|Bees|Beetles] [hummed|danced|rested] among the [flowers|ferns|reeds], and "
        "the air smelled of [mint|moss|honey].",
        "They [rolled|jumped|danced] in the [long|soft|wet] grass and [made|wove|tied] [daisy "
        "chains|paper wings|grass skirts].",
        "A [narrow|muddy|sandy] path led [past|around] [old oaks|wild roses|mossy rocks], and "
        "they followed it <manner>.",
    ],
    "sense.town": [
        "[Carts|Bicycles] [rattled|rolled|hurried] past, and a <person> [waved|whistled|bowed] "
        "<manner>.",
        "The air smelled of [fresh bread|hot chocolate|honey|mint], and [people"
        "|old ladies|dogs] [hurried|wandered] [past|about].",
        "They [counted|watched|admired] the [flags|clocks|chimneys] and [laughed at|waved to"
        "|bowed to] a [busy|grumpy|sleepy] <person>.",
        "Somewhere a [choir|band|clock] [began|played] <manner>, and [children|old ladies|two "
        "clowns] [clapped|hummed along|danced].",
    ],
    "sense.indoor": [
        "Dust [danced|floated] in the [pale|warm|dim] light, and the floor [creaked|groaned"
        "|squeaked] at [every|each] step.",
        "It was [warm|cool|quiet|dim] in there and smelled of [old wood|dry hay|candles|honey], "
        "and a [spider|moth|beetle] [rested|climbed] <manner>.",
        "They peeked into [every|each] [drawer|chest|sack] and [played pirates|danced|sang|told "
        "jokes|whispered] <manner>.",
        "[Somewhere|Behind the wall] a [clock|pipe|board] [ticked|hummed|knocked], and they "
        "[giggled|whispered|listened] <manner>.",
    ],
}

ENDINGS = {
    "keep": [
        "{when.Then}, [as promised|just as promised|true to their word], {hero} and {friend} "
        "{promise.did} <long>.",
        "{when.Then} the two friends {promise.did} <long>, [for|because] a promise is a promise.",
        "{when.Then} {hero} <walked> to {friend}, and they {promise.did}, [as promised|just as "
        "promised|true to their word].",
        "{when.Then} {hero} [kept|remembered] their promise and {promise.did} with {friend} "
        "<long>.",
        "{when.Then} they kept their promise: they {promise.did} and [sang|laughed|joked] "
        "[for hours|for a while].",
    ],
    "end": [
        "[Back home|Later|After that], {hero} <put> the {thing} <home_spot> and dreamed of "
        "{friend} and the {place}.",
        "[Ever since|From then on], {hero} and {friend} have [guarded|watched|looked after] "
        "the {thing} well, [even|above all] {place.at}.",
        "And whenever {hero} [sees|holds|cleans] the {kind} {thing}, {she} [thinks of|dreams "
        "of|remembers] {friend} and the {place}.",
        '"A [good|true|kind] friend is [worth more|better|dearer] than any {thing}," {hero} '
        "told {friend} [softly|happily|proudly] {place.at}.",
        "The {kind} {thing} is <home_spot> now, and {hero} and {friend} [often|sometimes|still] "
        "[go back|return] to the {place}.",
        "{Her} {elder} heard [all about|the story of] {friend} and the {place} and [looked at"
        "|admired|cleaned] the {kind} {thing}.",
    ],
}

# What the hero does with a thing of each class; parts of sentences, not counted as frames.
USES = {
    "use.toy": [
        "{she} played with it <often>",
        "it was {her} [favourite|dearest] toy",
        "it made [every game|every day] more fun",
    ],
    "use.wear": [
        "{she} wore it <often>",
        "it suited {him} [well|perfectly]",
        "it made {him} feel [tall|brave|special]",
    ],
    "use.music": [
        "{she} played it <often>",
        "its sound was [sweet|clear|soft]",
        "its music made [people|children] [dance|smile]",
    ],
    "use.tool": [
        "{she} used it <often>",
        "it was useful [everywhere|every day]",
        "it made {him} feel like [a pirate|a <person>]",
    ],
    "use.treasure": [
        "{she} looked at it <often>",
        "it brought {him} [luck|courage]",
        "{she} kept it in {her} [pocket|sleeve|shoe]",
    ],
}


def frames() -> dict[str, list[str]]:
    """The rules whose alternatives are sentences: the turns of the stories."""
    made: dict[str, list[str]] = {}
    for table in (OPENINGS, BEGINNINGS, SENSES, ENDINGS):
        made.update(table)
    for table in (plots_things.LOST, plots_things.STORM, plots_things.GIFT, plots_things.SWAP):
        made.update(table)
    for table in (plots_friends.ANIMAL, plots_friends.QUARREL, plots_friends.FAREWELL):
        made.update(table)
    return made


def rules() -> dict[str, list[str]]:
    """All rules of the plots and their turns; the word classes are in data/stories/words.py."""
    return {**STORY, **frames(), **USES}
