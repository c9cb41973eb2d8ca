"""Bytes spelled with printable characters, as GPT-2's and Hugging Face's files spell tokens.

Printable bytes of Latin-1 stand for themselves, the other 68 for the characters from U+0100 on, in
order (Radford et al. 2019, in the released encoder of GPT-2). Sorted by stand-in, the bytes are in
the order in which both projects number them.
"""

from __future__ import annotations

from functools import lru_cache

_PRINTABLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))


@lru_cache(maxsize=1)
def stand_ins() -> str:
    """256 characters: the stand-in of each byte.

    >>> stand_ins()[ord("a")], stand_ins()[ord(" ")], stand_ins()[0]
    ('a', 'Ġ', 'Ā')
    """
    printable = [byte for group in _PRINTABLE for byte in group]
    rest = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(0x100 + i) for i, byte in enumerate(rest)}
    return "".join(characters[byte] for byte in range(256))


def by_stand_in() -> bytes:
    """The 256 bytes sorted by their stand-ins: byte 0x21 first, 0xAD last.

    >>> by_stand_in()[:3], by_stand_in()[-1:]
    (b'!"#', b'\\xad')
    """
    return bytes(sorted(range(256), key=stand_ins().__getitem__))


def spell(raw: bytes) -> str:
    """Any bytes in stand-ins.

    >>> spell("né n".encode())
    'nÃ©Ġn'
    """
    return raw.decode("latin-1").translate(stand_ins())


def unspell(spelled: str) -> bytes | None:
    """The bytes that were spelled so, or None if a character is no stand-in.

    >>> unspell("nÃ©Ġn").decode(), unspell("two words")
    ('né n', None)
    """
    back = _bytes_of_stand_ins()
    try:
        return bytes([back[character] for character in spelled])
    except KeyError:
        return None


@lru_cache(maxsize=1)
def _bytes_of_stand_ins() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(stand_ins())}
