"""Samplers by name."""

from importlib.metadata import EntryPoint
from pathlib import Path

import optuna
import pytest

from runs.records.record import SAMPLERS as CONFIG_NAMES
from runs.records.record import Estimate
from search.samplers import sampler_choice
from search.samplers.sampler_choice import OURS, SAMPLERS, Choice, Sampler, check_sampler
from spaces.catalogue.extensions import SAMPLERS_GROUP, ExtensionError
from spaces.sampling.draw import Fixed, draw, parameters, params
from spaces.search_space.space import Depth, Space, Stacking

SPACE = Space(parents=("a", "b"), base="base", layers=4, methods=("linear", "ties", "slerp"))

MIXED = Space(
    parents=("a", "b", "c"),
    base="base",
    layers=6,
    methods=("linear", "slerp", "ties", "della", "sce"),
    depth=Depth(knots=2, parameters=("weight",)),
    filters=("mlp",),
    filter_parameters=("t",),
    stacking=Stacking(max_slices=2, min_layers=4, max_layers=9),
)
"""Methods with parameters of their own, every order, depth, filters and stacked layers."""

FEW = {"gp": 12, OURS: 24}
"""Trials of samplers that take seconds for each in so many dimensions."""


def test_a_config_can_name_every_sampler() -> None:
    assert {*SAMPLERS, OURS, "auto"} == set(CONFIG_NAMES)
    assert Sampler("auto", seed=0, space=SPACE).name == OURS


def test_ours_needs_the_space() -> None:
    with pytest.raises(ValueError, match="space: expected the space to search for surr"):
        Sampler(OURS, seed=0)


def values(
    name: str, *, parts: tuple[int, ...], seed: int = 3, space: Space = SPACE
) -> list[dict[str, object]]:
    """Parameters of the trials of a study that is continued by a new driver for each part.

    Every recipe drawn is checked: it was legal to make, and its values give it again.
    """
    study = optuna.create_study(direction="maximize")
    known: dict[int, tuple[Estimate]] = {}
    weight = next(name for name in parameters(space) if name.startswith("weight.a"))
    for count in parts:
        sampler = Sampler(name, seed=seed, space=space)
        sampler.learn(known)
        for _ in range(count):
            study.sampler = sampler.for_trial(len(study.trials))
            trial = study.ask()
            recipe = draw(space, trial, flat=sampler.flat)
            assert draw(space, Fixed(params(recipe, space))).key == recipe.key
            value = -((trial.params.get(weight, 0.9) - 0.4) ** 2) - 0.1 * len(recipe.title)
            known[trial.number] = (Estimate(value=value, stderr=0.02),)
            sampler.learn(known)
            study.tell(trial, value)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", [*sorted(SAMPLERS), OURS])
def test_a_seed_decides_everything(name: str) -> None:
    assert values(name, parts=(14,)) == values(name, parts=(14,))
    assert values(name, parts=(14,)) != values(name, parts=(14,), seed=4)


@pytest.mark.parametrize("name", [*sorted(SAMPLERS), OURS])
def test_a_resumed_run_proposes_what_an_uninterrupted_one_does(name: str) -> None:
    assert values(name, parts=(24,)) == values(name, parts=(12, 12))


@pytest.mark.parametrize("name", [*sorted(SAMPLERS), OURS])
def test_the_whole_mixed_space(name: str) -> None:
    """Conditional values of every kind: legal recipes, decided by the seed, also by halves."""
    half = FEW.get(name, 40) // 2
    whole = values(name, parts=(2 * half,), space=MIXED)
    halves = values(name, parts=(half, half), space=MIXED)
    assert len({str(drawn) for drawn in whole}) > 1.5 * half
    assert whole == halves


def test_the_docs_name_every_sampler_and_that_it_goes_on() -> None:
    text = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    section = text.split("## Samplers by name")[1].split("\n## ")[0]
    rows = {line.split("|")[1].strip(" `"): line for line in section.splitlines() if "| `" in line}
    del rows["search.sampler"]  # the heading
    assert set(rows) == {*SAMPLERS, OURS}
    assert all(row.split("|")[3].strip() == "the same" for row in rows.values())


def _none(seeds: object) -> object:
    return None


def _breaks(seeds: object) -> object:
    raise KeyError("population")


NONE, BREAKS = (Choice(make=make, flat=False) for make in (_none, _breaks))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "mine",
            "math:pi",
            "expected mine to be a search.samplers.sampler_choice.Choice, got 3.14",
        ),
        ("mine", "math:no_such", "expected mine to be at math:no_such, got AttributeError"),
        ("mine", "NONE", "expected mine to make an Optuna sampler, got None"),
        ("mine", "BREAKS", "expected mine to make a sampler, got KeyError: 'population'"),
        ("tpe", "NONE", "expected another name than 'tpe' for"),
        ("surrogate", "NONE", "expected another name than 'surrogate' for"),
    ],
)
def test_a_package_sampler_that_is_none_is_told_before_a_run(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    value = value if ":" in value else f"{__name__}:{value}"
    entry = EntryPoint(name=name, value=value, group=SAMPLERS_GROUP)
    monkeypatch.setattr(sampler_choice, "additions", lambda group: {name: entry})
    with pytest.raises(ExtensionError) as error:
        check_sampler(name)
    (line,) = error.value.problems
    assert line.startswith("merge_search.samplers: ")
    assert said in line


@pytest.mark.parametrize("name", ["auto", *CONFIG_NAMES])
def test_ours_can_be_made(name: str) -> None:
    check_sampler(name)
