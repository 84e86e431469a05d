"""YAML of unknown origin: what a text stands for is bounded, in every reader there is."""

import time
from pathlib import Path

import pytest
import yaml

from spaces.mergekit import from_yaml
from spaces.recipes.recipe import RecipeError
from spaces.text.plain_yaml import MOST_VALUES, check_size, documents, plain


def bomb(*, levels: int = 30, merge: bool = False) -> str:
    """A small text that stands for 9 ** levels values."""
    one = "{k: 1}" if merge else "[lol, lol, lol]"
    lines = [f"a0: &a0 {one}"]
    for n in range(1, levels):
        inner = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"a{n}: &a{n} " + (f"{{<<: [{inner}]}}" if merge else f"[{inner}]"))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("merge", [False, True])
def test_a_recipe_with_aliases_in_aliases_is_refused_at_once(merge: bool) -> None:
    text = f"merge_method: linear\nmodels:\n- model: x\n{bomb(merge=merge)}"
    began = time.process_time()
    with pytest.raises(RecipeError, match=rf"r.yaml: .*at most {MOST_VALUES} values") as refused:
        from_yaml(text, name="r.yaml")
    assert time.process_time() - began < 5
    assert len(refused.value.problems) == 1


def test_an_alias_inside_itself_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"line 1: .*an alias inside what it stands for"):
        from_yaml("merge_method: &x [*x]\n")


def test_common_aliases_are_fine() -> None:
    assert documents("a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\n") == [
        {"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}}
    ]


@pytest.mark.parametrize("text", [bomb(), "a: b: c", "a: 1\n---\nb: 2\n", "[" * 5000])
def test_plain_raises_one_kind_of_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        plain(text)


def test_size_counts_keys_and_aliases() -> None:
    root = yaml.compose("a: &x [1, 2]\nb: *x\n")
    check_size(root, 9)
    with pytest.raises(yaml.YAMLError, match="at most 8 values"):
        check_size(root, 8)


def test_no_other_loader_is_in_use() -> None:
    """Every text is read through the bounded reader; configs count in their own reader."""
    top = Path(__file__).resolve().parents[2]
    names = ("yaml.load(", "yaml.load_all(", "yaml.safe_load(", "yaml.safe_load_all(")
    found = [
        f"{file.parent.name}/{file.name}: {name}"
        for folder in ("spaces", "merging", "evaluators", "runs", "search")
        for file in (top / folder).rglob("*.py")
        for name in names
        if name in file.read_text("utf-8")
    ]
    assert found == []
