"""mergekit files of the further methods: bases, scopes of parameters, kinds of values."""

import math

import pytest
import yaml
from mergekit.config import MergeConfiguration

from spaces.catalogue.method_catalogue import METHODS, BaseRule, Kind, Scope
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Merge, Model, Recipe, RecipeError, Source
from spaces.recipes.recipe import parameters as table


def read(text: str) -> Recipe:
    return from_yaml(text, name="mine.yaml").recipe


def test_a_listed_base_is_what_deltas_are_taken_from() -> None:
    recipe = read(
        "merge_method: nuslerp\nbase_model: org/b\nmodels:\n- {model: org/b}\n"
        "- {model: org/x, parameters: {weight: 0.3}}\n- {model: org/y, parameters: {weight: 0.7}}\n"
    )
    assert recipe.root.base == Model("b")
    assert [source.of for source in recipe.root.sources] == [Model("x"), Model("y")]


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_a_base_is_optional(method: str) -> None:
    models = "models:\n- {model: org/x}\n- {model: org/y}\nparameters: {weight: 1}\n"
    assert read(f"merge_method: {method}\n{models}").root.base is None
    assert read(f"merge_method: {method}\nbase_model: org/b\n{models}").root.base == Model("b")


def test_the_base_of_a_karcher_mean_is_one_more_input() -> None:
    recipe = read("merge_method: karcher\nbase_model: b\nmodels:\n- {model: x}\n- {model: y}\n")
    assert [source.of for source in recipe.root.sources] == [Model("x"), Model("y"), Model("b")]
    assert recipe.root.base is None
    assert recipe.donor == "b"


@pytest.mark.parametrize("method", ["nearswap", "arcee_fusion"])
def test_two_model_methods_start_at_the_base(method: str) -> None:
    t = "parameters: {t: 0.001}\n" if method == "nearswap" else ""
    recipe = read(f"merge_method: {method}\nbase_model: b\nmodels:\n- {{model: x}}\n{t}")
    assert [source.of for source in recipe.root.sources] == [Model("x"), Model("b")]
    assert recipe.root.base == Model("b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "merge_method: nuslerp\nmodels: [{model: a}]\nparameters: {weight: 1}\n",
            "nuslerp: expected exactly 2 inputs, got 1",
        ),
        (
            "merge_method: model_stock\nbase_model: b\nmodels: [{model: a}]\n",
            "model_stock: expected at least 2 inputs, got 1",
        ),
        (
            "merge_method: arcee_fusion\nmodels: [{model: a}, {model: c}]\n",
            "arcee_fusion: expected a base model, got none",
        ),
        (
            "merge_method: nuslerp\nbase_model: b\nparameters: {weight: 1}\nslices:\n- sources:\n"
            "  - {model: a, layer_range: [0, 2]}\n  - {model: c, layer_range: [0, 2]}\n",
            "nuslerp: expected the base in every slice, got a slice without",
        ),
        (
            "merge_method: karcher\nmodels: [{model: a}]\nparameters: {max_iter: 2.5}\n",
            r"parameters.max_iter: expected a whole number in \[0, inf\), got 2.5",
        ),
        (
            "merge_method: karcher\nmodels: [{model: a}]\nparameters: {max_iter: [1, 5]}\n",
            r"parameters.max_iter: expected a whole number in \[0, inf\), got a gradient",
        ),
        (
            "merge_method: karcher\nmodels: [{model: a}]\nparameters: {tol: 0}\n",
            r"parameters.tol: expected a value in \(0, inf\), got 0",
        ),
        (
            "merge_method: della\nbase_model: b\nmodels: [{model: a}]\n"
            "parameters: {weight: 1, epsilon: 0.6}\n",
            r"parameters.epsilon: expected a value in \[0, 0.5\], got 0.6",
        ),
        (
            "merge_method: nearswap\nbase_model: b\nmodels: [{model: a}]\nparameters: {t: -1}\n",
            r"parameters.t: expected a value in \[0, inf\), got -1",
        ),
        (
            "merge_method: sce\nbase_model: b\nmodels: [{model: a}]\nparameters: {topk: 1}\n",
            "expected names from select_topk, int8_mask, got 'topk'",
        ),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(text)


def test_parameters_of_the_merge_have_no_effect_on_one_input() -> None:
    found = from_yaml(
        "merge_method: ram\nbase_model: b\nmodels: [{model: a, parameters: {epsilon: 1}}]\n"
        "parameters: {density: 0.3}\n"
    )
    assert found.recipe.root.parameters == ()
    assert len(found.ignored) == 2
    assert "holds for a whole merge, not for one input" in "\n".join(found.ignored)
    assert "ram has no use for it" in "\n".join(found.ignored)


def example(method: str) -> Recipe:
    """A recipe that sets every parameter."""
    found = METHODS[method]
    names = ("x", "y", "z")[: found.max_inputs or 3]
    values = {
        spec.name: not spec.default
        if spec.kind is Kind.FLAG
        else 3.0
        if spec.kind is Kind.COUNT
        else 0.25
        for spec in found.parameters
    }
    each = {spec.name for spec in found.parameters if spec.scope is Scope.INPUT}
    base = {BaseRule.ENDPOINT: Model("y"), BaseRule.NONE: None}.get(found.base, Model("b"))
    own = table(**{name: value for name, value in values.items() if name in each})
    return Recipe(
        root=Merge(
            method=method,
            sources=tuple(Source(of=Model(name), parameters=own) for name in names),
            base=base,
            parameters=tuple(sorted((k, v) for k, v in values.items() if k not in each)),
        )
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_there_and_back(method: str) -> None:
    recipe = example(method)
    text = to_yaml(recipe, {name: f"org/{name}" for name in ("x", "y", "z", "b")[:4]})
    found = from_yaml(text)
    assert found.recipe == recipe
    assert found.ignored == ()
    if METHODS[method].in_mergekit:
        MergeConfiguration.model_validate(yaml.safe_load(text))
        return
    with pytest.raises(ValueError, match="merge_method"):  # it must not take it for another
        MergeConfiguration.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("value", [2.5, -1.0, math.nan, math.inf])
def test_counts_are_whole_numbers(value: float) -> None:
    spec = METHODS["karcher"].parameter("max_iter")
    assert spec is not None
    assert not spec.allows(value)
    assert spec.allows(7.0)
