"""docs/recipes.md says what is so: its examples run, its names exist, none is left out."""

import re
from pathlib import Path

import pytest
from mergekit.scripts.multimerge import load_config

from spaces.mergekit import from_yaml, to_yaml
from spaces.mergekit.writer import OWN
from spaces.sampling.draw import parameters
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Depth, Space

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("text", YAML)
def test_yaml_examples_are_recipes_here_and_in_mergekit(text: str) -> None:
    found = from_yaml(text)
    assert found.recipe.dtype == "bfloat16"
    assert found.ignored == ()
    load_config(text, "/intermediate")
    # They are what is written, but for the first lines and perhaps the block.
    written = to_yaml(found.recipe, found.locations, meta=found.meta)
    written = re.sub(r"\A(#.*\n)+", "", written)
    assert written.startswith(text)
    assert found.key in (None, found.recipe.key)


def test_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(code, "docs/recipes.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "order one of all-at-once, pairwise"
    assert (
        lines[-1] == "node1.t: expected nothing (the space does not draw it), got 0.5" or lines[-1]
    )


def test_every_drawn_name_is_documented(mixed_space: Space) -> None:
    documented = set(re.findall(r"`([^`]+)`", TEXT))
    for space in (mixed_space, Space(parents=("math", "code"), base=None, layers=4,
                                     methods=("slerp",), depth=Depth(groups=2))):  # fmt: skip
        for name in parameters(space):
            plain = re.sub(r"\[.*\]|\.[kg]\d+$", "", name)
            plain = re.sub(r"node\d", "node1", re.sub(r"slice\d", "slice1", plain))
            plain = re.sub(r"(weight|density)\.(math|code|chat)$", r"\1.math", plain)
            assert plain in documented, name


def test_every_field_seed_and_key_is_documented() -> None:
    space = Space(parents=("math", "code", "chat"), base="base", layers=4,
                  methods=("linear", "ties", "dare_ties", "task_arithmetic"))  # fmt: skip
    names = [seed.name for seed in seeds(space)]
    names += list(Space.__dataclass_fields__)
    for name in (*(re.sub("(code|chat)$", "math", name) for name in names), *OWN, "slerp t 0.5"):
        assert f"`{name}`" in TEXT, name
