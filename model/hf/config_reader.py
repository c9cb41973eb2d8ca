"""Read keys of a Hugging Face config.json, check their types, and refuse those that are not read.

A key that is neither read nor listed as harmless could change the outputs of the model, as
`logit_scale` does. If it were skipped, the outputs would be wrong without a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.config.tables import read_table
from utils.errors import UserError, brief

_KEYS = read_table(Path(__file__).with_name("harmless_keys.yaml"))
# Keys of config.json itself, not of objects in it.
HARMLESS: dict[str, str] = _KEYS["any_value"]  # reason -> keys, separated by spaces
HARMLESS_VALUES: dict[str, Any] = _KEYS["this_value"]  # key -> the value that is harmless
_NAMES = frozenset(name for names in HARMLESS.values() for name in names.split())


class Reader:
    """Reads keys of config.json, or of an object in it, and checks their types.

    Attributes:
        keys_read: the keys that have decided a setting, or were checked.
    """

    def __init__(self, content: Mapping[str, Any], where: str = "") -> None:
        """Read `content`; `where` names it in messages if it is an object in config.json."""
        self.content, self.where = content, where
        self.keys_read: set[str] = set()

    def read(self, key: str, expected_type: type, default: Any = None) -> Any:
        """Return the value of a key, or the default if it is missing or null.

        Raises:
            UserError: missing without a default, of another type, or an integer below 1.
        """
        self.keys_read.add(key)
        value = default if self.content.get(key) is None else self.content[key]
        if value is None:
            raise UserError(f"{self.where}{key} is missing")
        if expected_type is float and type(value) is int:
            value = float(value)
        if type(value) is not expected_type:
            kind = expected_type.__name__
            raise UserError(f"{self.where}{key} is {brief(value)}, not of type {kind}")
        if type(value) is int and value < 1:
            raise UserError(f"{self.where}{key} is {value}, not 1 or more")
        return value

    def require(self, key: str, expected: Any, why: str) -> None:
        """Check that a key has the expected value, if it is present."""
        self.keys_read.add(key)
        value = self.content.get(key)
        if value is not None and value != expected:
            raise UserError(f"{self.where}{key} is {brief(value)}: {why}")

    def theta(self) -> float:
        """Return the base of the rotary frequencies; check that nothing else changes them.

        Versions of transformers differ in which of several places they read: all must agree.
        """
        neox = self.content.get("model_type") == "gpt_neox"
        places = [self.rope_object("rope_scaling"), self.rope_object("rope_parameters"), self]
        theta_key, share_key = "rotary_emb_base", "rotary_pct"
        if not neox:
            theta_key, share_key = "rope_theta", "partial_rotary_factor"
        # The first object that is present decides. What it lacks is read from config.json itself.
        first = next((place for place in places if place.content), self)
        theta = self.read(theta_key, float, 10000.0)
        share = self.read(share_key, float, 0.25 if neox else 1.0)
        if first is not self:
            theta = first.read("rope_theta", float, theta)
            share = first.read("partial_rotary_factor", float, share)
        for place in places:
            for key in ("rope_theta", "rotary_emb_base"):
                place.require(key, theta, f"elsewhere it is {theta}; remove one of them")
            for key in ("partial_rotary_factor", "rotary_pct"):
                place.require(key, 1.0, "TinyGPT rotates the whole head")
        if share != 1:
            raise UserError(f"{share_key} is {share}: TinyGPT rotates the whole head")
        for place in places[:2]:
            place.check_keys()
        return theta

    def rope_object(self, name: str) -> Reader:
        """Return a reader of an object that may change the rotary frequencies; check its type."""
        self.keys_read.add(name)
        rope = self.content.get(name) or {}
        if not isinstance(rope, Mapping):
            raise UserError(f"{name} is {brief(rope)}, not an object")
        reader = Reader(rope, f"{name}: ")
        for key in ("rope_type", "type"):
            reader.require(key, "default", "TinyGPT supports only the default")
        return reader

    def check_keys(self) -> None:
        """Check that no key is skipped that could change the outputs; null counts as missing.

        Raises:
            UserError: names the first such key.
        """
        for key, value in self.content.items():
            harmless = key in _NAMES or HARMLESS_VALUES.get(key, ...) == value
            if value is None or key in self.keys_read or harmless and not self.where:
                continue
            raise UserError(
                f"{self.where}{key} is {brief(value)}: TinyGPT does not read this key, which could "
                "change the outputs; if it does not change them, remove it"
            )
