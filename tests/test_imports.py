"""Two rules: imports point one way, and the half that uses models is free of torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import atrous

HOUSE = Path(atrous.__file__).parent

FLOORS = (
    {
        "decode",
        "errors",
        "files",
        "progress",
        "text",
        "kernels",
        "taxonomy",
        "images",
        "metrics",
    },
    {"data", "draw", "doctor"},
    {"models", "run", "weights", "infer"},
    {"train", "export", "evaluation"},
    {"recipes", "report", "serve"},
    {"cli"},
    {"__main__"},
)
"""From the ground up: a module imports from its own floor or from below."""

LIGHT = FLOORS[0] | FLOORS[1] | {"run", "infer", "evaluation", "report", "serve", "cli"}
HEAVY = frozenset(
    [
        "accelerate",
        "av",
        "huggingface_hub",
        "onnx",
        "onnxscript",
        "openvino",
        "pillow_heif",
        "pycocotools",
        "rasterio",
        "safetensors",
        "scipy",
        "shapely",
        "tensorboardX",
        "timm",
        "torch",
        "torchvision",
        "triton",
        "yaml",
    ]
)


def name_of(path: Path) -> str:
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(HOUSE.rglob("*.py"))}


def unit_of(module: str) -> str | None:
    """The file or folder right below the package; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def floor_of(unit: str) -> int:
    return next(number for number, units in enumerate(FLOORS) if unit in units)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node: ast.AST, *, only_when_imported: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import below `node`; or those alone that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if only_when_imported and (
            is_type_checking(child) or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        ):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from statements(child, only_when_imported=only_when_imported)


@cache
def imports(module: str, *, only_when_imported: bool = False) -> set[str]:
    """The modules that `module` imports, ours in full, others' too."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    found: set[str] = set()
    for node in statements(tree, only_when_imported=only_when_imported):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{module}: imports of ours are absolute"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in MODULES else str(node.module) for part in parts}
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if unit_of(name)])
def test_imports_point_down(module: str) -> None:
    mine = floor_of(unit_of(module) or "")
    for imported in imports(module) & MODULES.keys():
        unit = unit_of(imported)
        assert unit is None or floor_of(unit) <= mine, f"{module} imports {imported}, from above"


def test_imports_go_in_no_circle() -> None:
    modules = {name: (imports(name) & MODULES.keys()) - {name} for name in MODULES if unit_of(name)}
    tuple(TopologicalSorter(modules).static_order())  # raises CycleError
    units: dict[str, set[str]] = {}
    for name, imported in modules.items():
        unit = unit_of(name) or ""
        others = {unit_of(other) for other in imported} - {None, unit}
        units.setdefault(unit, set()).update(other for other in others if other)
    tuple(TopologicalSorter(units).static_order())


@pytest.mark.parametrize(
    "module",
    [
        n
        for n in MODULES
        if unit_of(n) in LIGHT | {None} and not n.startswith("atrous.kernels.triton.")
    ],
)
def test_the_light_half_imports_nothing_heavy(module: str) -> None:
    seen, todo = set(), [module]
    while todo:
        current = todo.pop()
        seen.add(current)
        imported = imports(current, only_when_imported=True)
        heavy = {name.partition(".")[0] for name in imported} & HEAVY
        assert not heavy, f"{module} imports {heavy} by way of {current}"
        todo += (imported & MODULES.keys()) - seen


@pytest.mark.parametrize(
    "statement",
    [
        "import atrous",
        "from atrous.cli import main; main(['--help'])",
        "from atrous.cli import main; main(['segment', '--help'])",
        "from atrous.cli import main; main(['evaluate', '--help'])",
        "from atrous.cli import main; main(['data', '--help'])",
        "import atrous, numpy; "
        "atrous.load({bundle!r})(numpy.zeros((8, 8, 3), numpy.uint8)).coverage()",
    ],
)
def test_using_loads_no_torch(statement: str, tiny_bundle: Path) -> None:
    code = (
        f"{statement.format(bundle=str(tiny_bundle))}\n"
        f"import sys; assert not {set(HEAVY)!r} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_importing_atrous_loads_no_numpy() -> None:
    code = "import sys, atrous; assert not {'numpy', 'PIL', 'cyclopts'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
