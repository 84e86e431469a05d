"""Batches of written answers end early without changing an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.harness.answers.generation_stopping import settled
from evaluators.harness.lm_eval_adapter import LanguageModel
from evaluators.resident_models.encoding_cache import EncodingCache


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("", ["|"], False),
        ("abc", ["|"], False),
        ("ab|", ["|"], True),
        ("xab", ["ab", "xabc"], False),  # with a c, the second one cuts off more
        ("xabd", ["ab", "xabc"], True),
        ("ab", ["bc", "ab"], False),  # with a c, the first one cuts the second in two
        ("abd", ["bc", "ab"], True),
        ("ab\nb", ["bc", "ab"], True),
    ],
)
def test_settled(text: str, stops: list[str], expected: bool) -> None:
    assert settled(text, stops) is expected


def _cut(text: str, stops: list[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text


texts = st.text("ab|", max_size=12)


@given(texts, texts, st.lists(st.text("ab|", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_after_changes_what_is_settled(text: str, more: str, stops: list[str]) -> None:
    if settled(text, stops):
        assert _cut(text + more, stops) == _cut(text, stops)


def _requests(stops: list[str], **options: object) -> list[Instance]:
    prompts = [f"sort:{number * 7919 % 100000:05d}>" for number in range(24)]
    settings = {"until": stops, "max_gen_toks": 40, **options}
    return [
        Instance("generate_until", {}, (prompt, {**settings, "until": list(stops)}), number)
        for number, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize(
    ("stops", "options", "fewer"),
    [
        (["d", "n", "v", "s", "3", "a"], {}, True),
        (["dd", "d1", "ds", "n", "v", "vd", "s", "3"], {}, True),
        (["d"], {}, False),
        (["<unk>"], {}, False),  # lm-eval stops there, but shows what came after
        (["<unk>", "d", "n", "v", "s", "3"], {}, False),
        (["a", ""], {}, False),
        (["d", "n", "v", "s", "3"], {"do_sample": True, "temperature": 1.0}, False),
    ],
)
def test_answers_are_those_of_lm_eval(
    tiny_family: dict[str, Path], stops: list[str], options: dict[str, object], fewer: bool
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_family["code"])
    tokenizer = AutoTokenizer.from_pretrained(tiny_family["code"])
    for parameter in model.parameters():  # what it says depends more on what it is asked
        parameter.data.mul_(4.0)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model.register_forward_hook(count)
    answers, took = [], []
    for lm in (
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
        LanguageModel(known=EncodingCache(), pretrained=model, tokenizer=tokenizer, batch_size=8),
    ):
        torch.manual_seed(0)
        before = calls
        answers.append(lm.generate_until(_requests(stops, **options), disable_tqdm=True))
        took.append(calls - before)
    assert answers[0] == answers[1]
    assert took[1] < took[0] if fewer else took[1] <= took[0]
    assert len(set(answers[0])) > 3
