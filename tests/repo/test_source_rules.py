"""Rules for each source file: explicit encodings, nothing unsafe, no work at import, length."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.source import (
    PRODUCT,
    PROGRAMS,
    TESTS,
    constant,
    full_name,
    import_time_nodes,
    keyword,
    module_of,
    name_of,
    problems,
    top_of,
)

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
DOC = "'Do things.'\nfrom __future__ import annotations\n"
SIGINT = "if __name__ == '__main__':\n    before_slow_imports()\n"
MAIN = "if __name__ == '__main__':\n    run_cli(main)\n"


def rule_no_call_at_import(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in import_time_nodes(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, f"runs at import: {ast.unparse(node)}"


def rule_encoding(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or keyword(node, "encoding"):
            continue
        name, method = name_of(node.func), isinstance(node.func, ast.Attribute)
        whole = full_name(node.func)
        # Not open() of a class, which creates an object, nor of a zip file, which opens bytes.
        others = {"os.open", "zipped.open"}
        if name == "open" and whole not in others and not whole[0].isupper():
            position = 0 if method and whole not in {"io.open", "gzip.open"} else 1
            given = node.args[position] if len(node.args) > position else keyword(node, "mode")
            no_file = method and not given and not node.args and not node.keywords and position == 0
            mode = constant(given) if given is not None else "r"
            if no_file and top_of(module) != "tests" and "path" not in whole.lower():
                continue  # the open() method of another object, such as a run folder
            if not (isinstance(mode, str) and "b" in mode):
                yield node.lineno, f"no encoding: {ast.unparse(node)}"
        elif name in {"fdopen", "TextIOWrapper"} or method and name in {"read_text", "write_text"}:
            binary = name == "fdopen" and len(node.args) > 1 and "b" in str(constant(node.args[1]))
            if not binary and not (name == "read_text" and node.args):
                yield node.lineno, f"no encoding: {ast.unparse(node)}"
        elif constant(keyword(node, "text")) is True and name in {"run", "Popen", "check_output"}:
            yield node.lineno, f"no encoding: {ast.unparse(node)[:60]}"


def rule_safe_loading(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
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


def rule_length(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"


def rule_ctrl_c_first(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A program handles Ctrl-C before all imports but os and sys, which Python has loaded."""
    if "run_cli(main)" not in ast.unparse(tree.body[-1]):
        return
    start = [ast.unparse(node) for node in tree.body[1:6]]  # after the docstring
    found = next((i for i, code in enumerate(start) if "before_slow_imports()" in code), 9)
    early = {"from __future__ import annotations", "import os", "import sys"}
    if not set(start[:found]) <= early:
        yield 1, "before_slow_imports() comes after imports"


RULES = (rule_encoding, rule_safe_loading, rule_length, rule_ctrl_c_first)
TEST_RULES = (rule_encoding, rule_length)


def too_long(path: Path) -> bool:
    return path.read_bytes().count(b"\n") > MAX_FILE_LINES


def test_the_product_follows_the_rules() -> None:
    assert [problem for path in PRODUCT for problem in problems(path, RULES)] == []


def test_the_tests_follow_the_rules_for_tests() -> None:
    assert [problem for path in TESTS for problem in problems(path, TEST_RULES)] == []


def test_every_file_is_short(tmp_path: Path) -> None:
    assert [path for path in [*PRODUCT, *TESTS] if too_long(path)] == []
    for lines in (MAX_FILE_LINES, MAX_FILE_LINES + 1):
        (tmp_path / f"{lines}.py").write_text("\n" * lines, encoding="utf-8")
    assert [path.stem for path in sorted(tmp_path.iterdir()) if too_long(path)] == ["351"]


def test_importing_a_program_runs_no_calls() -> None:
    for path in PRODUCT:
        if top_of(module_of(path)) in PROGRAMS:
            assert problems(path, (rule_no_call_at_import,)) == []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
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
        (rule_ctrl_c_first, "train", f"{DOC}import json\n{SIGINT}{MAIN}"),
        (rule_ctrl_c_first, "train", f"{DOC}import json\n{MAIN}"),
        (rule_length, "model", "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES),
        (rule_no_call_at_import, "train", "print('hello')"),
        (rule_no_call_at_import, "train", "for i in range(3):\n    pass"),
        (rule_no_call_at_import, "train", "X = torch.zeros(3)"),
    ],
)
def test_a_rule_finds_violations(rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("utils", "open('x', 'rb')\nopen('x', encoding='utf-8')\npath.open('wb')\nrun.open()"),
        ("utils", "Data.open(path, 1)"),
        ("utils", "os.open('x', os.O_RDONLY)\nPath('x').read_text(encoding='utf-8')"),
        ("utils", "write_text(path, ids)"),
        ("model", "torch.load('x', weights_only=True)\nmodel.eval()\nre.compile('x')\nf(1).eval()"),
        ("train", f"{DOC}import os\nimport sys\n{SIGINT}import json\n{MAIN}"),
    ],
)
def test_the_rules_accept_good_code(module: str, source: str) -> None:
    rules = (*RULES, rule_no_call_at_import) if module == "train" else RULES
    assert [what for rule in rules for _, what in rule(module, ast.parse(source))] == []


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


def module_names(*tops: str) -> list[str]:
    names = [module_of(path) for path in PRODUCT if path.name != "__main__.py"]
    return [name for name in names if top_of(name) in tops]


@pytest.mark.parametrize(
    ("tops", "forbidden"),
    [
        (("tok",), ["torch", "yaml", "matplotlib", "tqdm", "model", "data"]),
        (("utils",), ["tok", "model", "data", "train", "tokenizers"]),
        (("model", "data"), ["matplotlib", "transformers", "train"]),
        (
            ("scripts", *PROGRAMS),
            ["dask", "transformers", "wandb", "tensorboard", "pooch", "requests"],
        ),
    ],
)
def test_importing_prints_nothing_and_loads_no_more_than_needed(
    tops, forbidden, run_python, tmp_path
):
    names = json.dumps([module_names(*tops), forbidden])
    done = run_python("-c", IMPORT_ALL, names, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
