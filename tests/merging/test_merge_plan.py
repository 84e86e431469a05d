"""Plans: what is made of what, and every problem before a weight is read."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.expressions import Combine, Leaf
from merging.planning.merge_plan import MergePlan, PlanError, check_parents, plan
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source


def opened(models: Mapping[str, Path]) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(str(path), name=name) for name, path in models.items()}


def planned(merge: Any, models: Mapping[str, Path], **recipe: Any) -> MergePlan:
    return plan(Recipe.from_dict({"merge": merge, **recipe}), opened(models))


def problems(merge: Any, models: Mapping[str, Path], **recipe: Any) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        planned(merge, models, **recipe)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def linear(*models: Any, **values: Any) -> dict[str, Any]:
    return {
        "method": "linear",
        "sources": [{"of": model} for model in models],
        "parameters": {"weight": 1.0, **values},
    }


def ties(*models: Any, base: Any = "base", **values: Any) -> dict[str, Any]:
    return {
        "method": "ties",
        "base": base,
        "sources": [{"of": model} for model in models],
        "parameters": {"weight": 0.5, **values},
    }


def stacked(*ranges: tuple[str, int, int]) -> dict[str, Any]:
    return {
        "method": "passthrough",
        "slices": [{"sources": [{"of": of, "layers": [a, b]}]} for of, a, b in ranges],
    }


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file({name: x.contiguous() for name, x in tensors.items()}, folder / "model.safetensors")


def configure(folder: Path, **values: Any) -> None:
    """Change the config of a checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.fixture
def models(tiny_family: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """A family that a test may break."""
    return {name: shutil.copytree(at, tmp_path / name) for name, at in tiny_family.items()}


def test_jobs(tiny_family: dict[str, Path]) -> None:
    made = planned(ties("math", "code"), tiny_family)
    names = [job.name for job in made.jobs]
    assert names[0] == "model.embed_tokens.weight"
    assert names[1].startswith("model.layers.0.")
    assert names[-2:] == ["lm_head.weight", "model.norm.weight"]
    assert set(names) == set(opened(tiny_family)["base"].tensors)
    assert (made.layers, made.donor) == (4, "base")
    assert made.size == sum(job.size for job in made.jobs)
    job = made.jobs[0]
    assert (job.shape, job.dtype) == ((50, 32), torch.float32)
    assert isinstance(job.expression, Combine)
    assert [leaf.model for leaf in job.expression.inputs if isinstance(leaf, Leaf)] == [
        "math",
        "code",
    ]
    assert isinstance(job.expression.base, Leaf)
    assert job.expression.base.model == "base"
    assert job.expression.per_input == {"weight": (0.5, 0.5), "density": (1.0, 1.0)}
    assert job.expression.shared == {
        "lambda": 1.0,
        "normalize": True,
        "rescale": False,
        "int8_mask": False,
    }


def weights_by_layer(made: MergePlan, tensor: str) -> list[float]:
    found = [job.expression for job in made.jobs if job.name.endswith(tensor)]
    return [node.per_input["weight"][0] for node in found if isinstance(node, Combine)]


def test_gradient_over_depth(tiny_model: Any) -> None:
    models = {"base": tiny_model(layers=5), "math": tiny_model(layers=5, seed=1)}
    made = planned(linear("base", "math", weight=[1.0, 0.0], normalize=False), models)
    assert weights_by_layer(made, "q_proj.weight") == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert weights_by_layer(made, "embed_tokens.weight") == [1.0]
    assert weights_by_layer(made, "lm_head.weight") == [1.0]  # outside the layers: depth 0


def test_depth_starts_anew_in_every_slice(tiny_family: dict[str, Path]) -> None:
    def part(start: int, end: int, weight: Any) -> dict[str, Any]:
        sources = [{"of": name, "layers": [start, end]} for name in ("math", "code")]
        return {"sources": sources, "parameters": {"weight": weight}}

    slices = [part(0, 3, [0.0, 1.0]), part(1, 2, [0.2, 0.4]), part(2, 4, 0.7)]
    merge = {"method": "linear", "slices": slices, "parameters": {"normalize": False}}
    made = planned(merge, tiny_family)
    assert weights_by_layer(made, "q_proj.weight") == [0.0, 0.5, 1.0, 0.4, 0.7, 0.7]
    assert weights_by_layer(made, "embed_tokens.weight") == [0.0]  # of the first slice
    assert weights_by_layer(made, "model.norm.weight") == [0.7]  # of the last


def test_precedence_and_filters(tiny_family: dict[str, Path]) -> None:
    """Source, then slice, then merge; the first filter that matches; else the next level."""
    merge = {
        "method": "linear",
        "parameters": {"weight": 0.1},
        "slices": [
            {
                "parameters": {"weight": [{"filter": "mlp", "value": 0.2}]},
                "sources": [
                    {
                        "of": "math",
                        "layers": [0, 4],
                        "parameters": {"weight": [{"filter": "layers.2.mlp", "value": 0.3}]},
                    },
                    {"of": "code", "layers": [0, 4]},
                ],
            }
        ],
    }
    made = planned(merge, tiny_family)
    assert weights_by_layer(made, "up_proj.weight") == [0.2, 0.2, 0.3, 0.2]
    assert weights_by_layer(made, "q_proj.weight") == [0.1] * 4


def test_input_filters_see_the_input_s_own_names(tiny_family: dict[str, Path]) -> None:
    def source(of: str) -> dict[str, Any]:
        weight = [{"filter": "layers.3.", "value": 1.0}, {"value": 0.25}]
        return {"of": of, "layers": [2, 4], "parameters": {"weight": weight}}

    merge = {"method": "linear", "slices": [{"sources": [source("math"), source("code")]}]}
    made = planned(merge, tiny_family)
    assert made.layers == 2
    assert weights_by_layer(made, "q_proj.weight") == [0.25, 1.0]


def test_flags_step_over_depth(tiny_family: dict[str, Path]) -> None:
    made = planned(linear("math", "code", normalize=[0.0, 1.0, 0.0]), tiny_family)
    found = [job.expression for job in made.jobs if job.name.endswith("q_proj.weight")]
    flags = [node.shared["normalize"] for node in found if isinstance(node, Combine)]
    assert flags == [False, False, True, False]


def test_shared_parts_of_a_tree_are_one_object(tiny_family: dict[str, Path]) -> None:
    inner = linear("math", "code")
    tree = {
        "method": "slerp",
        "base": inner,
        "sources": [{"of": inner}, {"of": linear("text", inner)}],
        "parameters": {"t": 0.5},
    }
    for job in planned(tree, tiny_family).jobs:
        assert isinstance(job.expression, Combine)
        start, end = job.expression.inputs
        assert isinstance(end, Combine)
        assert end.inputs[1] is start


def test_masks_are_keyed_by_input_and_output_tensor(tiny_family: dict[str, Path]) -> None:
    inner = linear("math", "code")
    tree = {
        "method": "dare_ties",
        "base": "base",
        "sources": [{"of": "text"}, {"of": inner}],
        "parameters": {"weight": 0.5, "density": 0.5},
    }
    job = planned(tree, tiny_family, seed=5).jobs[0]
    assert isinstance(job.expression, Combine)
    found = [(key.seed, key.model, key.tensor) for key in job.expression.masks]
    assert found == [
        (5, "text", "model.embed_tokens.weight"),
        (5, "linear(math,code)", "model.embed_tokens.weight"),
    ]


@pytest.mark.parametrize(
    ("asked", "stored", "expected"),
    [
        (None, ("bfloat16", "bfloat16"), torch.bfloat16),
        (None, ("bfloat16", "float32"), torch.float32),
        (None, ("bfloat16", "float16"), torch.float32),
        (None, ("float64", "float32"), torch.float32),
        ("float16", ("bfloat16", "float32"), torch.float16),
    ],
)
def test_output_dtype(
    asked: str | None, stored: tuple[str, str], expected: torch.dtype, tiny_model: Any
) -> None:
    base = tiny_model(dtype=stored[0])
    models = {"base": base, "math": tiny_model(base=base, seed=1, dtype=stored[1])}
    made = planned(linear("base", "math"), models, **({"dtype": asked} if asked else {}))
    assert {job.dtype for job in made.jobs} == {expected}
    assert made.config["dtype"] == str(expected).removeprefix("torch.")


def test_config_of_stacked_layers(models: dict[str, Path]) -> None:
    for folder in models.values():
        kinds = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
        configure(folder, layer_types=kinds, torch_dtype="float16", eos_token_id=[1, 2, 3, 4])
    made = planned(stacked(("math", 0, 2), ("code", 1, 4), ("text", 1, 2)), models)
    assert made.config["num_hidden_layers"] == made.layers == 6
    assert made.config["layer_types"] == [
        "full_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
        "full_attention",
        "sliding_attention",
    ]
    assert made.config["eos_token_id"] == [1, 2, 3, 4]
    assert made.config["torch_dtype"] == made.config["dtype"] == "float32"


def test_config_with_a_text_part(models: dict[str, Path]) -> None:
    for folder in models.values():
        config = json.loads((folder / "config.json").read_text())
        del config["num_hidden_layers"]
        config["text_config"] = {"num_hidden_layers": 4}
        (folder / "config.json").write_text(json.dumps(config))
    made = planned(stacked(("math", 0, 2)), models)
    assert made.config["text_config"] == {"num_hidden_layers": 2}
    assert "num_hidden_layers" not in made.config


def test_config_of_a_looped_model(models: dict[str, Path]) -> None:
    """Its layers are passed through several times, and counted so."""
    for folder in models.values():
        configure(folder, num_layers_per_stack=4, num_hidden_layers=32)
    for layers, passes in ((4, 32), (2, 16)):
        made = planned(stacked(("math", 0, layers)), models)
        assert made.config["num_layers_per_stack"] == layers
        assert made.config["num_hidden_layers"] == passes


def test_tokenizer_model_gives_the_config(tiny_family: dict[str, Path]) -> None:
    assert planned(ties("math", "code"), tiny_family, tokenizer="code").donor == "code"


def wider(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "mlp" in name]:
        tensors[name] = torch.zeros(64, 64)


def smaller_vocabulary(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:-3].clone()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            wider,
            r"model math: model.layers.0.mlp.down_proj.weight in model.safetensors: expected shape "
            r"\[32, 64\] as in base, got \[64, 64\] \(and 11 more tensors\)",
        ),
        (
            smaller_vocabulary,
            r"model math: expected a vocabulary of 50 tokens as in base, got 47 \(model.embed",
        ),
        (
            lambda t: t.pop("model.layers.1.mlp.up_proj.weight"),
            r"model math: model.layers.1.mlp.up_proj.weight is missing$",
        ),
        (lambda t: t.pop("model.norm.weight"), r"model math: model.norm.weight is missing$"),
        (
            lambda t: t.pop("lm_head.weight"),
            r"model math: lm_head.weight is missing$",
        ),
        (
            lambda t: t.update({"model.layers.0.mlp.up_proj.bias": torch.zeros(64)}),
            r"model base: model.layers.0.mlp.up_proj.bias is missing|"
            r"model code: model.layers.0.mlp.up_proj.bias is missing",
        ),
        (
            lambda t: t.update({"model.norm.bias": torch.zeros(32)}),
            r"model base: model.norm.bias is missing; math has it, and base gives the output",
        ),
    ],
)
def test_tensors_that_do_not_fit(
    models: dict[str, Path], edit: Callable[[Any], Any], message: str
) -> None:
    change(models["math"], edit)
    with pytest.raises(PlanError, match=message):
        planned(ties("math", "code"), models)
    assert check_parents(opened(models), "base")


def test_all_problems_of_all_models_together(models: dict[str, Path]) -> None:
    change(models["math"], lambda t: t.pop("model.norm.weight"))
    change(models["code"], smaller_vocabulary)
    change(models["text"], wider)
    found = problems(ties("math", "code", "text"), models)
    assert len(found) == 3
    assert [line.split(":")[0] for line in sorted(found)] == [
        "model code",
        "model math",
        "model text",
    ]
    assert len(check_parents(opened(models), "base")) == 3


def test_model_not_given(tiny_family: dict[str, Path]) -> None:
    some = {"math": tiny_family["math"]}
    found = problems(ties("math", "code"), some, tokenizer="text")
    assert found == (
        "model code: not among the models given (math)",
        "model base: not among the models given (math)",
        "model text: not among the models given (math)",
    )


def test_other_architecture(models: dict[str, Path], tiny_model: Any) -> None:
    models["code"] = tiny_model(family="qwen3", layers=4)
    expected = "model code: expected model_type llama as in base, got qwen3"
    assert problems(ties("math", "code", "text"), models) == (expected,)
    assert expected in check_parents(opened(models), "base")


def test_other_depth(models: dict[str, Path], tiny_model: Any) -> None:
    models["code"] = tiny_model(layers=3)
    assert problems(ties("math", "code"), models) == (
        "ties: expected inputs of one number of layers, got math 4, code 3, base 4",
    )
    found = check_parents(opened(models), "base")
    assert "model code: expected 4 layers as in base, got 3" in found


def test_layer_range_beyond_the_end(tiny_family: dict[str, Path]) -> None:
    merge = stacked(("math", 0, 5), ("code", 2, 9))
    assert problems(merge, tiny_family) == (
        "layers: expected a range within the 4 layers of math, got [0, 5]",
        "layers: expected a range within the 4 layers of code, got [2, 9]",
    )


def test_layer_range_of_a_merge(tiny_family: dict[str, Path]) -> None:
    inner = stacked(("math", 0, 2))
    tree = {"method": "passthrough", "slices": [{"sources": [{"of": inner, "layers": [1, 3]}]}]}
    assert problems(tree, tiny_family) == (
        "layers: expected a range within the 2 layers of passthrough(math), got [1, 3]",
    )


def test_value_missing_for_some_tensors(tiny_family: dict[str, Path]) -> None:
    found = problems(linear("math", "code", weight=[{"filter": "mlp", "value": 1.0}]), tiny_family)
    assert len(found) == 1
    assert "weight: expected a value for model.embed_tokens.weight, got none" in found[0]


@pytest.mark.parametrize("name", ["h", "v_head.weight", "mtp.layer.weight"])
def test_extra_modules_of_an_input_are_ignored(models: dict[str, Path], name: str) -> None:
    change(models["math"], lambda t: t.update({name: torch.zeros(3)}))
    assert name not in {job.name for job in planned(ties("math", "code"), models).jobs}
    assert check_parents(opened(models), "base") == []


def test_module_that_only_some_have(models: dict[str, Path], build: Any) -> None:
    """The base's extra module is merged over those that have it."""
    for name, value in (("base", 1.0), ("code", 3.0)):
        change(models[name], lambda t, v=value: t.update({"mtp.norm.weight": torch.full((4,), v)}))
    merge = ties("math", "code", weight=0.5)
    assert build(merge, models)["mtp.norm.weight"].tolist() == [3.0] * 4
    assert check_parents(opened(models), "base") == []
    change(models["code"], lambda t: t.pop("mtp.norm.weight"))
    assert build(merge, models)["mtp.norm.weight"].tolist() == [1.0] * 4


def test_base_without_the_module(models: dict[str, Path]) -> None:
    for name in ("math", "code"):
        change(models[name], lambda t: t.update({"mtp.norm.weight": torch.ones(4)}))
    found = problems(ties("math", "code"), models, tokenizer="math")
    assert found == ("ties: mtp.norm.weight: expected the base base to have it, it does not",)


def test_slerp_of_one_is_that_one(models: dict[str, Path], build: Any) -> None:
    change(models["base"], lambda t: t.update({"mtp.norm.weight": torch.ones(4)}))
    merge = {
        "method": "slerp",
        "base": "base",
        "sources": [{"of": "base"}, {"of": "math"}],
        "parameters": {"t": 0.5},
    }
    assert build(merge, models)["mtp.norm.weight"].tolist() == [1.0] * 4


def test_whole_numbers_must_agree(models: dict[str, Path], build: Any) -> None:
    for folder in models.values():
        change(folder, lambda t: t.update({"extra.steps": torch.tensor([1, 2])}))
    made = build(ties("math", "code"), models, dtype="bfloat16")["extra.steps"]
    assert made.dtype == torch.int64
    assert made.tolist() == [1, 2]
    change(models["code"], lambda t: t.update({"extra.steps": torch.tensor([1, 3])}))
    found = problems(ties("math", "code"), models)
    assert "model code: extra.steps: expected the whole numbers of math" in found[0]


def test_names_of_the_hub_s_gpt2(tiny_model: Any, tmp_path: Path, build: Any) -> None:
    """The original is stored without ``transformer.``, fine-tunes with it."""
    base = tiny_model(family="gpt2", tied=True)
    tuned = tiny_model(base=base, seed=1)
    plain = shutil.copytree(base, tmp_path / "plain")
    tensors = load_file(plain / "model.safetensors")
    save_file(
        {name.removeprefix("transformer."): x for name, x in tensors.items()},
        plain / "model.safetensors",
    )
    assert check_parents(opened({"base": plain, "math": tuned}), "base") == []
    expected = build(ties("math"), {"base": base, "math": tuned})
    made = build(ties("math"), {"base": plain, "math": tuned})
    assert {f"transformer.{name}" for name in made} == set(expected)
    for name, tensor in made.items():
        assert torch.equal(tensor, expected[f"transformer.{name}"])


def test_parents_that_fit(tiny_family: dict[str, Path]) -> None:
    assert check_parents(opened(tiny_family), "base") == []
    assert check_parents(opened(tiny_family), None) == []
    assert check_parents({}, None) == []
    assert check_parents(opened(tiny_family), "other") == [
        "base: expected one of base, math, code, text, got 'other'"
    ]


def test_same_tokens_other_numbers(tiny_model: Any) -> None:
    models = {"base": tiny_model(vocab="abcd"), "math": tiny_model(vocab="abdc")}
    assert check_parents(opened(models), "base") == [
        "model math: expected the token numbers of base, got others for 2 tokens (first 'c': 6 "
        "instead of 5); models of different vocabularies can only be merged by a "
        "recipe that says whose the result gets (tokenizer_source; in a search, output.vocabulary)"
    ]


def test_untied_without_head(models: dict[str, Path]) -> None:
    change(models["base"], lambda t: t.pop("lm_head.weight"))
    found = problems(ties("math", "code"), models)
    assert "model base: expected an output head" in found[0]


def test_error_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(PlanError(["one", "two"]))).problems == ("one", "two")


def test_no_layers_at_all(tiny_family: dict[str, Path]) -> None:
    def stack(*ranges: tuple[int, int]) -> Recipe:
        slices = tuple(
            Slice(sources=(Source(of=Model("math"), layers=layers),)) for layers in ranges
        )
        return Recipe(root=Merge(method="passthrough", slices=slices))

    checkpoints = {"math": Checkpoint.open(str(tiny_family["math"]), name="math")}
    with pytest.raises(PlanError, match="slices: expected at least one layer in all, got none"):
        plan(stack((0, 0), (3, 3)), checkpoints)
    assert plan(stack((0, 0), (1, 3)), checkpoints).layers == 2
