"""The source files of the product, and tools for rules about them: imports, names, module graph."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.conftest import ROOT

PACKAGES = ("tok", "model", "utils", "data", "scripts")
PROGRAMS = ("train", "sample")
OURS = {*PACKAGES, *PROGRAMS, "tests"}
PRODUCT = sorted(
    [
        *ROOT.glob("*.py"),
        *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py")),
    ]
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A rule takes a module's dotted name and its source; it yields (line, problem).
Rule = Callable[[str, ast.Module], Iterator[tuple[int, str]]]


def module_of(path: Path) -> str:
    """The dotted name of a file: `tok.formats.gpt2`; of an __init__.py, that of its package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top_of(module: str) -> str:
    return module.partition(".")[0]


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def names_of(node: ast.AST) -> list[str]:
    """The dotted names that a node imports: `a.b` for `from a import b`; relative imports: none."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and name_of(node.func) in {"__import__", "import_module"}:
        return [str(constant(node.args[0]))] if node.args else []
    return []


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, also in functions and for type checkers."""
    for node in ast.walk(tree):
        yield from ((getattr(node, "lineno", 0), name) for name in names_of(node))


def local_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            body = node.body if isinstance(node.body, list) else [node.body]
            for statement in body:
                yield from ast.walk(statement)


def type_checking_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that only a type checker reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from ast.walk(statement)


def import_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs when the module is imported, except decorators and defaults."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from import_time_nodes(node)


def import_graph(sources: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """For each module, the modules among `sources` that it imports anywhere in its source.

    Importing a module also imports the packages that contain it; those that contain the importing
    module as well are left out.
    """
    graph: dict[str, set[str]] = {}
    for module, tree in sources.items():
        found = graph.setdefault(module, set())
        for _, name in imports(tree):
            parts = name.split(".")
            chain = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            modules = [name for name in chain if name in sources]
            target = modules[-1:]  # `from a import b`: a.b if that is a module, else a
            found.update(one for one in modules if one in target or not is_inside(module, one))
        found.discard(module)
    return graph


def words_of(tree: ast.AST) -> set[str]:
    """Every name that is used, alone or after a dot."""
    return {name_of(node) for node in ast.walk(tree) if isinstance(node, (ast.Name, ast.Attribute))}


def reached(sources: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """For each module, its top-level names that are used by other modules or at its import."""
    imported = {module: {name for _, name in imports(tree)} for module, tree in sources.items()}
    words = {module: words_of(tree) for module, tree in sources.items()}
    return {module: _reached(module, sources, imported, words) for module in sources}


def _reached(
    module: str,
    sources: Mapping[str, ast.Module],
    imported: Mapping[str, set[str]],
    words: Mapping[str, set[str]],
) -> set[str]:
    found: set[str] = set()
    for other in set(sources) - {module}:
        names = imported[other]
        found |= {name[len(module) + 1 :] for name in names if name.startswith(f"{module}.")}
        if module in names:
            found |= words[other]
    bodies: dict[str, set[str]] = {}
    for node in sources[module].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bodies[node.name] = words_of(node) - {node.name}
        else:
            found |= words_of(node)
    ahead = list(found)
    while ahead:
        new = bodies.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def cycle_of(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one import cycle, with the first repeated at the end; [] if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def name_of(node: ast.expr) -> str:
    """The last name of an expression: `load` for both `load` and `torch.load`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def full_name(node: ast.expr) -> str:
    """The dotted name of an expression, `torch.load`; other parts of it are dropped."""
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def problems(path: Path, rules: tuple[Rule, ...]) -> list[str]:
    """`file:line: problem` for every violation of a rule in a file."""
    module, tree = module_of(path), ast.parse(path.read_bytes())
    return [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for rule in rules
        for line, what in rule(module, tree)
    ]
