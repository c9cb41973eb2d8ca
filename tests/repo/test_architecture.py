"""The rules of docs/architecture.md, checked by reading the source of every file."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("tok", "model", "utils", "data", "scripts")
PROGRAMS = tuple(sorted(path.stem for path in ROOT.glob("*.py")))  # train, sample, ...
OURS = {*PACKAGES, *PROGRAMS, "train", "sample", "tests"}
BELOW = {"tok", "model", "data", "utils"}
MAY_IMPORT = {
    "utils": set(),
    "tok": {"utils"},
    "model": {"utils"},
    "data": {"tok", "utils"},
    "scripts": BELOW | set(PROGRAMS),
} | {program: BELOW | (set(PROGRAMS) - {"train", "sample"}) for program in PROGRAMS}

# requirements.txt, by import name
INSTALLED = {"torch", "numpy", "yaml", "tqdm", "matplotlib", "filelock", "pooch", "psutil"}
NETWORK = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "xmlrpc", "socketserver"}
NETWORK |= {
    "pooch",
    "requests",
    "httpx",
    "httpx2",
    "aiohttp",
    "urllib3",
    "websockets",
    "wandb",
    "boto3",
}
UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

PRODUCT = sorted(
    path
    for path in [
        *ROOT.glob("*.py"),
        *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py")),
    ]
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
Rule = Callable[[str, ast.Module], Iterator[tuple[int, str]]]


def owner_of(path: Path) -> str:
    """The package, or the program, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and name_of(node.func) in {"__import__", "import_module"}:
            yield node.lineno, str(getattr(node.args[0], "value", "")) if node.args else ""


def name_of(node: ast.expr) -> str:
    """`load` of both `load` and `torch.load`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def full_name(node: ast.expr) -> str:
    """`torch.load` of that call's function; what is not a chain of names is dropped."""
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def rule_layers(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, name in imports(tree):
        top = name.partition(".")[0]
        forbidden = OURS - {owner} - MAY_IMPORT[owner] | ({"scripts", "tests"} & OURS)
        if owner == "scripts" and name.startswith(("scripts.bench_", "scripts.sweep_")):
            continue  # the parts of scripts.bench and scripts.sweep, programs in several files
        if top in forbidden:
            yield line, f"{owner} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (
            node.level > 1 or owner == "scripts" and node.level
        ):
            yield node.lineno, f"{owner} imports outside itself by dots"


def rule_third_party(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    allowed = INSTALLED if owner != "tok" else {"numpy", "tqdm"}
    known = sys.stdlib_module_names | OURS | allowed | {"__future__", ""}
    at_import = {id(node) for node in module_level(tree)}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for line, name in imports(ast.Module(body=[node], type_ignores=[])):
            top = name.partition(".")[0]
            if top in UNSAFE and [alias.name for alias in node.names] != ["UnpicklingError"]:
                yield line, f"unsafe: {name}"
            if top not in known and (id(node) in at_import or owner == "tok"):
                yield line, f"{name} is no dependency: import it in the function that needs it"
            if owner == "tok" and top == "tqdm" and id(node) in at_import:
                yield line, "tok needs NumPy alone: import tqdm where a bar is shown"


def rule_network(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, name in imports(tree):
        if name.partition(".")[0] in NETWORK and name != "urllib.parse":
            yield line, f"network: {name}"
        if name.startswith("data.download.fetch"):
            yield line, "only data.download downloads"
        if name.startswith("torch.distributed"):
            yield line, "only utils.distributed talks to other processes"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "data":
            if "fetch" in [alias.name for alias in node.names]:
                yield node.lineno, "only data.download downloads"


def module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported, decorators and defaults left aside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from module_level(node)


def rule_no_call_at_import(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in module_level(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, f"runs at import: {ast.unparse(node)}"


def rule_encoding(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or keyword(node, "encoding"):
            continue
        name, method = name_of(node.func), isinstance(node.func, ast.Attribute)
        whole = full_name(node.func)
        # The last two open an address and a member of a zip file, both as bytes.
        if name == "open" and whole not in {"os.open", "Image.open", "web.open", "zipped.open"}:
            position = 0 if method and whole not in {"io.open", "gzip.open"} else 1
            given = node.args[position] if len(node.args) > position else keyword(node, "mode")
            no_file = method and not given and not node.args and not node.keywords and position == 0
            mode = constant(given) if given is not None else "r"
            if no_file and owner != "tests" and "path" not in whole.lower():
                continue  # some object's own open(), such as a run folder's
            if not (isinstance(mode, str) and "b" in mode):
                yield node.lineno, f"no encoding: {ast.unparse(node)}"
        elif name in {"fdopen", "TextIOWrapper"} or method and name in {"read_text", "write_text"}:
            binary = name == "fdopen" and len(node.args) > 1 and "b" in str(constant(node.args[1]))
            if not binary and not (name == "read_text" and node.args):
                yield node.lineno, f"no encoding: {ast.unparse(node)}"
        elif constant(keyword(node, "text")) is True and name in {"run", "Popen", "check_output"}:
            yield node.lineno, f"no encoding: {ast.unparse(node)[:60]}"


def rule_safe_loading(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        whole = full_name(node.func)
        if whole == "torch.load" and constant(keyword(node, "weights_only")) is not True:
            yield node.lineno, "torch.load without weights_only=True"
        builtin = isinstance(node.func, ast.Name) and whole in {"eval", "exec", "compile"}
        if builtin or whole in {"yaml.unsafe_load", "yaml.full_load", "os.system"}:
            yield node.lineno, f"unsafe: {whole}"
        if (
            constant(keyword(node, "allow_pickle")) is True
            or constant(keyword(node, "shell")) is True
        ):
            yield node.lineno, f"unsafe: {ast.unparse(node)[:60]}"


def rule_length(owner: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines, {MAX_FUNCTION_LINES} at most"


RULES = (
    rule_layers,
    rule_third_party,
    rule_network,
    rule_encoding,
    rule_safe_loading,
    rule_length,
)
# What opens connections, and the one program that may ask it to.
DOWNLOADS = [ROOT / "data" / "fetch.py", ROOT / "data" / "download.py"]
CONNECTS = [*DOWNLOADS, ROOT / "utils" / "ranks.py"]
TEST_RULES = (rule_encoding, rule_length)


def problems(path: Path, rules: tuple[Rule, ...]) -> list[str]:
    """`file:line: problem` of everything in a file that breaks a rule."""
    raw = path.read_bytes()
    owner, tree = owner_of(path), ast.parse(raw)
    rules = tuple(r for r in rules if r is not rule_network or path not in CONNECTS)
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}" for r in rules for line, what in r(owner, tree)
    ]
    if raw.count(b"\n") > MAX_FILE_LINES:
        found.append(f"{path.relative_to(ROOT)}: more than {MAX_FILE_LINES} lines")
    return found


def test_the_product_keeps_the_rules():
    assert [problem for path in PRODUCT for problem in problems(path, RULES)] == []


def test_the_tests_keep_the_rules_that_are_theirs():
    assert [problem for path in TESTS for problem in problems(path, TEST_RULES)] == []


def test_nothing_runs_when_a_program_is_imported():
    for path in ROOT.glob("*.py"):
        assert problems(path, (rule_no_call_at_import,)) == []


def test_every_package_has_its_init():
    assert [name for name in PACKAGES if not (ROOT / name / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("rule", "owner", "source"),
    [
        (rule_layers, "tok", "import model.gpt"),
        (rule_layers, "model", "from data import batches"),
        (rule_layers, "utils", "def f():\n    from tok.tokenizer import BPETokenizer"),
        (rule_layers, "data", "import importlib\nimportlib.import_module('model.gpt')"),
        (rule_layers, "train", "import scripts.eval"),
        (rule_layers, "train", "import sample"),
        (rule_layers, "scripts", "from scripts import sweep"),
        (rule_layers, "scripts", "import scripts.bench"),
        (rule_layers, "train", "import scripts.bench.train"),
        (rule_layers, "scripts", "from . import sweep"),
        (rule_layers, "utils", "import tests.conftest"),
        (rule_third_party, "tok", "def f():\n    import torch"),
        (rule_third_party, "tok", "import yaml"),
        (rule_third_party, "tok", "from tqdm import tqdm"),
        (rule_third_party, "model", "import transformers"),
        (rule_network, "utils", "def f():\n    import socket"),
        (rule_network, "utils", "import urllib.request"),
        (rule_network, "utils", "import torch.distributed as dist"),
        (rule_network, "train", "from data.download.fetch import fetch"),
        (rule_network, "scripts", "from data import batches, fetch"),
        (rule_third_party, "utils", "import pickle"),
        (rule_encoding, "utils", "open('x')"),
        (rule_encoding, "utils", "open('x', 'w', newline='')"),
        (rule_encoding, "utils", "path.open()"),
        (rule_encoding, "utils", "path.open('w')"),
        (rule_encoding, "utils", "Path('x').read_text()"),
        (rule_encoding, "utils", "Path('x').write_text('a')"),
        (rule_encoding, "utils", "subprocess.run(['x'], text=True)"),
        (rule_safe_loading, "model", "import torch\ntorch.load('x')"),
        (rule_safe_loading, "model", "torch.load('x', weights_only=False)"),
        (rule_safe_loading, "model", "np.load('x', allow_pickle=True)"),
        (rule_safe_loading, "model", "eval('1')"),
        (rule_safe_loading, "model", "exec('1')"),
        (rule_length, "model", "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES),
        (rule_no_call_at_import, "train", "print('hello')"),
        (rule_no_call_at_import, "train", "for i in range(3):\n    pass"),
        (rule_no_call_at_import, "train", "X = torch.zeros(3)"),
    ],
)
def test_a_rule_finds_what_breaks_it(rule, owner, source):
    assert list(rule(owner, ast.parse(source)))


@pytest.mark.parametrize(
    ("owner", "source"),
    [
        (
            "data",
            "from tok.tokenizer import BPETokenizer\nfrom data.batches import x\nimport numpy",
        ),
        ("train", "import model.gpt, data.prepare, tok.tokenizer, utils.config.load, torch"),
        ("scripts", "import train\ndef f():\n    import dask"),
        ("tok", "def f():\n    from tqdm import tqdm"),
        ("utils", "open('x', 'rb')\nopen('x', encoding='utf-8')\npath.open('wb')\nrun.open()"),
        ("utils", "from pickle import UnpicklingError\nwrite_text(path, ids)"),
        ("utils", "os.open('x', os.O_RDONLY)\nPath('x').read_text(encoding='utf-8')"),
        ("model", "torch.load('x', weights_only=True)\nmodel.eval()\nre.compile('x')\nf(1).eval()"),
        ("train", "if __name__ == '__main__':\n    run_cli(main)"),
    ],
)
def test_the_rules_let_good_code_pass(owner, source):
    tree = ast.parse(source)
    rules = (*RULES, rule_no_call_at_import) if owner == "train" else RULES
    assert [what for rule in rules for _, what in rule(owner, tree)] == []


IMPORT_ALL = """
import importlib, json, os, random, sys, threading
names, forbidden = json.loads(sys.argv[1])
before, state = set(sys.modules), random.getstate()
for name in names:
    importlib.import_module(name)
    loaded = sorted(set(forbidden) & set(sys.modules))
    assert not loaded, f"{name} loads {loaded}"
assert random.getstate() == state, "the random state was changed"
assert threading.active_count() == 1, threading.enumerate()
if "torch" in sys.modules:
    import torch
    assert torch.initial_seed() == torch.default_generator.initial_seed()
    assert not torch.cuda.is_initialized()
assert os.listdir(".") == [], "files were made"
"""


def module_names(*owners: str) -> list[str]:
    names = []
    for path in PRODUCT:
        if owner_of(path) in owners and path.name != "__main__.py":
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize(
    ("owners", "forbidden"),
    [
        (("tok",), ["torch", "yaml", "matplotlib", "tqdm", "model", "data"]),
        (("utils",), ["tok", "model", "data", "train", "tokenizers"]),
        (("model", "data"), ["matplotlib", "transformers", "train"]),
        (
            ("scripts", *PROGRAMS),
            ["dask", "transformers", "wandb", "tensorboard", "data.download.fetch"],
        ),
    ],
)
def test_importing_prints_nothing_and_loads_no_more_than_needed(
    owners, forbidden, run_python, tmp_path
):
    names = json.dumps([module_names(*owners), forbidden])
    done = run_python("-c", IMPORT_ALL, names, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
