"""mergekit YAML: our recipes run there, and theirs are read here."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods
from mergekit.scripts.multimerge import load_config

from spaces.catalogue.method_catalogue import METHODS
from spaces.mergekit import Document, from_yaml, to_yaml
from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Gradient,
    Merge,
    Model,
    Recipe,
    RecipeError,
    Slice,
    Source,
    merges,
)
from spaces.recipes.recipe import parameters as table
from spaces.recipes.vocabulary import Vocabulary
from spaces.sampling.draw import Fixed, draw
from spaces.search_space.space import Space

REGISTERED = {method.spec.name: method.spec for method in registered_methods()}
GOLDEN = Path(__file__).parent.parent / "golden"
PLACES = {
    "math": "./models/math",
    "code": "org/code@v1.0",
    "chat": "models/chat+adapters/chat@main",
    "chat-v0.1": "with space/chat",
    "math.k1": "/abs/math.k1",
    "a_b": "a_b",
    "Qwen.2": "1e3",
    "x1": "yes",
    "base": "./models/base",
}

ONE = {
    "order": "all-at-once", "method": "ties", "slices": 1, "lambda": 1.1,
    "weight.math[mlp].k1": 1.0, "weight.math[mlp].k2": 0.5,
    "weight.math[*].k1": 0.9, "weight.math[*].k2": 0.8,
    "weight.code[mlp].k1": 0.7, "weight.code[mlp].k2": 0.6,
    "weight.code[*].k1": 0.5, "weight.code[*].k2": 0.00001,
    "weight.chat[mlp].k1": 0.3, "weight.chat[mlp].k2": 0.2,
    "weight.chat[*].k1": 0.1, "weight.chat[*].k2": 0.0,
    "density.math": 0.5, "density.code": 1.0, "density.chat": 0.25,
}  # fmt: skip
TREE = {
    **ONE, "order": "pairwise", "tree.3": "code", "node1.method": "slerp",
    "node1.t[mlp].k1": 0.0, "node1.t[mlp].k2": 0.25, "node1.t[*].k1": 0.5, "node1.t[*].k2": 1.0,
    "node2.method": "linear", "slices": 2, "slice1.start": 0, "slice1.end": 4,
    "slice2.start": 2, "slice2.end": 6,
}  # fmt: skip


@pytest.mark.parametrize(("name", "values"), [("one", ONE), ("tree", TREE)])
def test_golden(name: str, values: dict, mixed_space: Space) -> None:
    recipe = draw(mixed_space, Fixed(values))
    text = to_yaml(recipe, PLACES, meta={"score": 0.75, "fingerprint": "0123456789abcdef"})
    assert text == (GOLDEN / f"recipe_{name}.yaml").read_text(encoding="utf-8")
    assert from_yaml(text).recipe == recipe


def accepted(text: str) -> dict:
    """What mergekit makes of a file; its documents by name."""
    documents = list(yaml.safe_load_all(text))
    configs, needs = load_config(text, "/intermediate")
    assert configs.keys() == {document.get("name") for document in documents}
    for document in documents:
        config = MergeConfiguration.model_validate(document)
        assert config.merge_method in REGISTERED
        for reference in config.referenced_models():
            inner = str(reference) in configs
            assert inner == (str(reference) in needs[document.get("name")])
    return {
        document.get("name"): MergeConfiguration.model_validate(document) for document in documents
    }


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_mergekit_accepts_what_is_drawn(any_space, random_trial, data, seed: int) -> None:
    recipe = draw(data.draw(any_space), random_trial(seed))
    configs = accepted(to_yaml(recipe, PLACES, meta={"note": "x"}))
    assert len(configs) == len(list(merges(recipe.root)))
    assert all(config.dtype == "float32" for config in configs.values())
    half = recipe.dtype if recipe.dtype != "float32" else None
    assert configs[None].out_dtype == half
    for merge, config in zip(merges(recipe.root), configs.values(), strict=True):
        spec = REGISTERED[merge.method]
        given = {name for name, _ in merge.parameters}
        given |= {
            name for group in merge.groups() for source in group for name, _ in source.parameters
        }
        assert given <= {parameter.name for parameter in spec.parameters}
        assert {p.name for p in spec.parameters if p.required} <= given
        assert config.merge_method == merge.method


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_round_trip(any_space, random_trial, data, seed: int) -> None:
    recipe = draw(data.draw(any_space), random_trial(seed))
    meta = {"score": 0.1, "tasks": {"gsm8k": [1, 2.5]}, "by": "älice"}
    text = to_yaml(recipe, PLACES, meta=meta)
    found = from_yaml(text)
    assert found.recipe == recipe
    assert found.recipe.key == found.key == recipe.key
    assert found.meta == meta
    assert found.ignored == ()
    assert found.locations == {name: PLACES[name] for name in recipe.needed}
    assert to_yaml(found.recipe, found.locations, meta=found.meta) == text


def linear(*sources: Source, **values) -> Merge:
    return Merge(method="linear", sources=sources, parameters=table(**values))


def model(name: str, **values) -> Source:
    return Source(of=Model(name), parameters=table(**values))


def part(name: str, start: int, end: int, **values) -> Source:
    return Source(of=Model(name), layers=(start, end), parameters=table(**values))


SHAPES = {
    "flags": Merge(
        method="dare_ties",
        sources=(model("math", weight=1), model("code", weight=-0.5)),
        base=Model("base"),
        parameters=table(normalize=True, rescale=False, lambda_=1e-7),
    ),
    "shared": linear(model("math"), model("code", weight=2.0), weight=Gradient((0.0, 1e22))),
    "filters on all levels": Merge(
        method="ties",
        slices=(
            Slice(
                sources=(
                    part("math", 0, 2, weight=ByFilter((Case(1.0, "*"),))),
                    part("base", 1, 3),
                ),
                parameters=table(density=ByFilter((Case(Gradient((0.5,)), "a: b"), Case(1.0)))),
            ),
            Slice(sources=(part("base", 0, 1), part("code", 2, 3, weight=0.5))),
        ),
        base=Model("base"),
        parameters=table(weight=1.0, normalize=ByFilter((Case(False, "mlp"), Case(True)))),
    ),
    "merged base": Merge(
        method="task_arithmetic",
        sources=(model("math", weight=1.0),),
        base=linear(model("base", weight=1.0), model("code", weight=1.0)),
    ),
    "slices of models": Merge(
        method="passthrough",
        slices=(
            Slice(sources=(part("math", 0, 3, scale=ByFilter((Case(0.5, "o_proj"), Case(1.0)))),)),
            Slice(sources=(part("code", 1, 1),)),
        ),
    ),
    "one merge twice": Merge(
        method="slerp",
        sources=(
            Source(of=linear(model("math", weight=1.0), model("code", weight=1.0))),
            Source(
                of=linear(
                    Source(
                        of=linear(model("math", weight=1.0), model("code", weight=1.0)),
                        parameters=table(weight=1.0),
                    ),
                    model("chat", weight=1.0),
                )
            ),
        ),
        base=linear(model("math", weight=1.0), model("code", weight=1.0)),
        parameters=table(t=0.5),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("tokenizer", [None, "code", "math"])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_round_trip_of_what_is_not_drawn(name: str, tokenizer: str, dtype: str) -> None:
    if tokenizer is not None and tokenizer not in Recipe(root=SHAPES[name]).models:
        tokenizer = "math"
    recipe = Recipe(root=SHAPES[name], tokenizer=tokenizer, dtype=dtype, seed=5)
    text = to_yaml(recipe, PLACES)
    assert from_yaml(text).recipe.key == recipe.key
    accepted(text)


def test_a_file_without_the_block_is_the_same_merge() -> None:
    recipe = Recipe(root=SHAPES["filters on all levels"], dtype="bfloat16")
    document = yaml.safe_load(to_yaml(recipe, PLACES))
    del document["merge_search"]
    found = from_yaml(yaml.safe_dump(document))
    assert found.recipe == recipe  # the names are the ends of the paths
    assert found.key is None


@pytest.mark.parametrize(
    ("dtype", "inputs", "written"),
    [
        (None, None, ("float32", None)),
        (None, "bfloat16", ("float32", "bfloat16")),
        (None, "float32", ("float32", None)),
        ("float32", "bfloat16", ("float32", None)),
        ("float16", "bfloat16", ("float32", "float16")),
    ],
)
def test_dtypes(dtype: str | None, inputs: str | None, written: tuple) -> None:
    recipe = Recipe(root=linear(model("math", weight=1.0)), dtype=dtype)
    text = to_yaml(recipe, PLACES, inputs_dtype=inputs)
    config = accepted(text)[None]
    assert (config.dtype, config.out_dtype) == written
    assert from_yaml(text).recipe.dtype == dtype


def test_an_edited_file_is_known_by_its_key() -> None:
    text = to_yaml(
        Recipe(root=linear(model("math", weight=0.5), model("code", weight=1.0))), PLACES
    )
    found = from_yaml(text.replace("weight: 0.5", "weight: 0.25"))
    assert found.key is not None
    assert found.key != found.recipe.key


def test_names_of_inner_merges_follow_their_content() -> None:
    # mergekit-multi takes an intermediate model that lies there already under the same name.
    def names(weight: float, place: str) -> set[str | None]:
        inner = linear(model("math", weight=weight), model("code", weight=1.0))
        outer = linear(Source(of=inner, parameters=table(weight=1.0)), model("chat", weight=1.0))
        return set(accepted(to_yaml(Recipe(root=outer), PLACES | {"math": place})))

    assert names(1.0, "a") == names(1.0, "a")
    assert len(names(1.0, "a") | names(0.5, "a") | names(1.0, "b")) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: to_yaml(r, {}),
            r"locations: expected one for every model, got none for \['math'",
        ),
        (
            lambda r: to_yaml(r, {"math": "x", "code": "x"}),
            "locations: expected another for every model, got x for math and code",
        ),
        (
            lambda r: to_yaml(r, PLACES, meta={"seed": 1}),
            "meta: expected names other than key, seed",
        ),
        (lambda r: to_yaml(r, PLACES, meta={"x": object()}), "meta: expected plain values"),
        (
            lambda r: to_yaml(r, PLACES, inputs_dtype="int8"),
            "inputs_dtype: expected one of float32",
        ),
        (
            lambda r: to_yaml(r, PLACES | {"math": "a@b@c"}),
            "locations: math: expected path.@revision.",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(call, message: str) -> None:
    recipe = Recipe(root=linear(model("math", weight=1.0), model("code", weight=1.0)))
    with pytest.raises(RecipeError, match=message):
        call(recipe)


# Reading what others wrote


def read(text: str) -> Document:
    list(load_config(text, "/intermediate"))  # mergekit takes it too
    return from_yaml(text)


def test_slerp_with_its_usual_gradients() -> None:
    found = read("""
slices:
  - sources:
      - {model: org/A-7B, layer_range: [0, 32]}
      - {model: org/B-7B@rev1, layer_range: [0, 32]}
merge_method: slerp
base_model: org/A-7B
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, "3e-1", 7e-1, 1]}
    - value: "5e-1"
  int8_mask: true
dtype: bfloat16
tokenizer_source: base
""")
    assert found.locations == {"A-7B": "org/A-7B", "B-7B": "org/B-7B@rev1"}
    assert found.recipe == Recipe(
        root=Merge(
            method="slerp",
            slices=(Slice(sources=(part("A-7B", 0, 32), part("B-7B", 0, 32))),),
            base=Model("A-7B"),
            parameters=table(
                t=ByFilter((Case(Gradient((0.0, 0.5, 0.3, 0.7, 1.0)), "self_attn"), Case(0.5)))
            ),
        ),
        dtype="bfloat16",
        vocabulary=Vocabulary(model="A-7B"),
    )
    assert found.ignored == ("recipe.yaml: parameters.int8_mask: slerp has no use for it",)


@pytest.mark.parametrize(
    "models",
    [
        "[{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 0.5}}]",
        "[{model: base}, {model: a, parameters: {weight: 1}}, "
        "{model: b, parameters: {weight: 0.5}}]",
        "[{model: a, parameters: {weight: 1}}, {model: {model: {path: b}}, "
        "parameters: {weight: 5e-1}}, {model: base, parameters: {weight: 3}}]",
    ],
)
def test_a_listed_base_is_left_out_of_task_vectors(models: str) -> None:
    found = read(f"merge_method: ties\nbase_model: base\nmodels: {models}\n").recipe
    assert found.root == Merge(
        method="ties", sources=(model("a", weight=1.0), model("b", weight=0.5)), base=Model("base")
    )
    assert found.dtype is None


def test_a_listed_base_of_linear_gives_the_tokenizer() -> None:
    head = "merge_method: linear\nparameters: {weight: 1}\n"
    listed = read(f"{head}base_model: b\nmodels: [{{model: a}}, {{model: b}}]\n").recipe
    assert listed.root.base is None
    assert (listed.tokenizer, listed.donor) == ("b", "b")
    # One that is not listed is merged as well, and then needs a weight.
    unlisted = read(f"{head}base_model: c\nmodels: [{{model: a}}, {{model: b}}]\n").recipe
    assert [source.of for source in unlisted.root.sources] == [Model("a"), Model("b"), Model("c")]
    assert unlisted.tokenizer == "c"


def test_slerp_adds_a_base_that_is_not_listed() -> None:
    found = read("merge_method: slerp\nbase_model: b\nmodels: [{model: a}]\nparameters: {t: 0.3}\n")
    assert [source.of for source in found.recipe.root.sources] == [Model("a"), Model("b")]


def test_parameters_of_a_module_go_before_those_of_the_document() -> None:
    found = read("""
merge_method: ties
base_model: base
modules:
  default:
    models: [{model: a}, {model: b, parameters: {weight: {filter: mlp, value: 2}}}]
    parameters: {weight: [{filter: attn, value: [0.5, 1]}], density: 0.5}
parameters: {weight: 1, density: 0.1, lambda: 0.7, normalize: "no"}
""").recipe.root
    weight = ByFilter((Case(Gradient((0.5, 1.0)), "attn"), Case(1.0)))
    assert dict(found.parameters) == {
        "weight": weight, "density": 0.5, "lambda": 0.7, "normalize": False,
    }  # fmt: skip
    assert dict(found.sources[1].parameters) == {"weight": ByFilter((Case(2.0, "mlp"),))}


def test_documents_in_any_order_that_refer_to_each_other() -> None:
    found = read("""
name: outer
merge_method: slerp
base_model: inner
models: [{model: inner}, {model: org/chat}]
parameters: {t: 0.5}
dtype: float32
out_dtype: float16
tokenizer_source: inner
---
name: inner
merge_method: linear
models: [{model: org/math}, {model: org/code}]
parameters: {weight: 1.0}
dtype: torch.bfloat16
""")
    inner = linear(model("math"), model("code"), weight=1.0)
    assert found.recipe == Recipe(
        root=Merge(
            method="slerp",
            sources=(Source(of=inner), model("chat")),
            base=inner,
            parameters=table(t=0.5),
        ),
        dtype="float16",
        vocabulary=Vocabulary(model="math"),
    )
    assert found.ignored == (
        "recipe.yaml: document 2 (inner): dtype: bfloat16: intermediate results stay in float32",
    )


def test_short_names_are_cleaned_and_distinct() -> None:
    places = ["org/A", "other/A", "./A/", "base+lora-x@2", "base+lora-y", "/", "a b", "-c"]
    models = ", ".join(f"{{model: {place}}}" for place in places)
    found = from_yaml(f"merge_method: linear\nmodels: [{models}]\nparameters: {{weight: 1}}\n")
    assert list(found.locations.items()) == list(
        zip(
            ["A", "A-2", "A-3", "base-lora-x", "base-lora-y", "model", "a-b", "c"],
            places,
            strict=True,
        )
    )


def test_own_names_are_taken_from_the_block() -> None:
    found = read("""
merge_method: linear
models: [{model: x/A}, {model: y/A}, {model: z/m}]
parameters: {weight: 1}
merge_search: {models: {m: x/A, unused: q}, seed: 4, note: hi}
""")
    assert found.locations == {"m": "x/A", "A": "y/A", "m-2": "z/m"}
    assert (found.recipe.seed, found.meta, found.key) == (4, {"note": "hi"}, None)


HEAD = "merge_method: ties\nbase_model: base\n"
LINEAR = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^r.yml: expected a merge, got an empty file$"),
        ("a: [", "^r.yml: line 1: expected YAML, got"),
        (
            "a: 1\nb: 2\na: 3\n",
            "^r.yml: line 3: expected YAML, got: key 'a' is there twice",
        ),
        ("- a\n", r"^r.yml: expected keys and values, got \['a'\]"),
        ("x: !!python/object:os.system {}\n", "expected YAML, got"),
        ("a: 2024-99-99\n", "expected YAML, got"),
        ("models: [{model: a}]\n", "r.yml: merge_method: expected one of linear, .*, got none"),
        (
            "merge_method: delta\nmodels: [{model: a}]\n",
            "merge_method: expected one of linear, .*, got 'delta'",
        ),
        (HEAD, "r.yml: expected exactly one of models, slices and modules, got none"),
        (
            HEAD + "models: [{model: a}]\nslices: [{sources: []}]\n",
            "expected exactly one of models, slices and modules, got models and slices",
        ),
        (HEAD + "models: {model: a}\n", "models: expected a list of keys and values"),
        (HEAD + "models: [a]\n", "models: expected a list of keys and values"),
        (
            HEAD + "models: [{parameters: {}}]\n",
            r"models\[0\].model: expected a path or hub id, got none",
        ),
        (HEAD + "models: [{model: a+b+c}]\n", r"models\[0\].model: expected path\[@revision\]"),
        (HEAD + "models: [{model: 3}]\n", r"models\[0\].model: expected path\[@revision\]"),
        (
            HEAD + "models: [{model: '@x'}]\n",
            r"models\[0\].model: expected a path or hub id, got '@x'",
        ),
        (
            HEAD + "models: [{model: {model: a, override_architecture: X}}]\n",
            r"models\[0\].model: expected no override_architecture \(leave it out",
        ),
        (HEAD + "models: [{model: a}]\n", "r.yml: ties: expected a value for 'weight', got none"),
        (
            HEAD + "models: [{model: a, parameters: {weight: q}}]\n",
            r"models\[0\].parameters.weight: expected a number, got 'q'",
        ),
        (
            HEAD + "models: [{model: a, parameters: {weight: .nan}}]\n",
            r"models\[0\].parameters.weight: expected a finite number, got nan",
        ),
        (
            HEAD + "models: [{model: a, parameters: {weight: 1, density: 0}}]\n",
            r"models\[0\].parameters.density: expected a value in \(0, 1\], got 0",
        ),
        (
            HEAD + "models: [{model: a, parameters: {weight: [1, {value: 2}]}}]\n",
            r"models\[0\].parameters.weight: expected numbers only or filters only",
        ),
        (
            HEAD + "models: [{model: a, parameters: {weight: {filter: x}}}]\n",
            r"models\[0\].parameters.weight: expected the keys value and filter, got filter",
        ),
        (
            HEAD + "models: [{model: a, parameters: {weight: {filter: 3, value: 3}}}]\n",
            r"expected part of a tensor name as filter, got 3",
        ),
        (
            HEAD + "models: [{model: a, parameters: {weight: null}}]\n",
            r"models\[0\].parameters.weight: expected a number, got None",
        ),
        (
            HEAD + "models: [{model: a, parameters: {wieght: 1}}]\n",
            r"models\[0\].parameters: expected names from weight, density, got 'wieght'",
        ),
        (
            HEAD + "models: [{model: a, parameters: [1]}]\n",
            r"models\[0\].parameters: expected keys",
        ),
        (
            HEAD + "models: [{model: a}]\nparameters: {weight: 1, normalize: 2}\n",
            "parameters.normalize: expected true or false, got 2",
        ),
        (
            HEAD + "models: [{model: a}]\nparameters: {weight: 1, normalize: [true, false]}\n",
            "parameters.normalize: expected true or false, got a gradient",
        ),
        (
            "merge_method: ties\nmodels: [{model: a, parameters: {weight: 1}}]\n",
            "r.yml: ties: expected a base model, got none",
        ),
        (
            "merge_method: linear\nmodels: [{model: a}, {model: a}]\nparameters: {weight: 1}\n",
            "r.yml: linear: expected distinct inputs, got one of them twice",
        ),
        (
            "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}, {model: c}]\n"
            "parameters: {t: 1}\n",
            "slerp: expected exactly 2 inputs, got 3",
        ),
        (
            HEAD + "slices: [{sources: [{model: a, layer_range: [0]}]}]\n",
            r"slices\[0\].sources\[0\].layer_range: expected \[first layer, layer after the last\]",
        ),
        (
            HEAD + "slices: [{sources: [{model: a}]}]\n",
            r"slices\[0\].sources\[0\].layer_range: .*, got none",
        ),
        (
            HEAD + "slices: [{sources: [{model: a, layer_range: [0, 1.5]}]}]\n",
            r"layer_range: expected a whole number, got 1.5",
        ),
        (
            HEAD + "slices: [{sources: [{model: a, layer_range: [3, 1]}]}]\n",
            r"slices\[0\].sources\[0\]: layers: expected 0 <= start <= end, got \[3, 1\]",
        ),
        (
            HEAD + "slices: [{}]\n",
            r"slices\[0\].sources: expected a list of keys and values, got None",
        ),
        (
            HEAD + "slices: [{sources: [{model: a, layer_range: [0, 1]}, "
            "{model: base, layer_range: [0, 2]}]}]\n",
            r"slices\[0\]: slice: expected layer ranges of one length",
        ),
        (
            HEAD
            + "slices: [{sources: [{model: a, layer_range: [0, 1], parameters: {weight: 1}}]}]\n",
            "r.yml: ties: expected the base in every slice",
        ),
        (
            HEAD + "slices: [{base_model: x, sources: [{model: a, layer_range: [0, 1]}]}, "
            "{sources: [{model: a, layer_range: [0, 1]}]}]\n",
            r"slices: expected one base for all slices, got x, base \(give each group of slices",
        ),
        (HEAD + "modules: {a: {models: []}, b: {}}\n", "modules: expected one module"),
        (
            "experts: [{source_model: a}]\ngate_mode: hidden\n",
            "^r.yml: experts: expected a merge, .*$",
        ),
        (HEAD + "modules: {a: {}}\n", "modules.a: expected either models or slices"),
        (
            LINEAR + "dtype: float64\n",
            "dtype: expected one of float32, float16, bfloat16, got 'float64'",
        ),
        (
            LINEAR + "tokenizer: {tokens: {x: {source: q}}}\n",
            r"tokenizer\.tokens\.x\.source: expected a model of this merge, got 'q'",
        ),
        (
            LINEAR + "tokenizer: {tokens: {x: {force: true}}}\n",
            r"tokenizer\.tokens\.x: expected a source, got {'force': True}",
        ),
        (
            LINEAR + "tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}\n",
            r"tokenizer\.tokens\.x\.source: expected either token or token_id, got",
        ),
        (
            LINEAR + "tokenizer: {tokens: [x]}\n",
            r"tokenizer\.tokens: expected tokens and their sources, got \['x'\]",
        ),
        (
            LINEAR + "tokenizer: {pad_to_multiple_of: -4}\n",
            "pad_to_multiple_of: expected a number from 1, got -4",
        ),
        (
            LINEAR + "tokenizer_source: base\ntokenizer: {source: union}\n",
            "tokenizer: expected it or tokenizer_source, got both",
        ),
        (
            LINEAR + "tokenizer_source: q\n",
            "tokenizer_source: expected a model of this merge, got 'q'",
        ),
        (
            LINEAR + "chat_template: chatlm\n",
            r"chat_template: expected one of auto, alpaca, chatml, .*, or a Jinja template",
        ),
        (
            LINEAR + "merge_search: {models: {m/n: a}}\n",
            "merge_search.models: model name: expected letters",
        ),
        (
            LINEAR + "merge_search: {models: {m: a, n: a}}\n",
            "merge_search.models.n: expected a location of its own, got 'a'",
        ),
        (
            LINEAR + "merge_search: [1]\n",
            "merge_search: expected keys and values",
        ),
        (
            LINEAR + "merge_search: {seed: -1}\n",
            "merge_search: seed: expected 0 to 2147483647, got -1",
        ),
        (
            LINEAR + "merge_search: {tokenizer: q}\n",
            "merge_search.tokenizer: expected one of the models, got 'q'",
        ),
        (
            "name: a\nmerge_method: linear\nmodels: [{model: b}]\nparameters: {weight: 1}\n---\n"
            "name: b\nmerge_method: linear\nmodels: [{model: a}]\nparameters: {weight: 1}\n",
            r"r.yml: document 1 \(a\): expected merges that do not need each other in a circle",
        ),
        (
            "merge_method: linear\nmodels: [{model: b}]\nparameters: {weight: 1}\n---\n"
            "merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: 1}\n",
            "r.yml: document 2: name: expected a name, since another document has none either",
        ),
        (
            "name: a\nmerge_method: linear\nmodels: [{model: x}]\nparameters: {weight: 1}\n---\n"
            "name: a\nmerge_method: linear\nmodels: [{model: y}]\nparameters: {weight: 1}\n",
            r"r.yml: document 2 \(a\): name: expected a name of its own, got 'a'",
        ),
        (
            "name: a\nmerge_method: linear\nmodels: [{model: x}]\nparameters: {weight: 1}\n---\n"
            "name: b\nmerge_method: linear\nmodels: [{model: y}]\nparameters: {weight: 1}\n",
            "r.yml: expected one document without a name .the result., got none",
        ),
        (
            "name: a\nmerge_method: linear\nmodels: [{model: x}]\nparameters: {weight: 1}\n---\n"
            "merge_method: linear\nmodels: [{model: a+lora}]\nparameters: {weight: 1}\n",
            r"document 2: models\[0\].model: expected no revision or adapter on the merge 'a'",
        ),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_yaml(text, name="r.yml")


def test_all_problems_of_a_file_come_at_once() -> None:
    text = """
name: inner
merge_method: tie
models: [{model: a}]
dtype: int8
---
merge_method: ties
base_model: base
models:
  - {model: inner, parameters: {weight: q, density: 2}}
  - {model: b+c+d, parameters: {weight: 1}}
parameters: {normalize: perhaps}
chat_template: automatic
"""
    with pytest.raises(RecipeError) as caught:
        from_yaml(text, name="mine.yaml")
    lines = str(caught.value).splitlines()
    assert [line.split(": expected")[0] for line in lines] == [
        "mine.yaml: document 1 (inner): merge_method",
        "mine.yaml: document 1 (inner): dtype",
        "mine.yaml: document 2: chat_template",
        "mine.yaml: document 2: parameters.normalize",
        "mine.yaml: document 2: models[0].parameters.weight",
        "mine.yaml: document 2: models[0].parameters.density",
        "mine.yaml: document 2: models[1].model",
    ]


@given(data=st.data())
def test_no_file_brings_another_error(mixed_space: Space, data: st.DataObject) -> None:
    """Whatever is put in the place of any part of a good file, the answer is a RecipeError."""
    documents = list(yaml.safe_load_all(to_yaml(draw(mixed_space, Fixed(TREE)), PLACES)))
    broken = copy.deepcopy(documents)
    at: object = broken
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    junk = [
        None,
        [],
        {},
        3,
        -1,
        0.5,
        "x",
        "",
        True,
        [[1]],
        [{}],
        {"a": {}},
        {1: 2},
        [None],
        "node1",
    ]
    at[key] = data.draw(st.sampled_from(junk))
    try:
        found = from_yaml(yaml.safe_dump_all(broken))
    except RecipeError as error:
        problem = str(error)
        assert problem.startswith("recipe.yaml: ")
    else:
        assert Recipe.from_dict(found.recipe.to_dict()).key == found.recipe.key


def test_every_method_is_one_of_mergekits() -> None:
    for name, method in METHODS.items():
        if not method.in_mergekit:
            continue
        spec = REGISTERED[name]
        theirs = {parameter.name: parameter for parameter in spec.parameters}
        assert theirs.keys() == {parameter.name for parameter in method.parameters}
        for parameter in method.parameters:
            assert theirs[parameter.name].required == (parameter.default is None)
            if parameter.default is not None and name != "passthrough":
                assert theirs[parameter.name].default == parameter.default
