"""The small parts: question ids, aggregation, errors of metrics, batch sizes, caches."""

from __future__ import annotations

import json
import logging
import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluators.harness.answers.task_scores import jackknife, mean_stderr, outcome, task_score
from evaluators.harness.process_isolation import quiet, seeded
from evaluators.harness.questions.question_ids import questions_of
from evaluators.harness.tasks.metric_choice import MetricError, choose_metric
from evaluators.harness.tasks.task_files import task_files
from evaluators.protocol import FailureKind, TaskInfo, combine, least_stderr
from evaluators.resident_models.candidate_failures import NonFiniteScoreError, failure_from
from evaluators.resident_models.devices.batch_size import (
    LARGEST,
    auto_batch_size,
    fitting_batch,
    sequence_bytes,
)
from evaluators.resident_models.devices.free_memory import free_bytes, left_in_cgroups
from evaluators.resident_models.encoding_cache import EncodingCache
from merging.building.output_checks import NonFiniteError
from merging.planning.merge_plan import PlanError

documents = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none()),
    max_size=8,
)


@given(documents, st.randoms(use_true_random=False))
def test_question_ids_do_not_depend_on_the_order(docs: list[Any], draw: Any) -> None:
    ids = [question.id for question in questions_of("task", docs)]
    assert len(set(ids)) == len(ids)
    shuffled = list(docs)
    draw.shuffle(shuffled)
    assert {q.id for q in questions_of("task", shuffled)} == set(ids)
    # Keys in another order are the same document.
    turned = [dict(reversed(doc.items())) for doc in docs]
    assert [question.id for question in questions_of("task", turned)] == ids


def test_question_ids_are_pinned() -> None:
    # A changed id would make every old study.db useless.
    made = questions_of("t", [{"q": "é", "n": np.float32(0.5), "s": {2, 1}}, {"q": 1}, {"q": 1}])
    assert [question.id for question in made] == [
        "t/c097a6831268bee1",
        "t/45dc322e749b705d",
        "t/45dc322e749b705d-2",
    ]
    assert questions_of("u", [{"q": 1}])[0].id != made[1].id.replace("t/", "u/")
    assert [question.position for question in made] == [0, 1, 2]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=50))
def test_jackknife_of_a_mean_is_its_standard_error(values: list[float]) -> None:
    assert jackknife(values, statistics.fmean) == pytest.approx(mean_stderr(values), abs=1e-6)


def test_jackknife_with_groups() -> None:
    draw = np.random.default_rng(0)
    values = draw.exponential(size=1000).tolist()
    exact = mean_stderr(values)
    assert jackknife(values, statistics.fmean) == pytest.approx(exact, rel=0.25)

    def ratio(items: Any) -> float:
        return math.exp(-statistics.fmean(items))

    # The delta method: the derivative of exp(-m) is -exp(-m).
    assert jackknife(values, ratio) == pytest.approx(exact * ratio(values), rel=0.25)


def test_standard_errors_that_cannot_be_known() -> None:
    assert math.isnan(mean_stderr([1.0]))
    assert math.isnan(jackknife([1.0], statistics.fmean))

    def picky(items: Any) -> float:
        if len(items) < 3:
            raise ValueError("too few")
        return 1.0

    assert math.isnan(jackknife([1, 2, 3], picky))
    assert math.isnan(jackknife([1, 2, 3], lambda items: math.inf))


def test_task_scores_and_outcomes() -> None:
    score = task_score("t", {"a": 1, "b": 0.0}, aggregate=statistics.fmean, mean=True)
    assert (score.value, score.stderr, score.n) == (0.5, 0.5, 2)

    def given_for(item: Any, **options: Any) -> float:
        return outcome("a", item, aggregate=lambda items: -items[0], **options).value

    assert given_for(True, mean=True, by_item=False) == 1.0
    assert given_for(2.0, mean=False, by_item=True) == -2.0
    assert math.isnan(given_for(2.0, mean=False, by_item=False))
    assert math.isnan(given_for(None, mean=True, by_item=False))
    assert math.isnan(given_for(math.inf, mean=True, by_item=False))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_is_no_certainty(value: float) -> None:
    items = {str(at): value for at in range(280)}
    found = task_score("a", items, aggregate=np.mean, mean=True)
    assert found.stderr == 0.0  # as lm-eval has it
    assert found.doubt == least_stderr(280) == pytest.approx(0.0025, abs=1e-4)
    infos = [TaskInfo(name=n, metric="acc", higher_is_better=True, weight=1.0) for n in "ab"]
    assert combine([found], infos) == (value, least_stderr(280))
    half = task_score("b", {"x": 0.5, "y": 0.5}, aggregate=np.mean, mean=True)
    assert (half.stderr, half.doubt) == (0.0, 0.0)


def test_choosing_metrics() -> None:
    several = {"metrics": ["acc", "f1"], "filters": ["strict", "loose"]}
    assert choose_metric(None, **several) == ("acc", "strict")
    assert choose_metric("f1,loose", **several) == ("f1", "loose")
    assert choose_metric("acc", metrics=["acc"], filters=["none"]) == ("acc", "none")
    with pytest.raises(MetricError, match=r"expected f1,strict or f1,loose \(the task has several"):
        choose_metric("f1", **several)
    with pytest.raises(MetricError, match="expected one of acc,strict, acc,loose, f1,strict, f1,l"):
        choose_metric("bleu,strict", **several)


@given(st.integers(0, 10**12), st.integers(1, 10**10))
def test_fitting_batch(room: int, each: int) -> None:
    batch = fitting_batch(room, each)
    assert 1 <= batch <= LARGEST
    assert batch & (batch - 1) == 0
    assert batch == 1 or batch * each <= room
    assert batch == LARGEST or 2 * batch * each > room


def test_memory_of_a_sequence() -> None:
    config = SimpleNamespace(vocab_size=32_000, hidden_size=4096, num_hidden_layers=32)
    config.get_text_config = lambda: config
    size = sequence_bytes(config, dtype=torch.bfloat16, tokens=1024)
    assert 0.8e9 < size < 1.2e9  # about half of it keys and values: 2 x 32 x 4096 x 2 bytes a token
    cpu = torch.device("cpu")
    assert auto_batch_size(cpu, config=config, dtype=torch.bfloat16, tokens=1024) == 32


def test_workers_that_share_a_gpu_do_not_fill_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (70, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10)
    gpu = torch.device("cuda", 0)
    found = [free_bytes(gpu, gpus=gpus) for gpus in (2.0, 1.0, 0.9, 0.5, 0.05)]
    assert found == [70, 70, 70, 40, 0]


def test_files_in_memory_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SimpleNamespace(free=3, available=90)
    monkeypatch.setattr("psutil.virtual_memory", lambda: machine)
    monkeypatch.setattr("evaluators.resident_models.devices.free_memory.left_in_cgroups", list)
    assert free_bytes(torch.device("cpu")) == 90
    monkeypatch.setattr(
        "evaluators.resident_models.devices.free_memory.left_in_cgroups", lambda: [50, 70]
    )
    assert free_bytes(torch.device("cpu")) == 50
    monkeypatch.setattr(
        "evaluators.resident_models.devices.free_memory.left_in_cgroups", lambda: [-1]
    )
    assert free_bytes(torch.device("cpu")) == 0


@pytest.mark.parametrize(
    ("membership", "top", "files", "kept"),
    [
        (
            "0::/job/step\n",
            "",
            ("memory.max", "memory.current"),
            "anon 5\ninactive_file 20\nactive_file 10\n",
        ),
        (
            "9:name=systemd:/\n4:memory:/job/step\n0::/\n",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "cache 1\ntotal_inactive_file 20\ntotal_active_file 10\n",
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_limits_of_control_groups(
    tmp_path: Path, membership: str, top: str, files: tuple[str, str], kept: str
) -> None:
    own, root = tmp_path / "own", tmp_path / "groups"
    own.write_text(membership)
    assert left_in_cgroups(root, own) == []  # nothing mounted
    outer, inner = root / top / "job", root / top / "job" / "step"
    inner.mkdir(parents=True)
    for folder, most, used in ((outer, "500", "450"), (inner, "max", "60")):
        (folder / files[0]).write_text(f"{most}\n")
        (folder / files[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(kept)
    assert left_in_cgroups(root, own) == [500 - 450 + 30]  # what holds for the group around counts
    (inner / files[0]).write_text("100\n")
    assert left_in_cgroups(root, own) == [100 - 60 + 30, 80]
    own.write_text("")
    assert left_in_cgroups(root, own) == []


def test_encodings_are_made_once_and_bounded() -> None:
    made: list[str] = []

    def encode(text: str) -> Any:
        return lambda: made.append(text) or [ord(letter) for letter in text]

    known = EncodingCache(room=5)
    for text in ("abc", "abc", "de", "xyz", "xyz"):
        assert known.get(text, None, encode(text)) == [ord(letter) for letter in text]
    assert made == ["abc", "de", "xyz", "xyz"]
    assert known.get("abc", "other way", lambda: [1]) == [1]
    given = known.get("abc", None, encode("abc"))
    given.append(9)  # a caller's list is its own
    assert known.get("abc", None, encode("abc")) == [97, 98, 99]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PlanError(["a", "b"]), FailureKind.BUILD),
        (NonFiniteError("w", torch.float16), FailureKind.NON_FINITE),
        (NonFiniteScoreError("x"), FailureKind.NON_FINITE),
        (torch.OutOfMemoryError("x"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: out of memory"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), FailureKind.OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), FailureKind.TASK),
        (RuntimeError("x"), FailureKind.TASK),
    ],
)
def test_failures_from_exceptions(error: Exception, kind: FailureKind) -> None:
    failure = failure_from(error, other=FailureKind.TASK, fingerprint="f")
    assert failure.kind is kind
    assert failure.message
    assert "\n" not in failure.message
    assert failure.fingerprint == "f"


def test_isolation(capsys: pytest.CaptureFixture[str]) -> None:
    import random

    logger = logging.getLogger("some.library")
    logger.setLevel(logging.DEBUG)
    expected = random.Random(3).random()
    before = random.getstate()
    with seeded(torch.device("cpu"), python=3, others=4), quiet("some.library"):
        assert random.random() == expected
        assert torch.initial_seed() == 4
        sys.stderr.write("a progress bar")
        assert not logger.isEnabledFor(logging.WARNING)
    assert random.getstate() == before
    assert logger.level == logging.DEBUG
    with quiet(bars=False):
        sys.stderr.write("our own display")
    assert capsys.readouterr().err == "our own display"


def test_task_names_are_read_off_the_text(tmp_path: Any) -> None:
    (tmp_path / "deep").mkdir()
    texts = {
        "a.yaml": "task: plain\n",
        "deep/b.yaml": '"task": "quoted"  # with a remark\n',
        "deep/c.yaml": "dataset_path: json\r\ntask: windows\r\n",
        "d.yaml": "group: g\ntask:\n  - plain\n",
        "e.yaml": "group: h\ntask: [plain]\n",
        "f.yaml": "task: plain\n",
        "g.json": json.dumps({"task": "json"}),
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    assert task_files(tmp_path) == {
        "plain": tmp_path / "a.yaml",
        "quoted": tmp_path / "deep/b.yaml",
        "windows": tmp_path / "deep/c.yaml",
    }
