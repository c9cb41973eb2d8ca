"""A strict subset of YAML: read files of settings with line numbers, and format values."""

import contextlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from utils.errors import UserError, one_line
from utils.files import decode_utf8, read_bytes
from utils.suggest import nearest

MAX_NODES = 100_000  # values in a file or flag; an aliased value counts at each use
MAX_CHARS = 10_000_000  # in a file; PyYAML takes seconds and 10 MB of memory for each million


class StrictLoader(yaml.SafeLoader):
    """YAML without the traps of version 1.1: 3e-4 is a number, but yes, on and 1:30 are text."""

    n_nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; refuse to build more than MAX_NODES."""
        self.n_nodes += 1
        if self.n_nodes > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} values")
        return super().compose_node(parent, index)

    def get_single_node(self) -> Any:
        """Return the root.

        Raises:
            yaml.YAMLError: no valid YAML, nested too deeply, or too large with its aliases.
        """
        try:
            root = super().get_single_node()
        except RecursionError:
            raise yaml.YAMLError("nested too deeply") from None
        n_nodes, pending = 0, [root]
        while pending:
            value = getattr(pending.pop(), "value", None)
            children = value if isinstance(value, list) else []
            nodes = [one for pair in children for one in (pair if type(pair) is tuple else [pair])]
            n_nodes += len(nodes)
            if n_nodes > MAX_NODES:
                raise yaml.YAMLError(f"its aliases repeat more than {MAX_NODES:,} values")
            pending += nodes
        return root

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node.

        Raises:
            ConstructorError: none, as in `!!bool 3`, or an integer of more than 1000 digits.
        """
        with contextlib.suppress(LookupError, ValueError, TypeError, AttributeError):
            value = super().construct_object(node, deep)
            if not isinstance(value, int) or abs(value) < 10**1000:
                return value
        problem = f"{str(node.value):.40} is not a value of type {node.tag.rpartition(':')[2]}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def parse_value(text: str) -> Any:
    """Parse the value of a flag as YAML: `3e-4` is a number, `[a, b]` a list, `abc` text.

    What is not valid YAML is text, too.
    """
    try:
        return yaml.load(text, StrictLoader)
    except (yaml.YAMLError, RecursionError):  # RecursionError: hundreds of brackets
        return text


def format_value(value: Any) -> str:
    """Return one value as a line of YAML that is read back exactly.

    >>> format_value(0.0003), format_value((0.9, 0.95)), format_value("yes"), format_value(None)
    ('0.0003', '[0.9, 0.95]', '"yes"', 'null')
    """
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", value)
        reserved = parse_value(value) != value or value.lower() in {"yes", "no", "on", "off"}
        return value if plain and not reserved else '"' + _escape(value) + '"'
    return repr(value)


def _escape(text: str) -> str:
    """Return the inside of a double-quoted YAML scalar, with escapes for unprintable characters."""
    quoted = {"\\": "\\\\", '"': '\\"'}
    return "".join(
        quoted.get(char) or (char if char.isprintable() else f"\\U{ord(char):08x}") for char in text
    )


def unknown_key(name: str, fields: Collection[str]) -> str:
    """Return the message for a name that is not a setting, with the nearest one that is.

    >>> unknown_key("model.n_layers", {"model.n_layer": 0, "optim.lr": 0})
    'unknown key model.n_layers (did you mean model.n_layer?)'
    """
    sections = {field.rpartition(".")[0] for field in fields} - {"", name}
    near = nearest(name, [*fields, *sorted(sections)])
    return f"unknown key {name}" + (f" (did you mean {near}?)" if near else "")


def read_yaml(path: str, fields: Mapping[str, Any]) -> dict[str, tuple[Any, int]]:
    """Read dotted name -> (value, line) from a file.

    Args:
        fields: the names of all settings, see `flat_fields`.

    Raises:
        UserError: invalid YAML, or a key that is not a setting or is given twice.
    """
    text = decode_utf8(read_bytes(path), path, hint="save it as UTF-8")
    found: dict[str, tuple[Any, int]] = {}
    seen: dict[str, int] = {}  # name -> line

    def collect(node: yaml.Node, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            holder = f"section {prefix[:-1]}" if prefix else "the file"
            where = f"{path}:{node.start_mark.line + 1}"
            raise UserError(f"{where}: {holder} must hold `name: value` lines")
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            where = f"{path}:{line}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{where}: a key must be a plain name, not a list or a mapping")
            name = prefix + str(key_node.value)
            if name in seen:
                raise UserError(
                    f"{where}: {name} given twice (first on line {seen[name]}); drop one"
                )
            seen[name] = line
            if name in fields:
                found[name] = (loader.construct_object(value_node, deep=True), line)
            elif not any(field.startswith(name + ".") for field in fields):
                raise UserError(f"{where}: {unknown_key(name, fields)}")
            elif not _is_null(value_node):
                collect(value_node, name + ".")

    try:
        if len(text) > MAX_CHARS:
            raise yaml.YAMLError(f"more than {MAX_CHARS:,} characters")
        loader = StrictLoader(text)
        root = loader.get_single_node()
        if root is not None and not _is_null(root):
            collect(root, "")
        return found
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        problem = one_line(getattr(error, "problem", error))
        raise UserError(f"{where}: not valid YAML: {problem}") from None


def _is_null(node: yaml.Node) -> bool:
    """Return whether a node is empty, as in `model:` with nothing below it."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
