"""The structure of the package: imports point down, one registry knows the frameworks, files are short."""

import ast
from graphlib import TopologicalSorter
from itertools import product
from pathlib import Path

import maam

ROOT = Path(maam.__file__).parent
ORDER = [
    {"errors", "_cache", "_documents", "_io", "_messages", "_signals", "_system", "tolerance", "plots"},
    {"spec", "_config"},
    {"reference", "weights", "fusion", "data"},
    {"backend", "_insertion", "_options", "_registration"},
    {"torch", "mindspore"},
    {"training"},
    {"parity", "porting", "deploy"},
    {"timm", "torchvision", "mindcv"},
    {"cli"},
]
"""The parts of the package from bottom to top: a part imports from its own level and from those below."""
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
FILES = {
    path: ".".join(("maam", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for path, name in FILES.items()}
FRAMEWORKS = {"torch", "mindspore"}
LIBRARIES = {"mindcv": "mindspore", "timm": "torch", "torchvision": "torch"}
"""Packages for a library that builds on a framework; they import the framework too."""
REGISTRY = "maam.backend.registry"


def part(module):
    return module.split(".")[1] if "." in module else ""


def imported(tree):
    """Yield the modules that a module imports, anywhere in it: in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in TREES else node.module for name in names)


def executed(tree):
    """Yield what is imported when the module is: not in functions, and not for type checkers alone."""
    for node in tree.body:
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not for_types and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield from imported(node)


INNER = [name for name in TREES if part(name) not in ("", "__main__")]


def test_every_part_has_a_place_and_imports_point_down_without_cycles():
    assert {part(name) for name in INNER} == set(RANK)
    for name in INNER:
        own = {other for other in imported(TREES[name]) if other.startswith("maam.")}
        assert not {other for other in own if RANK[part(other)] > RANK[part(name)]}, name
    graph = {name: set(executed(tree)) & set(TREES) - {name} for name, tree in TREES.items()}
    TopologicalSorter(graph).prepare()  # its error names a cycle


def test_only_its_backend_imports_a_framework():
    for framework, (name, tree) in product(FRAMEWORKS, TREES.items()):
        if LIBRARIES.get(part(name), part(name)) != framework:
            found = set(imported(tree))
            assert framework not in {other.split(".")[0] for other in found}, name
            if part(name) not in ("", "cli"):  # lazy names; some commands are for PyTorch only
                assert framework not in {part(other) for other in found if other.startswith("maam.")}, name


def constants(nodes):
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def test_frameworks_are_known_to_the_registry_alone():
    """No other module imports a framework by a string, lists the frameworks, or asks for a mode by its name."""
    modes = {"torch compiled", "mindspore graph", "mindspore pynative"}
    nodes = [(name, node) for name in INNER if name != REGISTRY for node in ast.walk(TREES[name])]
    for name, node in nodes:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
            items = [*node.keys, *node.values] if isinstance(node, ast.Dict) else node.elts
            found = constants(items)  # a list with NumPy is one of packages, whose versions are shown
            assert "numpy" in found or not found >= FRAMEWORKS, f"{name}, {node.lineno}: a table of frameworks"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            text = ast.unparse(node.args[0]).strip("f'\"")
            assert not text.startswith(("maam.{", "maam.torch", "maam.mindspore", *FRAMEWORKS - {part(name)})), name
        if isinstance(node, ast.Compare) and part(name) not in FRAMEWORKS:
            found = constants([node.left, *node.comparators])
            assert modes.isdisjoint(found), f"{name}, {node.lineno}: use capabilities"


def test_files_and_functions_are_read_in_one_sitting():
    assert max(len(path.read_text("utf-8").splitlines()) for path in FILES) <= 600
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.body[0].lineno + 1
                length -= len((ast.get_docstring(node) or "").splitlines())
                assert length <= 60, f"{name}.{node.name}: {length} lines"
