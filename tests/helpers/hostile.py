"""Texts on which tokenizers are likely to differ."""

import random

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
NEARLY_WHITE_SPACE = "\x00\x1c\x1d\x1e\x1f\u180e\u200b\u200c\u200d\u2060\ufeff"
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'\u017f", "''s", "' s"]
COMBINING = ["\u0301", "\u0300\u0323", "\u20dd", "\u0902", "\ufe0f", "\u3099"]
EMOJI = ["😀", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "🇩🇪", "1\ufe0f\u20e3", "👍🏽"]
SCRIPTS = [
    "Zoë",
    "naïve",
    "年号",
    "の",
    "한국어",
    "हिन्दी",
    "עברית",
    "العربية",
    "Ωmega",
    "ǅ",
    "İı",
    "ß",
]
NUMBERS = ["0", "12", "345", "2024", "٣", "½", "Ⅷ", "㉈", "१२"]
WORDS = ["the", " fox", "It", "aaaa", "ab" * 9, "e", "x=1;", "...", "!?", "\\n", "//", "<a>"]
SPECIAL = [
    "<|endoftext|>",
    "<|endoftext",
    "|>",
    "<|endof<|endoftext|>text|>",
    "<|pad|>",
    "two words",
]


def hostile_strings(count, seed=11):
    """`count` short random mixtures of the strings above and of code points except surrogates."""
    rng = random.Random(seed)
    groups = [list(WHITE_SPACE), list(NEARLY_WHITE_SPACE), CONTRACTIONS, COMBINING, EMOJI, SCRIPTS]
    groups += [NUMBERS, WORDS, WORDS, SPECIAL, [" ", "  ", "\n", " " * 7]]

    def part():
        if rng.random() < 0.1:
            code = rng.choice([rng.randrange(0x3000), rng.randrange(0x110000)])
            return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
        return rng.choice(rng.choice(groups)) * rng.choice([1, 1, 1, 1, 2, 3])

    return ["".join(part() for _ in range(rng.randrange(20))) for _ in range(count)]
