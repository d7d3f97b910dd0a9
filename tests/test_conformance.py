"""The conformance page tells the truth: every file, class and test it names exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "conformance.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:src|tests)/[\w/.-]+?\.py)(?:::(\w+))?`", PAGE)))


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_name_on_the_page_exists() -> None:
    assert len(NAMES) > 20
    missing = [
        f"{path}::{name}" if name else path
        for path, name in NAMES
        if not (ROOT / path).is_file() or (name and name not in defined_in(ROOT / path))
    ]
    assert not missing


def test_every_founding_requirement_has_its_row() -> None:
    rows = [int(row) for row in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert rows == list(range(1, 14))
