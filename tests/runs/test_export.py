from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from runs.export import model_card, recipe_meta, write_recipe
from runs.records import Split
from spaces.mergekit import from_yaml
from spaces.recipe import RecipeError

LOCATIONS = {"base": "org/base@v1", "math": "org/math", "code": "/models/code", "text": "/models/t"}


def without_recipe(card: str) -> str:
    """The card with the recipe cut out, which a test of its own compares with the recipe."""
    before, _, rest = card.partition("```yaml\n")
    return f"{before}```yaml\n(recipe)\n```{rest.partition(chr(10) + '```')[2]}"


def test_best_recipe_as_yaml(run_records, tmp_path: Path, golden) -> None:
    winner = run_records[4]
    path = tmp_path / "out" / "best.yaml"
    write_recipe(winner.recipe, LOCATIONS, path=path, meta=recipe_meta(winner))
    text = path.read_text(encoding="utf-8")
    golden("best.yaml", text)
    document = from_yaml(text)
    assert document.recipe == winner.recipe
    assert document.meta["fingerprint"] == "ab12cd34"
    assert document.meta["score"] == {
        "value": 0.5,
        "stderr": 0.05,
        "questions": 40,
        "tasks": {"sort": 0.8, "loss": 0.1},
    }
    assert document.meta["held_out"]["value"] == 0.25


def test_meta_of_what_has_no_score(run_records) -> None:
    assert recipe_meta(run_records[3]) == {"candidate": 3, "origin": "tpe"}
    assert set(recipe_meta(run_records[1])) == {"candidate", "origin", "fingerprint", "score"}


def test_meta_has_no_nan(run_records) -> None:
    search = dataclasses.replace(run_records[0].evaluations[Split.SEARCH], stderr=float("nan"))
    record = dataclasses.replace(run_records[0], evaluations={Split.SEARCH: search})
    assert recipe_meta(record)["score"]["stderr"] is None


def test_a_model_without_location_writes_nothing(run_records, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="locations: expected one for every model"):
        write_recipe(run_records[4].recipe, {"math": "x"}, path=tmp_path / "best.yaml")
    assert list(tmp_path.iterdir()) == []


def test_model_card(run_records, run_tasks, golden) -> None:
    winner = run_records[4]
    card = model_card(
        winner.recipe,
        LOCATIONS,
        fingerprint="ab12cd34",
        scores=winner.evaluations,
        tasks=run_tasks,
        name="Best of demo",
    )
    golden("model_card.md", without_recipe(card))
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == ["org/math", "org/base"]  # no path of this machine


def test_model_card_of_a_tree_without_scores(run_records, golden) -> None:
    card = model_card(run_records[5].recipe, LOCATIONS, fingerprint="ff00")
    golden("model_card_tree.md", without_recipe(card))
    assert "mergekit-multi" in card
    assert "## Scores" not in card


def test_model_card_of_a_random_method_says_so(run_records) -> None:
    card = model_card(run_records[6].recipe, LOCATIONS, fingerprint="ff00")
    assert "drops at random" in card
    assert "arXiv:2311.03099" in card


def test_the_recipe_in_the_card_is_the_recipe(run_records) -> None:
    for number in (2, 4, 5):
        recipe = run_records[number].recipe
        card = model_card(recipe, LOCATIONS, fingerprint="x")
        text = card.split("```yaml\n")[1].split("\n```")[0]
        assert from_yaml(text).recipe == recipe
