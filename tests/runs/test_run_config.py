from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluators.harness_spec import TaskSpec
from runs.config.budget import Budget
from runs.config.config_sections import SAMPLERS
from runs.config.run_config import ConfigError, RunConfig, json_schema, load_config, open_inputs
from spaces.search_space.bounds import Depth, Order, Range, SpaceError, Stacking
from spaces.search_space.space import Space

FULL = """\
base: ./models/base
models:
  math: ./models/math
  code: org/code@main
  no: ./models/math+./adapters/a
tasks:
  - {name: gsm8k_dev, metric: "exact_match,strict-match", weight: 2.0, num_fewshot: 4, limit: 100}
  - {name: perplexity, lower_is_better: true}
  - arc_easy
include_path: ./tasks
harness:
  apply_chat_template: true
  fewshot_as_multiturn: true
  system_instruction: Be brief.
  gen_kwargs: {temperature: 0.0, do_sample: false, max_gen_toks: 64, until: stop}
  batch_size: 8
  max_length: 512
held_out: [arc_easy]
space:
  methods: [linear, slerp, ties]
  weight: [0, 1e0]
  density: [0.2, 0.9]
  t: [0.1, 0.9]
  lambda: [0.7, 1.3]
  depth: {groups: 4, parameters: [weight]}
  filters: [self_attn, mlp]
  filter_parameters: [weight, density]
  order: pairwise
  slices: {max_slices: 3, min_layers: 4, max_layers: 9}
search: {trials: 50, hours: 0.5, sampler: cmaes, seed: 3, seeds: none, validate: 5}
workers: {count: 2, gpus: 0.5, cpus: 2, threads: 3, device: cuda, timeout: 60, retries: 2}
output: {dtype: bfloat16, tokenizer: math, seed: 9}
"""
MINIMAL = "models: {a: org/a, b: org/b}\ntasks: [arc]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("models/base", "models/math", "adapters/a", "tasks"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "search.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_text(text, name="search.yaml")
    return list(caught.value.problems)


def test_full_config(folder: Path) -> None:
    config = load_config(written(folder, FULL))
    assert config.locations == {
        "base": str(folder / "models/base"),
        "math": str(folder / "models/math"),
        "code": "org/code@main",
        "no": f"{folder / 'models/math'}+{folder / 'adapters/a'}",
    }
    assert config.held_out == ("arc_easy",)
    assert config.space(6) == Space(
        parents=("math", "code", "no"),
        giver="base",
        base="base",
        layers=6,
        methods=("linear", "slerp", "ties"),
        weight=Range(low=0.0, high=1.0),
        density=Range(low=0.2, high=0.9),
        t=Range(low=0.1, high=0.9),
        scale=Range(low=0.7, high=1.3),
        depth=Depth(groups=4, parameters=("weight",)),
        filters=("self_attn", "mlp"),
        filter_parameters=("weight", "density"),
        order=Order.PAIRWISE,
        stacking=Stacking(max_slices=3, min_layers=4, max_layers=9),
        dtype="bfloat16",
        seed=9,
        tokenizer="math",
    )
    spec = config.harness_spec()
    assert spec.models == tuple(config.locations.items())
    assert spec.tasks == (
        TaskSpec(
            name="gsm8k_dev",
            metric="exact_match,strict-match",
            weight=2.0,
            num_fewshot=4,
            limit=100,
        ),
        TaskSpec(name="perplexity", lower_is_better=True),
        TaskSpec(name="arc_easy"),
    )
    assert spec.include_path == (str(folder / "tasks"),)
    assert spec.gen_kwargs == (
        ("do_sample", False),
        ("max_gen_toks", 64),
        ("temperature", 0.0),
        ("until", "stop"),
    )
    assert (spec.apply_chat_template, spec.batch_size, spec.max_length) == (True, 8, 512)
    assert (spec.device, spec.threads) == ("cuda", 3)
    assert (spec.system_instruction, spec.fewshot_as_multiturn) == ("Be brief.", True)
    assert config.search.validate_top == 5


def test_defaults_are_those_of_the_space() -> None:
    config = RunConfig.from_text(MINIMAL)
    assert config.space(8) == Space(
        parents=("a", "b"), base=None, layers=8, methods=("linear", "slerp"), giver="a"
    )
    assert config.held_out == 0.3
    assert Budget.of(config.search) == Budget(trials=300)
    assert config.harness_spec().threads == 1
    assert config.locations == {"a": "org/a", "b": "org/b"}


@pytest.mark.parametrize(
    ("extra", "methods"),
    [
        ("models: {a: x, b: y}", "linear slerp"),
        ("models: {a: x, b: y, c: z}", "linear slerp"),
        ("models: {a: x, b: y, c: z}\nspace: {order: all-at-once}", "linear"),
        (
            "base: w\nmodels: {a: x, b: y}",
            "linear slerp task_arithmetic ties dare_linear dare_ties",
        ),
        (
            "base: w\nmodels: {a: x, b: y, c: z}\nspace: {order: all-at-once}",
            "linear task_arithmetic ties dare_linear dare_ties",
        ),
        ("base: w\nmodels: {a: x}", "linear task_arithmetic ties dare_linear dare_ties"),
    ],
)
def test_default_methods_fit_the_models(extra: str, methods: str) -> None:
    config = RunConfig.from_text(f"tasks: [t]\n{extra}\n")
    assert config.methods == tuple(methods.split())
    assert config.space(4).methods == config.methods


@pytest.mark.parametrize(
    "nothing",
    [
        "harness:",
        "space:",
        "search:",
        "workers:",
        "output:",
        "space: {slices: off}",
        "space: {slices: 'off'}",
        "space: {depth: null}",
        "base: null",
        "include_path: []",
    ],
)
def test_sections_may_be_empty(nothing: str) -> None:
    assert RunConfig.from_text(MINIMAL + nothing) == RunConfig.from_text(MINIMAL)


def test_slices_without_bounds_follow_the_parents() -> None:
    config = RunConfig.from_text(MINIMAL + "space: {slices: {}}")
    assert config.space(8).stacking == Stacking(max_slices=2, min_layers=8, max_layers=12)
    config = RunConfig.from_text(MINIMAL + "space: {slices: {max_layers: 6}}")
    assert config.space(8).stacking == Stacking(max_slices=2, min_layers=6, max_layers=6)
    config = RunConfig.from_text(MINIMAL + "space: {slices: {sources: any, max_repeated: 2}}")
    assert config.space(8).stacking == Stacking(
        min_layers=8, max_layers=12, sources="any", max_repeated=2
    )


def test_space_that_does_not_fit_the_models_names_the_key() -> None:
    config = RunConfig.from_text(MINIMAL + "space: {depth: {knots: 9}, slices: {min_layers: 40}}")
    with pytest.raises(SpaceError) as caught:
        config.space(4)
    assert caught.value.problems == (
        "depth.knots: expected at most one per layer (4), got 9",
        "slices.min_layers: expected at most 8 (2 slices of 4 layers), got 40",
    )


def test_round_trip_through_yaml(folder: Path) -> None:
    config = load_config(written(folder, FULL))
    again = RunConfig.from_text(config.to_yaml())
    assert again == config
    assert yaml.safe_load(config.to_yaml())["space"]["lambda"] == [0.7, 1.3]


def test_replaced_leaves_the_config_as_it_was() -> None:
    config = RunConfig.from_text(MINIMAL)
    budget = config.replaced({"search.trials": 900, "search.hours": 2, "workers.gpus": 4})
    assert (budget.search.trials, budget.search.hours, budget.workers.gpus) == (900, 2.0, 4.0)
    assert config.search.trials is None
    assert config != budget


def test_replaced_is_checked() -> None:
    config = RunConfig.from_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"command line:1: search.trials: expected a number of"):
        config.replaced({"search.trials": 0})


def test_replaced_with_an_address_where_ray_is_off() -> None:
    config = RunConfig.from_text(MINIMAL + "workers: {ray: false}")
    with pytest.raises(ConfigError, match=r"workers.ray_address: expected no address where ray is"):
        config.replaced({"workers.ray_address": "auto"})


BAD = """\
models:
  base: x
  "bad name": 3
  a: same
  b: same
tasks:
  - {name: gsm8k, metrik: acc, weight: 0}
  - gsm8k
  - {}
weight: 3
held_out: [gsm8kk]
space:
  methods: [tis, linear, ties]
  densty: [0,1]
  density: [1.0, 0.1]
  weight: [a, b]
  depth: {knots: 3, groups: 1.5}
  slices: {min_layers: 5, max_layers: 3}
  order: foo
search: {trials: 0, hours: .inf, trials: 3, sampler: tpee}
workers: {gpus: -1, count: 2.5, ray: false, ray_address: auto}
output: {dtype: int8, tokenizer: mth}
"""


def test_all_problems_at_once(golden) -> None:
    golden("runs/config_errors.txt", "\n".join(problems(BAD)) + "\n")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        # (what follows the minimal config from line 3 on, the only problem)
        ("spaces: {}", "3: spaces: unknown key; did you mean 'space'?"),
        ("lambda: [1, 2]", "3: lambda: unknown key here; did you mean space.lambda?"),
        ("zeta: 1", "3: zeta: unknown key; expected one of base, evaluator, harness, held_out"),
        ("space: {scale: [1, 2]}", "3: space.scale: unknown key; expected one of density, depth"),
        ("space:\n  weight: [1.5, 0]", "4: space.weight: expected a range low <= high, got [1.5"),
        ("space: {weight: 1}", "3: space.weight: expected a range [low, high] of two finite"),
        ("space: {weight: [0, .nan]}", "3: space.weight: expected a range [low, high] of two"),
        ("space: {weight: [0, 1, 2]}", "3: space.weight: expected a range [low, high] of two"),
        ("space: {weight: [0, 0]}", "3: space.weight: expected a range with more than 0"),
        ("space: {density: [0, 1]}", "3: space.density: expected a range within (0, 1], got [0"),
        ("space: {density: [0.5, 2]}", "3: space.density: expected a range within (0, 1]"),
        ("space: {gamma: [0, 2]}", "3: space.gamma: expected a range within [0, 1], got [0, 2]"),
        (
            "space: {nearswap_t: [0, 1]}",
            "3: space.nearswap_t: expected a range above 0, got [0, 1]",
        ),
        (
            "base: c\nspace: {methods: [della], density: [0.9, 1]}",
            "4: space.epsilon: expected a range that leaves della a density within [0.9, 1]",
        ),
        ("space: {methods: []}", "3: space.methods: expected at least 1 of them, got []"),
        ("space: {methods: linear}", "3: space.methods: expected a list, got 'linear'"),
        (
            "space:\n  methods:\n  - linear\n  - dare_tie",
            "6: space.methods[1]: expected one of linear, slerp, task_arithmetic, ties, "
            "dare_linear, dare_ties, della, della_linear, breadcrumbs, breadcrumbs_ties, sce, ram, "
            "ramplus_tl, nuslerp, multislerp, karcher, model_stock, nearswap, arcee_fusion, "
            "passthrough, got 'dare_tie'; did you mean 'dare_ties'?",
        ),
        ("space: {methods: [linear, linear]}", "3: space.methods: expected each name once, got"),
        (
            "space: {methods: [ties]}",
            "3: space.methods[0]: expected a base for ties, got none; give 'base', or leave",
        ),
        ("space: {depth: {knots: 1}}", "3: space.depth.knots: expected a number of at least 2"),
        ("space: {depth: {}}", "3: space.depth: expected exactly one of knots and groups, got no"),
        ("space: {depth: {knots: 2, groups: 2}}", "3: space.depth: expected exactly one of knots"),
        ("space: {depth: 3}", "3: space.depth: expected a mapping of keys, got 3"),
        (
            "space: {depth: {knots: 3, parameters: [wait]}}",
            "3: space.depth.parameters[0]: expected one of weight, density, t, lambda, scale, "
            "gamma, epsilon, select_topk, nearswap_t, ram_epsilon, ram_r, ram_alpha, got 'wait'",
        ),
        ("space: {filters: [mlp, mlp]}", "3: space.filters: expected each name once, got 'mlp'"),
        ("space: {filters: ['*']}", "3: space.filters: expected part of a tensor name, got '*'"),
        ("space: {filters: ['']}", "3: space.filters[0]: expected a text that is not empty"),
        ("space: {filters: [1]}", "3: space.filters[0]: expected a text, got 1; put it in quotes"),
        ("space: {slices: on}", "3: space.slices: expected a mapping of keys, got true"),
        ("space: {slices: {max_slices: 1}}", "3: space.slices.max_slices: expected a number of at"),
        ("space: {slices: {max_layers: 1}}", "3: space.slices.max_layers: expected at least 2"),
        ("space: {order: random}", "3: space.order: expected 'all-at-once', 'pairwise' or 'any'"),
        ("space: 4", "3: space: expected a mapping of keys, got 4"),
        ("held_out: 0.95", "3: held_out: expected a share from 0 to 0.9, or a list of task names"),
        ("held_out: []", "3: held_out: expected a share from 0 to 0.9, or a list of task names"),
        ("held_out: yes", "3: held_out: expected a share from 0 to 0.9, or a list of task names"),
        ("held_out: [acr]", "3: held_out[0]: expected one of arc, got 'acr'"),
        ("held_out: [arc]", "3: held_out: expected at least one task to be left for the search"),
        ("search: {trials: 1.5}", "3: search.trials: expected a whole number, got 1.5"),
        ("search: {trials: '5'}", "3: search.trials: expected a whole number, got '5'"),
        ("search: {trials: true}", "3: search.trials: expected a whole number, got true"),
        ("search: {hours: 0}", "3: search.hours: expected a number above 0, got 0"),
        (
            "search: {sampler: bayes}",
            "3: search.sampler: expected one of auto, surrogate, tpe, cmaes, gp",
        ),
        ("search: {seeds: all}", "3: search.seeds: expected default, none, or a list of defaults"),
        ("search: {seeds: []}", "3: search.seeds: expected default, none, or a list of defaults"),
        ("search: {seed: -1}", "3: search.seed: expected a number of at least 0, got -1"),
        ("workers: {count: 0}", "3: workers.count: expected a whole number of at least 1, or aut"),
        ("workers: {count: all}", "3: workers.count: expected a whole number of at least 1, or"),
        ("workers: {cpus: 0}", "3: workers.cpus: expected a number above 0, got 0"),
        ("workers: {timeout: 0}", "3: workers.timeout: expected a number above 0, got 0"),
        ("workers: {device: gpu}", "3: workers.device: expected 'auto', 'cpu' or 'cuda'"),
        ("workers: {ray: false, count: 2}", "3: workers.count: expected 1 or auto where ray is"),
        ("harness: {batch_size: 0}", "3: harness.batch_size: expected a whole number of at least"),
        (
            "harness: {apply_chat_template: 3}",
            "3: harness.apply_chat_template: expected true, false or a template's name, got 3",
        ),
        (
            "harness: {gen_kwargs: {max_gen_toks: 0}}",
            "3: harness.gen_kwargs.max_gen_toks: expected a whole number of at least 1, got 0",
        ),
        (
            "harness: {gen_kwargs: {max_new_tokens: 1.5}}",
            "3: harness.gen_kwargs.max_new_tokens: expected a whole number of at least 1, got 1.5",
        ),
        (
            "harness: {gen_kwargs: {think_end_token: b}}",
            "3: harness.gen_kwargs.think_end_token: expected it as harness.think_end_token",
        ),
        ("harness: {gen_kwargs: {a: [1]}}", "3: harness.gen_kwargs.a: expected a text, number,"),
        ("harness: {end_loops: 1}", "3: harness.end_loops: expected true or false, got 1"),
        ("harness: {trust_remote_code: 1}", "3: harness.trust_remote_code: expected true or fal"),
        ("output: {tokenizer: base}", "3: output.tokenizer: expected a model's name, got 'base'"),
        (
            "output: {vision: c}",
            "3: output.vision: expected one of merge, average, a, b, got 'c'",
        ),
        ("output: {tokenizer: c}", "3: output.tokenizer: expected one of a, b, got 'c'"),
        ("output: {seed: 2147483648}", "3: output.seed: expected a number below 2.14748e+09, got"),
        ("base: 3", "3: base: expected a text, got 3; put it in quotes"),
        ("base: org/a", "1: models.a: expected a model of its own, got the same as the base"),
        ("include_path: {a: b}", "3: include_path: expected a list, got {a: 'b'}"),
        ("models: {c: d}", "3: models: expected the key once, got it again (first on line 1)"),
        ("? [a, b]\n: 3", "3: expected keys that are names, got a list or mapping"),
        ("space: !python/object:os.system {}", "3: space: expected a mapping without a tag,"),
        ("base: !!python/name:os.system ''", "3: base: expected a plain value, got ''"),
    ],
)
def test_one_problem(extra: str, expected: str) -> None:
    found = problems(f"{MINIMAL}{extra}\n")
    assert found[0].startswith(f"search.yaml:{expected}"), found
    assert len(found) == 1 or "!!python" in extra, found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "search.yaml:1: expected a mapping of keys, got an empty file"),
        ("# only a comment\n", "search.yaml:1: expected a mapping of keys, got an empty file"),
        ("- a\n- b\n", "search.yaml:1: expected a mapping of keys, got ['a', 'b']"),
        ("just text", "search.yaml:1: expected a mapping of keys, got 'just text'"),
        ("a: 1\nb: [1, 2\nc: 3\n", "search.yaml:3: expected YAML, got: "),
        ("a: 1\n\tb: 2\n", "search.yaml:2: expected spaces, got a tab: YAML is indented by"),
        ("models:\n\ta: 1\n", "search.yaml:2: expected spaces, got a tab: YAML is indented by"),
        ("a: *nothing\n", "search.yaml:1: expected YAML, got: found undefined alias 'nothing'"),
        ("a: 1\n---\nb: 2\n", "search.yaml:2: expected YAML, got: expected a single document"),
        ("a: &x [*x]\n", "search.yaml:1: expected YAML, got: an alias inside what it stands for"),
        ("a: \x00", "search.yaml:1: expected YAML, got: special characters are not allowed"),
        ("[" * 5000, "search.yaml:1: expected a config, got one nested too deeply"),
        ("models: {a: x}", "search.yaml:1: tasks: expected a value, got none"),
        ("models: {}\ntasks: [a]", "search.yaml:1: models: expected at least 1 of them, got {}"),
        ("models: {a: x}\ntasks: []", "search.yaml:2: tasks: expected at least 1 of them, got []"),
        ("models: {a: x}\ntasks: arc", "search.yaml:2: tasks: expected a list, got 'arc'"),
        ("models: [x, y]\ntasks: [a]", "search.yaml:1: models: expected a mapping of keys, got ["),
    ],
)
def test_broken_documents(text: str, expected: str) -> None:
    assert problems(text)[0].startswith(expected)


def test_a_problem_stays_on_its_line() -> None:
    text = 'models: {"a\\nb": x, c: y}\ntasks: [t]\noutput: {tokenizer: "d\\te"}\n'
    assert problems(text) == [
        "search.yaml:1: models.'a\\nb': model name: expected letters, digits, '_', '.' or '-' "
        "(no leading sign), got 'a\\nb'",
        "search.yaml:3: output.tokenizer: expected one of a\\nb, c, got 'd\\te'",
    ]


def test_aliases_cannot_blow_up() -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "expected at most 20000 values" in problems("\n".join(lines))[0]


def test_merge_keys_and_odd_names() -> None:
    text = """\
defaults: &defaults
  num_fewshot: 2
  weight: 3
"""
    assert "defaults: unknown key" in problems(text + MINIMAL)[0]
    text = """\
models: {no: a/x, 1: a/y, 1e3: a/z}
tasks:
  - &first {name: one, weight: 3, limit: 10}
  - {<<: *first, name: two, limit: 20}
"""
    config = RunConfig.from_text(text)
    assert list(config.models) == ["no", "1", "1e3"]
    assert [(t.name, t.weight, t.limit) for t in config.tasks] == [
        ("one", 3.0, 10),
        ("two", 3.0, 20),
    ]
    assert RunConfig.from_text(config.to_yaml()) == config


def test_keys_of_the_users_own() -> None:
    text = "x-kept: &kept {limit: 5}\nmodels: {m: a}\ntasks: [{name: t, <<: *kept}]\n"
    config = RunConfig.from_text(text)
    assert config.tasks[0].limit == 5
    assert "x-kept" not in config.to_yaml()
    with pytest.raises(ConfigError, match="x-kept: unknown key"):
        RunConfig.from_text("models: {m: a}\ntasks: [t]\nsearch: {x-kept: 1}\n")


def test_lines_of_merged_keys_point_to_where_they_stand() -> None:
    text = """\
models: {a: x, b: y}
tasks:
  - &first
    name: one
    weight: -3
  - {<<: *first, name: two}
"""
    assert problems(text) == [
        "search.yaml:5: tasks[0].weight: expected a number of at least 0, got -3",
        "search.yaml:5: tasks[1].weight: expected a number of at least 0, got -3",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "expected a config file, got no such file"),
        (b"models: {a: \xff}", "expected UTF-8 text, got another encoding at byte 12"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "search.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load_config(path)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a config file, got: Is a directory"):
        load_config(tmp_path)


def test_byte_order_mark_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert list(load_config(path).models) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("./models/math", "{folder}/models/math"),
        ("models/math", "{folder}/models/math"),  # it exists there
        ("models/gone", "models/gone"),  # as well a hub id
        ("./models/gone", "{folder}/models/gone"),
        ("../x", "{parent}/x"),
        ("/abs/x", "/abs/x"),
        ("~/x", "{home}/x"),
        ("org/name@v1", "org/name@v1"),
        ("gpt2", "gpt2"),
        ("models/math+org/lora", "{folder}/models/math+org/lora"),
        ("org/name+./adapters/a", "org/name+{folder}/adapters/a"),
        ("models/a+b", "{folder}/models/a+b"),
        ("~nobody-has-this-name/x", "{folder}/~nobody-has-this-name/x"),
    ],
)
def test_locations(folder: Path, given: str, expected: str) -> None:
    (folder / "models/a+b").mkdir()
    config = load_config(written(folder, f"models: {{a: '{given}'}}\ntasks: [t]\nbase: org/b\n"))
    assert config.models["a"] == expected.format(
        folder=folder.resolve(), parent=folder.resolve().parent, home=Path.home()
    )


def test_missing_task_folder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"search.yaml:5: include_path\[1\]: expected a folder"):
        load_config(written(folder, MINIMAL + "include_path:\n  [./tasks,\n   ./gone]\n"))


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="held_out: expected at least one task to be left"):
        RunConfig.model_validate({"models": {"a": "x"}, "tasks": ["t"], "held_out": ["t"]})


def test_config_is_immutable() -> None:
    config = RunConfig.from_text(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.base = "x"  # type: ignore[misc]


def test_schema_is_plain_json_and_knows_the_samplers() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["required"]) == {"models", "tasks"}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["SearchSection"]["properties"]["sampler"]["enum"] == list(SAMPLERS)
    assert "space" in schema["properties"]
    assert {"type": "string"} in schema["properties"]["tasks"]["items"]["anyOf"]


def test_open_inputs(folder: Path, tiny_family: dict[str, Path]) -> None:
    text = (
        f"base: {tiny_family['base']}\n"
        f"models: {{math: {tiny_family['math']}, code: {tiny_family['code']}}}\ntasks: [t]\n"
    )
    checkpoints = open_inputs(load_config(written(folder, text)))
    assert list(checkpoints) == ["base", "math", "code"]


def test_open_inputs_reports_every_model(folder: Path, tiny_family: dict[str, Path]) -> None:
    text = f"models: {{math: {tiny_family['math']}, a: ./gone, b: ./gone2}}\ntasks: [t]\n"
    config = load_config(written(folder, text))
    with pytest.raises(ConfigError) as caught:
        open_inputs(config)
    assert [("gone" in line, "gone2" in line) for line in caught.value.problems] == [
        (True, False),
        (True, True),
    ]


def test_open_inputs_compares_the_models(folder: Path, tiny_model, tiny_family) -> None:
    other = tiny_model(layers=3)
    text = f"models: {{math: {tiny_family['math']}, other: {other}}}\ntasks: [t]\n"
    with pytest.raises(ConfigError, match="layers"):
        open_inputs(load_config(written(folder, text)))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["auto", "off", "base", "math", "ties", "[", "1e5", "~", "./x", "=", "<<"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.text(max_size=6),
                st.sampled_from(["name", "knots", "weight", "models", "tasks", "slices"]),
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


def _places(data, place=()):
    yield place
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _places(value, (*place, key))
        else:
            yield (*place, key)


PLACES = [place for place in _places(yaml.safe_load(FULL)) if place]


@given(st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=4))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_mangled_values_give_problems_or_a_config(changes) -> None:
    data = yaml.safe_load(FULL)
    for place, value in changes:
        at = data
        try:
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    _reads_or_explains(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


@given(st.data())
@settings(max_examples=150)
def test_mangled_texts_give_problems_or_a_config(data) -> None:
    start = data.draw(st.integers(0, len(FULL)))
    length = data.draw(st.integers(0, 30))
    patch = data.draw(
        st.one_of(
            st.text(max_size=12),
            st.text(alphabet="[]{}:,-&*!|>'\"%@#?\n\t <0", max_size=12),
        )
    )
    _reads_or_explains(FULL[:start] + patch + FULL[start + length :])


def _reads_or_explains(text: str) -> None:
    found: tuple[str, ...] = ()
    config = None
    try:
        config = RunConfig.from_text(text, name="m.yaml", folder=Path("/nowhere"))
    except ConfigError as error:
        found = error.problems
    if config is not None:
        assert RunConfig.from_text(config.to_yaml()) == config
        return
    assert found
    for line in found:
        assert line.startswith("m.yaml:")
        assert line.isprintable(), line


PARETO = """\
models: {a: ./a, b: ./b}
tasks: [one, two]
search: {objective: pareto}
"""


def test_measures_to_minimize() -> None:
    text = PARETO.replace("objective: pareto", "minimize: [answer_length, parameters]")
    sliced = text + "space: {slices: {max_slices: 2}}\n"
    assert RunConfig.from_text(sliced).search.minimize == ("answer_length", "parameters")
    assert problems(text) == [
        "search.yaml:3: search.minimize: expected parameters only with space.slices, without which "
        "all models are of one size"
    ]
    assert problems(sliced.replace("two]", "score]").replace("_length", "")) == [
        "search.yaml:3: search.minimize: expected a list of answer_length and parameters, "
        "got ['answer', 'parameters']",
        "search.yaml:3: search.minimize: expected no task named 'score' with further objectives",
    ]
    assert problems(sliced.replace("parameters]", "answer_length], sampler: cmaes")) == [
        "search.yaml:3: search.minimize: expected each measure once, got one twice",
        "search.yaml:3: search.sampler: expected a sampler for several objectives, got 'cmaes'; "
        "use auto or nsga2",
    ]
    one = PARETO.replace("[one, two]", "[one]")
    RunConfig.from_text(one.replace("pareto", "pareto, minimize: [answer_length]"))


def test_a_search_for_a_front_has_two_tasks_and_a_sampler_that_can() -> None:
    assert RunConfig.from_text(PARETO).search.objective == "pareto"
    assert problems(PARETO.replace("tasks: [one, two]", "tasks: [one]")) == [
        "search.yaml:3: search.objective: expected two tasks or more to search on for pareto, "
        "got 1; use sum"
    ]
    assert problems(PARETO.replace("two]", "two]\nheld_out: [two]")) == [
        "search.yaml:4: search.objective: expected two tasks or more to search on for pareto, "
        "got 1; use sum"
    ]
    assert problems(PARETO.replace("pareto}", "pareto, sampler: cmaes}")) == [
        "search.yaml:3: search.sampler: expected a sampler for several objectives, got 'cmaes'; "
        "use auto or nsga2"
    ]
