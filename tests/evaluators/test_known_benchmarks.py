"""Which tasks are well-known test sets."""

from pathlib import Path

import lm_eval.tasks
import pytest

from evaluators.harness.tasks.known_benchmarks import known_set, unconfirmed
from evaluators.harness.tasks.task_files import task_files


@pytest.mark.parametrize(
    ("name", "dataset", "split", "title"),
    [
        ("gsm8k", "openai/gsm8k", "test", "GSM8K"),
        ("my_sums", "openai/gsm8k", "test", "GSM8K"),
        ("my_sums", "openai/gsm8k", "train", None),
        ("gsm8k", "json", "test", "GSM8K"),
        ("gsm8k", "json", "train", None),
        ("gsm8k_dev", "json", "test", None),
        ("gsm8k_train", "json", "test", None),
        ("gsm8k_cot_zeroshot", "gsm8k", "test", "GSM8K"),
        ("mmlu_abstract_algebra", "cais/mmlu", "test", "MMLU"),
        ("mmlu_abstract_algebra", "cais/mmlu", "validation", None),
        ("hellaswag", "Rowan/hellaswag", "validation", "HellaSwag"),
        ("arc_challenge", "allenai/ai2_arc", "test", "ARC"),
        ("winogrande", "winogrande", "validation", "WinoGrande"),
        ("truthfulqa_mc2", "truthfulqa/truthful_qa", "validation", "TruthfulQA"),
        ("humaneval", "openai/openai_humaneval", "test", "HumanEval"),
        ("mbpp_plus", "evalplus/mbppplus", "test", "MBPP"),
        ("ifeval", "google/IFEval", "train", "IFEval"),
        ("bbh_fewshot_navigate", "SaylorTwift/bbh", "test", "BIG-Bench"),
        ("gpqa_diamond_zeroshot", "Idavidrein/gpqa", "train", "GPQA"),
        ("minerva_math_algebra", "EleutherAI/hendrycks_math", "test", "MATH"),
        ("demo_sort", "json", "test", None),
        ("dropout_questions", "json", "test", None),
    ],
)
def test_known_sets(name: str, dataset: str, split: str, title: str | None) -> None:
    assert known_set(name, dataset=dataset, split=split) == title


@pytest.mark.parametrize(
    "name",
    ["gsm8k", "mmlu_anatomy", "hellaswag", "arc_easy", "truthfulqa_mc1", "winogrande", "humaneval",
     "mbpp", "ifeval", "gpqa_main_n_shot", "minerva_math_algebra", "piqa", "boolq"],
)  # fmt: skip
def test_the_names_are_those_of_lm_eval(name: str) -> None:
    assert name in task_files(Path(lm_eval.tasks.__file__).parent)
    assert known_set(name, dataset="", split="test") is not None


def test_the_line_names_the_way_out() -> None:
    (line,) = unconfirmed([("gsm8k", "GSM8K", "test")])
    assert line.startswith("tasks: gsm8k: expected a train or dev split")
    assert "search.allow_test_sets" in line
