"""The layout that docs/architecture.md describes: packages, and allowed imports between modules."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.repo import tracked_files
from tests.helpers.source import (
    OURS,
    PACKAGES,
    PRODUCT,
    PROGRAMS,
    TESTS,
    cycle_of,
    import_graph,
    import_time_nodes,
    imports,
    is_inside,
    local_nodes,
    module_of,
    names_of,
    problems,
    top_of,
    type_checking_nodes,
)

MAX_FILES = 12
BELOW = {"tok", "model", "data", "utils"}
MAY_IMPORT = {
    "utils": set(),
    "tok": {"utils"},
    "model": {"utils"},
    "data": {"tok", "utils"},
    "train": BELOW,
    "sample": BELOW,
    "scripts": {*BELOW, *PROGRAMS},
}
# Rows of modules and packages (a package stands for its modules). A module imports only from its
# own row and the rows before it. If several names match a module, the longest decides.
ROWS = {
    "utils": ("utils", "utils.config", "utils.run"),
    "tok": (
        "tok",
        "tok.encoding",
        "tok.training",
        "tok.tokenizer",
        "tok.formats",
        "tok.cli tok.cli_encode tok.bpe",
    ),
    "model": (
        "model",
        "model.gpt",
        "model.load model.flops model.hf model.internals",
        "model.sampling",
        "model.training",
    ),
    "data": (
        "data",
        "data.download",
        "data.stories",
        "data.document_source",
        "data.prepare",
        "data.dataset",
    ),
}
SUB_PACKAGES = {module_of(path) for path in PRODUCT if path.name == "__init__.py"}

# requirements.txt, by import name. tok needs only NumPy, and tqdm if a progress bar is shown.
INSTALLED = {"torch", "numpy", "yaml", "tqdm", "matplotlib", "pooch", "filelock", "psutil"}
UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
NETWORK = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "xmlrpc", "socketserver"}
NETWORK |= {"requests", "httpx", "httpx2", "aiohttp", "urllib3", "websockets", "wandb", "boto3"}
NETWORK |= {"pooch", "torch.distributed"}
CONNECTS = {
    "data.download.__main__": "pooch requests",
    "utils.distributed": "torch.distributed",
}

# Imports that are allowed inside functions of any module, with the reason:
LATE = {
    "gguf safetensors transformers tokenizers tensorboard torch.utils.tensorboard": "an extra",
    "rustbpe gigabpe gigatoken tiktoken quicktok xllamacpp": "another project, timed if installed",
    "distributed": "an extra, for clusters",
    "resource readline": "not on every system",
    "matplotlib": "takes a second to import; only plots need it",
}
# Imports that are allowed inside functions of one module, with the reason:
LATE_HERE = {
    "data.download.__main__": {
        "pooch": "loads requests; only downloads need it",
        "requests": "takes a third of a second to import; only downloads need it",
    },
    "scripts.sweep.__main__": {"scripts.sweep.plots": "loads Matplotlib; needed at the end only"},
}

# All of scripts/ may import these.
SHARED = "scripts.report scripts.matmul_peak scripts.constraints scripts.export.gguf"
SHARED += " scripts.intervals scripts.scaling_law scripts.finished"


def fits(name: str, prefixes: str) -> bool:
    return any(is_inside(name, prefix) for prefix in prefixes.split())


def row_of(name: str) -> int:
    """Return the index of the row in ROWS that a dotted name belongs to."""
    rows = ROWS[top_of(name)]
    matching = [
        (len(prefix), row)
        for row, names in enumerate(rows)
        for prefix in names.split()
        if is_inside(name, prefix)
    ]
    return max(matching)[1]


def home_of(name: str) -> str:
    """Return the package that contains a module or a name imported from it."""
    parts = name.split(".")
    chain = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return next(one for one in reversed(chain) if one in SUB_PACKAGES)


def rule_layers(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    top = top_of(module)
    for line, name in imports(tree):
        other = top_of(name)
        if other in OURS and other != top and other not in MAY_IMPORT.get(top, set()):
            yield line, f"{module} imports {name}"
        elif other == top in ROWS and row_of(name) > row_of(module):
            yield line, f"{module} imports {name}, which is in a later row"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, f"{module} has a relative import: name the module"


def rule_scripts(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A program may not import another program, nor a subpackage of a program a sibling."""
    for line, name in imports(tree):
        if top_of(name) != "scripts" or top_of(module) != "scripts" or fits(name, SHARED):
            continue
        upwards = is_inside(module, home_of(name)) and home_of(name) != "scripts"
        if not upwards and not (module.endswith("__main__") and is_inside(name, home_of(module))):
            yield line, f"{module} imports {name}"


def rule_third_party(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    tok = top_of(module) == "tok"
    known = sys.stdlib_module_names | OURS | (INSTALLED if not tok else {"numpy"})
    at_import = {id(node) for node in import_time_nodes(tree)}
    for node in ast.walk(tree):
        for name in names_of(node):
            if top_of(name) in UNSAFE and not name.endswith(".UnpicklingError"):
                yield node.lineno, f"unsafe: {name}"
            bar = tok and fits(name, "tqdm") and id(node) not in at_import
            if top_of(name) in known or bar:
                continue
            if tok:
                yield node.lineno, f"{name}: tok may need only NumPy, and tqdm for progress bars"
            elif id(node) in at_import:
                yield node.lineno, f"{name} is not a dependency: import it in the function"


def rule_late_imports(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    allowed = " ".join([*LATE, *LATE_HERE.get(module, {})])
    allowed += " tqdm" if top_of(module) == "tok" else ""
    for node in local_nodes(tree):
        for name in names_of(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            if not fits(name, allowed):
                yield node.lineno, f"{name} is imported in a function: import it at the top"
    for node in type_checking_nodes(tree):
        for name in names_of(node):
            if top_of(name) in OURS:
                yield node.lineno, f"{name} is imported for types only: import it at the top"


def rule_network(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, name in imports(tree):
        network = fits(name, " ".join(NETWORK)) and not name.startswith("urllib.parse")
        if network and not fits(name, CONNECTS.get(module, "")):
            yield line, f"network: {name}"
        if is_inside(name, "data.download") and not is_inside(module, "data.download"):
            if not is_inside(name, "data.download.known_corpora"):
                yield line, f"only data.download may download: {name}"


def rule_test_helpers(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, name in imports(tree):
        if top_of(name) == "tests" and any(part.startswith("test_") for part in name.split(".")):
            yield line, f"{module} imports {name}: helpers of several files belong to tests/helpers"


RULES = (rule_layers, rule_scripts, rule_third_party, rule_late_imports, rule_network)


def too_large(files: list[Path]) -> dict[str, int]:
    """Return the folders with more than MAX_FILES Python files, and their number of files."""
    sizes = Counter(str(path.parent) for path in files)
    return {name: size for name, size in sizes.items() if size > MAX_FILES}


def test_the_product_follows_the_rules() -> None:
    assert [problem for path in PRODUCT for problem in problems(path, RULES)] == []


def test_no_test_file_imports_another() -> None:
    assert [problem for path in TESTS for problem in problems(path, (rule_test_helpers,))] == []


def test_there_are_no_import_cycles() -> None:
    sources = {module_of(path): ast.parse(path.read_bytes()) for path in PRODUCT}
    assert cycle_of(import_graph(sources)) == []


def test_the_top_level_has_only_the_packages_and_programs() -> None:
    paths = [path.relative_to(ROOT) for path in tracked_files() if path.suffix == ".py"]
    modules = {path.stem for path in paths if len(path.parts) == 1}
    folders = {path.parts[0] for path in paths if len(path.parts) > 1}
    assert modules == set(PROGRAMS)
    assert folders - {"tests", "docs"} == set(PACKAGES)


def test_every_folder_is_a_package_with_few_files() -> None:
    assert too_large([path for path in PRODUCT if path.parent != ROOT]) == {}
    homes = {path.parent for path in PRODUCT if path.parent != ROOT}
    assert [home for home in homes if not (home / "__init__.py").is_file()] == []
    assert too_large([Path("tok") / f"{n}.py" for n in range(MAX_FILES)]) == {}
    assert too_large([Path("tok") / f"{n}.py" for n in range(MAX_FILES + 1)]) == {"tok": 13}


@pytest.mark.parametrize(
    ("sources", "cycle"),
    [
        ({"a": "import b", "b": "import c", "c": "x = 1"}, None),
        ({"a": "import b", "b": "import c", "c": "from a import x"}, {"a", "b", "c"}),
        ({"a": "def f():\n    import b", "b": "from a import f"}, {"a", "b"}),
        ({"a": "if TYPE_CHECKING:\n    import b", "b": "import a"}, {"a", "b"}),
        ({"p": "from p.a import x", "p.a": "from p.b import x", "p.b": ""}, None),
        ({"p": "from p.a import x", "p.a": "from p import y"}, {"p", "p.a"}),
        ({"p": "import b", "p.a": "", "b": "import p.a"}, {"p", "b"}),
        ({"a": "importlib.import_module('b')", "b": "import a"}, {"a", "b"}),
    ],
)
def test_a_cycle_is_found(sources: dict[str, str], cycle: set[str] | None) -> None:
    graph = import_graph({name: ast.parse(source) for name, source in sources.items()})
    assert set(cycle_of(graph)) == (cycle or set())


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (rule_layers, "tok.errors", "import model.gpt"),
        (rule_layers, "model.gpt", "from data import batches"),
        (rule_layers, "model.gpt", "if TYPE_CHECKING:\n    from tok.tokenizer import BPETokenizer"),
        (rule_layers, "utils.files", "def f():\n    from tok.tokenizer import BPETokenizer"),
        (rule_layers, "data.prepare", "import importlib\nimportlib.import_module('model.gpt')"),
        (rule_layers, "train", "import scripts.eval"),
        (rule_layers, "train", "import sample"),
        (rule_layers, "sample", "from train import Config"),
        (rule_layers, "train", "import scripts.bench.train"),
        (rule_layers, "utils.files", "import tests.conftest"),
        (rule_layers, "scripts.plot", "from . import sweep"),
        (rule_layers, "model.config", "from model.gpt import TinyGPT"),
        (
            rule_layers,
            "model.sampling.generate",
            "from model.training.loss import cross_entropy_per_token",
        ),
        (rule_layers, "model.hf.folder", "import model.sampling.generate"),
        (rule_layers, "utils.config.load", "from utils.run.folder import RunFolder"),
        (rule_layers, "utils.files", "import utils.config.load"),
        (rule_layers, "tok.encoding.parallel", "from tok.tokenizer import BPETokenizer"),
        (rule_layers, "tok.encoding.batch", "import tok.training.learn"),
        (rule_layers, "data.stories.story", "import data.prepare"),
        (rule_scripts, "scripts.bench.train", "from scripts import sweep"),
        (rule_scripts, "scripts.plot", "import scripts.bench"),
        (rule_scripts, "scripts.export.gguf", "import scripts.plot"),
        (rule_scripts, "scripts.eval.heatmap", "from scripts.sweep.plots import plot"),
        (rule_scripts, "scripts.bench.race.command", "import scripts.bench.tokenizer.corpus"),
        (rule_scripts, "scripts.bench.train", "import scripts.bench.race.plot"),
        (rule_third_party, "tok.errors", "def f():\n    import torch"),
        (rule_third_party, "tok.errors", "import yaml"),
        (rule_third_party, "tok.errors", "from tqdm import tqdm"),
        (rule_third_party, "model.gpt", "import transformers"),
        (rule_third_party, "utils.files", "import pickle"),
        (rule_third_party, "utils.files", "from pickle import load"),
        (rule_late_imports, "utils.files", "def f():\n    import json"),
        (rule_late_imports, "tok.patterns", "def f():\n    import numpy as np"),
        (rule_late_imports, "scripts.plot", "def f():\n    import torch"),
        (rule_late_imports, "train", "class A:\n    def f(self):\n        import sample"),
        (rule_late_imports, "utils.files", "if TYPE_CHECKING:\n    import utils.errors"),
        (rule_network, "utils.files", "def f():\n    import socket"),
        (rule_network, "utils.files", "import urllib.request"),
        (rule_network, "utils.files", "import torch.distributed as dist"),
        (rule_network, "utils.files", "from torch import distributed"),
        (rule_network, "data.prepare", "import pooch"),
        (rule_network, "data.download.known_corpora", "import pooch"),
        (rule_network, "train", "from data.download.__main__ import main"),
        (rule_test_helpers, "tests.tok.test_a", "from tests.tok.test_b import helper"),
        (rule_test_helpers, "tests.tok.test_a", "def test():\n    from tests.tok import test_b"),
    ],
)
def test_a_rule_finds_violations(rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.prepare", "from tok.tokenizer import BPETokenizer\nimport data.token_file, numpy"),
        ("train", "import model.gpt, data.prepare, tok.tokenizer, utils.config.load, torch"),
        ("scripts.plot", "import train\nfrom sample import load_run"),
        (
            "scripts.sweep.pools",
            "import scripts.sweep.grid\ndef f():\n    import distributed",
        ),
        ("scripts.bench.race.command", "import scripts.bench.timing, scripts.bench.race.plot"),
        ("scripts.bench.__main__", "import scripts.bench.race.command"),
        ("tok.encoding.progress", "def f():\n    from tqdm import tqdm"),
        ("tok.cli", "from tok.tokenizer import BPETokenizer\nimport tok.formats.convert"),
        ("model.training.trainer", "import model.sampling.generate, model.hf.pretrained"),
        ("utils.run.plot", "from utils.config.load import load\ndef f():\n    import matplotlib"),
        ("utils.files", "from pickle import UnpicklingError\nif TYPE_CHECKING:\n    import dask"),
        ("utils.distributed", "import torch.distributed as dist"),
        ("data.document_source", "from data.download.known_corpora import CORPORA"),
    ],
)
def test_the_rules_accept_good_code(module: str, source: str) -> None:
    assert [what for rule in RULES for _, what in rule(module, ast.parse(source))] == []


def test_every_exception_to_the_rules_is_used() -> None:
    used = {module_of(path): ast.parse(path.read_bytes()) for path in PRODUCT}
    late = {name for tree in used.values() for node in local_nodes(tree) for name in names_of(node)}
    words = " ".join(LATE).split()
    assert [word for word in words if not any(is_inside(name, word) for name in late)] == []
    for module, names in [*LATE_HERE.items(), *CONNECTS.items()]:
        found = {name for _, name in imports(used[module])}
        words = names.split() if isinstance(names, str) else list(names)
        assert [word for word in words if not any(is_inside(one, word) for one in found)] == []
