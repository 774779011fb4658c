"""The flow of data has one direction, and starting up is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import luckyfast

PACKAGE = Path(luckyfast.__file__).parent
STAGES = [
    "errors",
    "config",
    "files",
    "progress",
    "moments",
    "offers",
    "_engine",
    "kernels",
    "ingestion",
    "dataset",
    "inspection",
    "windows",
    "habits",
    "features",
    "trend",
    "batches",
    "models",
    "optimiser",
    "checkpoint",
    "course",
    "training",
    "search",
    "calibration",
    "figures",
    "blindness",
    "baselines",
    "evaluation",
    "submissions",
    "export",
    "inference",
    "tables",
    "prediction",
    "explorer",
    "report",
    "model",
    "comparison",
    "finishing",
    "fitting",
    "demo_logs",
    "demo",
    "bench",
    "terminal",
    "ingest_report",
    "trial_display",
    "summary",
    "commands",
    "cli",
    "__main__",
]
HEAVY = ("torch", "numba", "nevergrad", "pyarrow", "onnxruntime", "onnx", "rich", "numpy")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def stage_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_stages(source: str) -> set[str]:
    """Every stage of the package that some import statement of this source names, lazy imports included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"luckyfast.{alias.name}" for alias in node.names] if node.module == "luckyfast" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("luckyfast.")}
    return {name for name in found if not (name.startswith("__") or name in luckyfast.__all__)}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_forward_only(path: Path) -> None:
    stage = stage_of(path)
    assert stage in STAGES, f"{path.name} is a stage that has no place in the flow yet"
    rank = STAGES.index(stage)
    for other in imported_stages(path.read_text(encoding="utf-8")):
        assert STAGES.index(other) <= rank, f"{stage} imports {other}, a later stage"


def test_a_backward_import_would_be_seen() -> None:
    assert imported_stages("def f():\n    from luckyfast.training import train") == {"training"}
    assert imported_stages("import luckyfast.report.page") == {"report"}


@pytest.mark.parametrize(
    "statement", ["import luckyfast", "import luckyfast.cli; luckyfast.cli._parser().format_help()"]
)
def test_starting_up_is_light(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_public_names_are_sorted_and_exist() -> None:
    assert luckyfast.__all__ == sorted(luckyfast.__all__)
    for name in luckyfast.__all__:
        assert getattr(luckyfast, name).__doc__, f"luckyfast.{name} has no docstring"


def test_unknown_attributes_are_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = luckyfast.no_such_thing
