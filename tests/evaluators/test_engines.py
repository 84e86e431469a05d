"""Engines: what is computed once, and that the answers are those of ``static``."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from evaluators.harness.answers.answer_endings import AnswerEnd, Ending
from evaluators.harness.engines import written_answers
from evaluators.harness.engines.engine_choice import (
    CONTINUOUS,
    ENGINES,
    PROVEN,
    STATIC,
    engine_problems,
)
from evaluators.harness.engines.inference_engine import ROW_TOKENS, Continuation, Prompt
from evaluators.harness.engines.shared_prefixes import PrefixTree, likelihoods
from evaluators.harness.engines.token_pool import LEAST, TokenPool
from evaluators.harness.engines.written_answers import answers
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import isolated
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, EvaluatorError, Failure, Score

MOST = 100


def asked_of(seed: int) -> list[Continuation]:
    """Questions with four choices each behind one beginning, one text too long, one asked twice."""
    source = random.Random(seed)

    def tokens(n: int) -> list[int]:
        return [source.randrange(2, 20) for _ in range(n)]

    shown, asked = tokens(70), []
    for _ in range(6):
        question = shown + tokens(source.randint(3, 20))
        asked += [
            Continuation(before=question, tokens=tokens(source.randint(1, 5))) for _ in range(4)
        ]
    asked.append(Continuation(before=tokens(2), tokens=tokens(90)))
    asked.append(Continuation(before=shown + tokens(40), tokens=tokens(9)))
    asked.append(Continuation(before=shown, tokens=asked[0].before[70:]))
    return [*asked, asked[3]]


def alone(model: Any, one: Continuation) -> tuple[float, bool]:
    """The same from a forward of its own."""
    ids = torch.tensor([*one.before, *one.tokens][-(MOST + 1) :])
    with torch.inference_mode():
        said = model(ids[None, :-1]).logits[0, -len(one.tokens) :].float().log_softmax(-1)
    target = ids[-len(one.tokens) :]
    chance = said.gather(1, target[:, None]).sum().item()
    return chance, bool((said.argmax(-1) == target).all())


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Tokens of every forward, padding among them."""
    seen: list[int] = []

    def look(module: Any, args: Any, options: Any) -> None:
        ids = options.get("input_ids", args[0] if args else None)
        seen.append(ids.numel())

    hook = model.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    hook.remove()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", PROVEN)
def test_likelihoods_are_those_of_a_forward_each(
    tiny_model: Any, family: str, attention: str
) -> None:
    folder = tiny_model(family=family)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    asked = asked_of(1)
    expected = [alone(model, one) for one in asked]
    for room in (1, 7, 64, 10_000):
        with counted(model) as seen:
            found = likelihoods(model, asked, most=MOST, room=room)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        for (value, _), (wanted, _) in zip(found, expected, strict=True):
            assert value == pytest.approx(wanted, abs=1e-4)
        assert max(seen) <= room
        assert sum(seen) == PrefixTree(asked, most=MOST).size  # every token of the tree once


def test_a_tree_has_what_is_shared_once() -> None:
    def one(*tokens: int) -> Continuation:
        return Continuation(before=tokens[:-1], tokens=tokens[-1:])

    assert PrefixTree([one(5, 6, 7, 8), one(5, 6, 7, 9)], most=9).size == 3
    assert PrefixTree([one(5, 6, 7, 8), one(5, 300, 7, 9), one(5, 6, 1)], most=9).size == 5
    assert PrefixTree([one(1, 2, 3, 4, 5)], most=2).size == 2
    assert PrefixTree([], most=2).size == 0


@pytest.mark.parametrize(("before", "tokens"), [([], [1]), ([1], []), ([1], [1] * (MOST + 1))])
def test_what_cannot_be_rated_is_refused(before: list[int], tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="continuation: expected from 1 to 100 tokens"):
        PrefixTree([Continuation(before=before, tokens=tokens)], most=MOST)


def test_overflow_is_no_likelihood(tiny_family: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_family["base"])
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    found = likelihoods(model, asked_of(2), most=MOST, room=50)
    assert all(value != value for value, _ in found)


SHOTS, QUESTION, CHOICES = 5, 60, 4


@pytest.fixture(scope="module")
def five_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of 60 tokens with four choices behind five worked examples of 140 (characters)."""
    folder, source = tmp_path_factory.mktemp("shots"), random.Random(0)

    def row(length: int) -> dict[str, Any]:
        choices = ["".join(source.choices("abcde", k=8)) for _ in range(CHOICES)]
        words = "".join(source.choices("0123456789", k=length))
        return {"q": words, "choices": choices, "right": source.randrange(CHOICES)}

    for split, rows in (
        ("test", [row(QUESTION - 1) for _ in range(24)]),
        ("shots", [row(140 - 1 - 8) for _ in range(SHOTS)]),
    ):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "five.yaml").write_text(
        "task: five\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {test: test.jsonl, train: shots.jsonl}}\n"
        "test_split: test\nfewshot_split: train\nfewshot_config: {sampler: first_n}\n"
        f'num_fewshot: {SHOTS}\noutput_type: multiple_choice\ndoc_to_text: "{{{{q}}}}>"\n'
        'doc_to_choice: choices\ndoc_to_target: right\ntarget_delimiter: ""\n'
        'fewshot_delimiter: ""\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


def score_of(spec: HarnessSpec, recipe: Any) -> tuple[Score, int, list[float]]:
    """The score, the tokens that went through the model, and all likelihoods."""
    evaluator = HarnessEvaluator(spec)
    model = evaluator._builder.empty("base")[0].model
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    with counted(model) as seen:
        score = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=ids))
        tokens = sum(seen)
        losses = evaluator.losses(Candidate(id=0, recipe=recipe, questions=ids))
    evaluator.close()
    assert isinstance(score, Score), score
    assert not isinstance(losses, Failure), losses
    return score, tokens, [losses[name] for name in ids]


def test_worked_examples_are_read_once(
    five_shots: Path, tiny_family: dict[str, Path], mix: Any
) -> None:
    spec = HarnessSpec(
        models=tuple((name, str(folder)) for name, folder in tiny_family.items()),
        tasks=(TaskSpec(name="five"),),
        include_path=(str(five_shots),),
        batch_size=8,
        max_length=1024,
        check_degenerate=False,
    )
    recipe = mix(math=0.7, code=0.4)
    static, before, losses = score_of(spec, recipe)
    shared, after, others = score_of(replace(spec, engine=CONTINUOUS), recipe)
    assert before >= 24 * CHOICES * (SHOTS * 140 + QUESTION)
    assert after <= before / 4
    assert after <= SHOTS * 140 + 24 * (QUESTION + CHOICES * 8)
    assert shared.tasks == static.tasks
    assert shared.outcomes == static.outcomes
    assert others == pytest.approx(losses, abs=1e-4)


def test_every_kind_of_task_scores_alike(make_spec: Any, mix: Any) -> None:
    names = ("tiny_pick", "tiny_shots", "tiny_last", "tiny_text")
    spec = make_spec(
        *names[:2], TaskSpec(name="tiny_last", metric="perplexity"), "tiny_text", max_length=9
    )
    evaluators = [HarnessEvaluator(replace(spec, engine=engine)) for engine in ENGINES]
    ids = tuple(question.id for question in evaluators[0].catalogue().questions)
    for weights in ({"math": 0.5, "code": 0.7}, {"text": 1.0}):  # the same model, filled twice
        candidate = Candidate(id=0, recipe=mix(**weights), questions=ids)
        static, other = (one.evaluate(candidate) for one in evaluators)
        assert isinstance(static, Score)
        assert isinstance(other, Score)
        assert [task.value for task in other.tasks] == pytest.approx(
            [task.value for task in static.tasks], rel=1e-4
        )
        assert other.tasks[0] == static.tasks[0]  # an accuracy
    for one in evaluators:
        one.close()


def test_models_that_are_not_proven_are_refused(make_spec: Any, tmp_path: Path) -> None:
    llama = {"model_type": "llama", "max_position_embeddings": 128}
    mistral = {"model_type": "mistral", "max_position_embeddings": 8192, "sliding_window": 4096}
    qwen = {"model_type": "qwen2", "sliding_window": 10, "use_sliding_window": False}

    def problems(config: dict[str, Any], **options: Any) -> list[str]:
        return engine_problems(CONTINUOUS, {"one": config}, **{"max_length": None} | options)

    assert not problems(llama)
    assert not problems(qwen)
    assert not problems(mistral, max_length=4096)
    assert not engine_problems(STATIC, {"one": {"model_type": "bloom"}}, max_length=None)
    (line,) = problems({"model_type": "bloom"})
    assert line.startswith("harness.engine: expected static for model one, a bloom (only gemma")
    (line,) = problems(mistral)
    assert "looks back 4096 tokens of 8192 (harness.max_length: 4096 does)" in line
    (line,) = problems(llama | {"auto_map": {}})
    assert "with code of its own" in line
    with pytest.raises(
        EvaluatorError, match="engine: expected one of static, continuous, vllm, got"
    ):
        HarnessEvaluator(make_spec("tiny_pick", engine="sglang"))


ENDS = [7, 12, 18, 25]
"""Tokens after which an answer is over."""


def lively(model: Any, seed: int = 0) -> Any:
    """The model with weights so large that it does not say the same for ever."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4, generator=source)
    return model


def generated(model: Any, prompt: list[int], most: int, penalty: float) -> list[int]:
    """The same from transformers' own loop, for a prompt alone."""
    ids = torch.tensor([prompt])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False,
        eos_token_id=ENDS, pad_token_id=0, repetition_penalty=penalty,
    )  # fmt: skip
    answer: list[int] = found[0, len(prompt) :].tolist()
    return answer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", PROVEN)
def test_answers_are_those_of_each_prompt_alone(
    tiny_model: Any, family: str, attention: str
) -> None:
    folder = tiny_model(family=family)
    model = lively(AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention))
    prompts = [list(one.before[:80]) for one in asked_of(3)]
    asked = [Prompt(tokens=one, over=lambda answer: answer[-1] in ENDS) for one in prompts]
    for penalty in (1.0, 1.3) if attention == "sdpa" else (1.0,):
        expected = [generated(model, one, 20, penalty) for one in prompts]
        assert len({len(one) for one in expected}) > 2
        each = {tuple(one): len(answer) for one, answer in zip(prompts, expected, strict=True)}
        tree = PrefixTree([Continuation(before=one, tokens=[0]) for one in each], most=MOST)
        for rows in (2, 64):
            with counted(model) as seen:
                assert answers(model, asked, most=20, rows=rows, penalty=penalty) == expected
            assert sum(seen) == tree.size + sum(each.values()) - len(each)
            assert max(seen) <= ROW_TOKENS * rows
    assert answers(model, [], most=20, rows=3) == []


def test_the_pool_is_as_large_as_what_is_open(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many of the longest sequences as are open and one more, plus an eighth."""
    pools: list[TokenPool] = []

    def made() -> TokenPool:
        pools.append(TokenPool())
        return pools[-1]

    monkeypatch.setattr(written_answers, "TokenPool", made)
    model = lively(AutoModelForCausalLM.from_pretrained(tiny_model()))
    source, shown = random.Random(0), [3] * 30
    prompts = [
        (shown if at % 2 else []) + [source.randrange(2, 20) for _ in range(source.randint(5, 50))]
        for at in range(80)
    ]
    asked = [Prompt(tokens=one, over=lambda answer: answer[-1] in ENDS) for one in prompts]
    for rows in (1, 5):
        found = answers(model, asked, most=20, rows=rows)
        (pool,) = pools
        needed = (rows + 1) * (80 + 20)
        most = max(needed + needed // 8, needed + LEAST)
        assert pool.size <= most < sum(map(len, prompts)) + sum(map(len, found))
        pools.clear()


def test_a_pool_uses_its_places_again() -> None:
    pool = TokenPool()
    first = pool.take(LEAST)
    pool.share(first[:10])
    pool.release(first)
    assert pool.size == LEAST
    assert set(pool.take(LEAST - 10)) == set(first[10:])  # ten are needed once more
    assert pool.size == LEAST
    pool.take(1)
    assert pool.size == 2 * LEAST
    pool.take(100 * LEAST)
    grown = pool.size
    pool.take(pool.size - 101 * LEAST)
    pool.take(1)
    assert grown < pool.size <= grown + max(LEAST, grown // 8)


@pytest.fixture(scope="module")
def lively_family(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A family whose answers end when they end."""
    root, found = tmp_path_factory.mktemp("lively"), {}
    base = tiny_model(layers=3)
    for seed, name in enumerate(("base", "math", "code")):
        found[name] = Path(shutil.copytree(base, root / name))
        lively(AutoModelForCausalLM.from_pretrained(base), seed).save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def long_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of uneven length behind two worked examples, to be answered in writing."""
    folder, source = tmp_path_factory.mktemp("writing"), random.Random(0)

    def row(length: int) -> dict[str, str]:
        return {"q": "".join(source.choices("abcde", k=length)), "a": "1"}

    for split, rows in (
        ("test", [row(source.randint(1, 15)) for _ in range(64)]),
        ("shots", [row(30) for _ in range(2)]),
    ):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "essay.yaml").write_text(
        # No stop sequence is part of "<unk>": lm-eval ends there, but in large batches.
        "task: essay\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {test: test.jsonl, train: shots.jsonl}}\n"
        "test_split: test\nfewshot_split: train\nfewshot_config: {sampler: first_n}\n"
        'num_fewshot: 2\noutput_type: generate_until\ndoc_to_text: "{{q}}>"\n'
        'doc_to_target: a\ntarget_delimiter: ""\nfewshot_delimiter: "\\n"\n'
        'generation_kwargs: {until: ["|", "z", "m:"], max_gen_toks: 120, do_sample: false}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


SHORT = (("max_gen_toks", 25),)


def essays(family: dict[str, Path], folder: Path, limit: int = 64, **options: Any) -> HarnessSpec:
    return HarnessSpec(
        models=tuple((name, str(place)) for name, place in family.items()),
        tasks=(TaskSpec(name="essay", limit=limit),),
        include_path=(str(folder),),
        **{"batch_size": 16, "max_length": 256, "check_degenerate": False} | options,
    )


def written(spec: HarnessSpec, *recipes: Any) -> tuple[list[str], list[AnswerEnd], int]:
    """Texts of the answers to the last recipe, how they ended, and tokens that it took.

    All of them fill one evaluator, one after the other, and are asked.
    """
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    for recipe in recipes[:-1]:
        score = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=ids))
        assert isinstance(score, Score), score
    model = evaluator._built(recipes[-1])
    lm = evaluator._lm(model.skeleton, model.desk)
    requests = [one for name in ids for one in model.desk.requests[name]]
    with isolated(evaluator._device), counted(model.skeleton.model) as seen:
        texts = lm.generate_until(requests, disable_tqdm=True)
    evaluator.close()
    return texts, [lm.endings.take(request.args) for request in requests], sum(seen)


def test_uneven_answers_take_half_of_the_tokens(
    lively_family: dict[str, Path], long_prompts: Path, mix: Any
) -> None:
    spec, recipe = essays(lively_family, long_prompts), mix(math=0.8, code=0.3)
    static, ends, before = written(spec, recipe)
    found, same, after = written(replace(spec, engine=CONTINUOUS), recipe)
    assert len(set(map(len, static))) > 10
    assert 0 < sum(end.ending is Ending.CAP for end in ends) < 32
    assert (found, same) == (static, ends)
    assert after <= before / 2
    assert after <= 2 * 32 + sum(18 + len(text) for text in static)  # the examples once


def test_nothing_is_left_of_twenty_refills(
    lively_family: dict[str, Path], long_prompts: Path, mix: Any
) -> None:
    spec = essays(lively_family, long_prompts, limit=6, engine=CONTINUOUS, gen_kwargs=SHORT)
    recipes = [mix(math=0.1 * n, code=2.0 - 0.1 * n) for n in range(21)]
    again, *rest = written(spec, *recipes)
    fresh, *others = written(spec, recipes[-1])
    assert (again, rest) == (fresh, others)
    assert again != written(spec, recipes[-2])[0]


@pytest.mark.parametrize(
    ("settings", "by_engine"),
    [({"repetition_penalty": 1.4}, True), ({"no_repeat_ngram_size": 2}, False)],
)
def test_settings_of_the_model_are_heeded(
    lively_family: dict[str, Path],
    long_prompts: Path,
    mix: Any,
    tmp_path: Path,
    settings: dict[str, float],
    by_engine: bool,
) -> None:
    for name in lively_family:
        shutil.copytree(lively_family[name], tmp_path / name)
        (tmp_path / name / "generation_config.json").write_text(json.dumps(settings))
    family = {name: tmp_path / name for name in lively_family}
    spec = essays(family, long_prompts, limit=4, batch_size=1, gen_kwargs=SHORT)
    recipe = mix(math=0.8, code=0.3)
    static, _, before = written(spec, recipe)
    found, _, after = written(replace(spec, engine=CONTINUOUS), recipe)
    assert found == static
    assert (after < before) is by_engine
    plain = written(replace(spec, models=essays(lively_family, long_prompts).models), recipe)
    assert static != plain[0]


def test_answers_that_are_drawn_are_lm_evals(make_spec: Any, mix: Any) -> None:
    spec, recipe = make_spec("tiny_vote", "tiny_write", batch_size=3), mix(math=0.5)
    static, *others = written(spec, recipe)
    found, *same = written(replace(spec, engine=CONTINUOUS), recipe)
    assert len(static) == 80
    assert (found, same[0]) == (static, others[0])


@pytest.mark.parametrize("most", [None, 12])
def test_thoughts_are_those_of_static(
    lively_family: dict[str, Path], long_prompts: Path, mix: Any, most: int | None
) -> None:
    spec = essays(
        lively_family, long_prompts, limit=16, think_end_token="v", max_think_toks=most,
        gen_kwargs=SHORT,
    )  # fmt: skip
    recipe = mix(math=0.8, code=0.3)
    static, ends, before = written(spec, recipe)
    found, same, after = written(replace(spec, engine=CONTINUOUS), recipe)
    assert (found, same) == (static, ends)
    assert len({end.thought for end in ends}) > 4
    assert after < before  # not by lm-eval's batches
