from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from paddock.api.runtime import TreeNode
from paddock.cli import main
from paddock.cli.tree_view import draw_tree


def tree(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["tree", "--isolation", "thread", "--n-ctx", "64", *map(str, arguments)])


def test_the_tree_shows_each_model_with_its_processes_and_statistics(
    tiny_model_path: Path, greeting_model: Path
) -> None:
    result = tree(tiny_model_path, greeting_model)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "paddock (supervisor)"
    for model in (tiny_model_path.stem, greeting_model.stem):
        assert any(line.endswith(f"── {model} (supervisor)") for line in lines)
        assert f"model {model}: serving; worker in this process, 1 started, 0 died" in lines
    assert sum(line.endswith("── batch") for line in lines) == 2


def test_json_has_tree_and_statistics(tiny_model_path: Path) -> None:
    shown = json.loads(tree("--json", tiny_model_path).stdout)
    cache, models = shown["tree"]["children"]
    assert [child["id"] for child in cache["children"]] == ["store", "writer", "reader"]
    (model,) = models["children"]
    assert [child["id"] for child in model["children"]] == ["arena", "machine", "requests", "port", "batch"]
    statistics = shown["models"][tiny_model_path.stem]
    assert (statistics["state"], statistics["submitted"], statistics["sequences_free"]) == ("serving", 0, 8)


def test_the_same_model_twice_is_an_error(tiny_model_path: Path) -> None:
    result = tree("--json", tiny_model_path, tiny_model_path)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "ModelAlreadyLoaded"


def test_a_tree_is_drawn_with_the_state_of_what_does_not_run_and_not_endlessly() -> None:
    children = tuple(TreeNode(str(number), "worker", "running") for number in range(9))
    root = TreeNode(
        "root",
        "supervisor",
        "running",
        (TreeNode("a", "worker", "restarting"), TreeNode("b", "supervisor", "running", children)),
    )
    assert draw_tree(root, most_children=3) == [
        "root (supervisor)",
        "├── a [restarting]",
        "└── b (supervisor)",
        "    ├── 0",
        "    ├── 1",
        "    └── and 7 more",
    ]
