from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from evaluators.protocol import TaskScore
from runs.export.card_metadata import declared_base, declared_license
from runs.export.model_card import model_card
from runs.export.recipe_export import recipe_meta
from runs.ranking.finalists import Entry
from runs.ranking.verdict import verdict
from runs.records.record import Role, Split
from runs.statistics.resampling import Resampling
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import RecipeError

LOCATIONS = {"base": "org/base@v1", "math": "org/math", "code": "/models/code", "text": "/models/t"}


def without_recipe(card: str) -> str:
    """The card with the recipe cut out, which a test of its own compares with the recipe."""
    before, _, rest = card.partition("```yaml\n")
    return f"{before}```yaml\n(recipe)\n```{rest.partition(chr(10) + '```')[2]}"


def test_best_recipe_as_yaml(run_records, golden) -> None:
    winner = run_records[4]
    text = to_yaml(winner.recipe, LOCATIONS, meta=recipe_meta(winner))
    golden("runs/best.yaml", text)
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


def test_a_model_without_location_is_refused(run_records) -> None:
    with pytest.raises(RecipeError, match="locations: expected one for every model"):
        to_yaml(run_records[4].recipe, {"math": "x"})


def test_model_card(run_records, golden) -> None:
    winner = run_records[4]
    card = model_card(
        winner.recipe,
        LOCATIONS,
        fingerprint="ab12cd34",
        licenses=dict.fromkeys(("math", "code", "base"), "apache-2.0"),
        meta=recipe_meta(winner),
        name="best",
    )
    golden("runs/model_card.md", without_recipe(card))
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == ["org/math", "org/base"]
    assert front["license"] == "apache-2.0"
    assert "/models/" not in card


@pytest.mark.parametrize(
    ("place", "public"),
    [
        ("/home/me/a", "./code"),
        ("~/a", "./code"),
        ("../a", "../a"),
        ("org/a+/home/me/lora", "org/a+./code-adapter"),
        ("/home/me/a+/home/me/lora", "./code+./code-adapter"),
    ],
)
def test_a_card_has_no_absolute_path(run_records, place: str, public: str) -> None:
    card = model_card(run_records[4].recipe, LOCATIONS | {"code": place}, fingerprint="x")
    assert f"- `code`: {public} (license: not declared)" in card
    assert "/home/me" not in card
    assert "~" not in card


@pytest.mark.parametrize("code", ["", "mit"])
def test_different_licenses_are_all_named_and_none_is_claimed(run_records, code: str) -> None:
    licenses = {"math": "llama3", "base": "llama3", "code": code}
    card = model_card(run_records[4].recipe, LOCATIONS, fingerprint="x", licenses=licenses)
    assert "license" not in yaml.safe_load(card.split("---")[1])
    assert "- `math`: org/math (license: llama3)" in card
    assert f"- `code`: ./code (license: {code or 'not declared'})" in card
    assert "bound by the licenses of all these models" in card


@pytest.mark.parametrize(
    ("text", "base", "license_"),
    [
        ("---\nlicense: mit\nbase_model: [org/b]\n---\n# A", "org/b", "mit"),
        ("---\nlicense: other\nlicense_name: own-1\nbase_model: [a/b, c/d]\n---\n", None, "own-1"),
        ("---\nlicense: [mit, bsd]\n---\n", None, ""),
        ("---\nlicense: {\n---\n", None, ""),
        ("---\nlicense: mit\n", None, ""),
        ("license: mit", None, ""),
    ],
)
def test_what_the_cards_of_models_declare(
    tmp_path: Path, text: str, base: str | None, license_: str
) -> None:
    assert (declared_base(tmp_path), declared_license(tmp_path)) == (None, "")
    (tmp_path / "README.md").write_text(text)
    assert (declared_base(tmp_path), declared_license(tmp_path)) == (base, license_)


def test_model_card_of_a_tree_without_scores(run_records, golden) -> None:
    card = model_card(run_records[5].recipe, LOCATIONS, fingerprint="ff00")
    golden("runs/model_card_tree.md", without_recipe(card))
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


def test_the_winner_s_file_and_card_hold_the_verdict_with_its_losses(
    run_records, run_tasks, tmp_path: Path
) -> None:
    """What the card says of parents and base is what the recipe file noted."""

    def asked(name: str, role: Role, sort: int, loss: int) -> Entry:
        right = {"sort": sort, "loss": loss}
        return Entry(
            name=name,
            role=role,
            search=tuple(
                TaskScore(task=t, value=n / 100, stderr=0.1, n=9) for t, n in right.items()
            ),
            outcomes={t: {f"{t}/{q}": float(q < n) for q in range(100)} for t, n in right.items()},
        )

    entries = [
        asked("candidate 4", Role.SEARCHED, 90, 40),
        asked("parent math", Role.PARENT, 40, 10),
        asked("parent code", Role.PARENT, 30, 90),
        asked("base", Role.BASE, 20, 50),
    ]
    found = verdict(entries, tasks=run_tasks, how=Resampling(resamples=500))
    assert "but loses 30.0 points on 'loss'" in found.sentence
    winner = run_records[4]
    noted = from_yaml(to_yaml(winner.recipe, LOCATIONS, meta=recipe_meta(winner, found))).meta
    assert noted["verdict"] == found.sentence
    assert noted["compared"]["base"]["tasks"] == {"sort": 0.2, "loss": 0.5}
    card = model_card(winner.recipe, LOCATIONS, fingerprint="f", meta=noted)
    assert f"**Verdict:** {found.sentence}." in card
    assert (
        "| task | search questions | held-out questions | held-out, parent 'math' | "
        "held-out, parent 'code' | held-out, the base |"
    ) in card
    assert "| loss | 0.100 | 0.250 | 0.100 | 0.900 | 0.500 |" in card
    assert "verdict" not in recipe_meta(run_records[5], found)
