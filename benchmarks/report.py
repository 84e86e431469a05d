"""How long a report takes, and how large it is, by the number of candidates.

Makes a study of made-up scores (random recipes of a space with depths, filters and merge trees,
two tasks) and writes its report; times are also given as a ratio to reading the study's records,
which is the least that any report has to do.

    python -m benchmarks.report --candidates 2000 10000
    python -m benchmarks.report --candidates 2000 --texts 400  # with answers of so many characters
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import optuna

from evaluators.protocol import Candidate, QuestionText, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.cluster.node_check import versions
from runs.config.run_config import RunConfig
from runs.records.manifest import Manifest
from runs.records.question_split import divide
from runs.records.record import Split
from runs.report.report_files import FORMATS, write_report
from runs.storage.store import Store
from search.inputs.stored_study.study_config import config_of
from search.monitoring.study_report import make_report
from spaces.sampling.draw import draw

CONFIG = """
base: ./base
models: {math: ./math, code: ./code, text: ./text}
tasks: [one, two]
space:
  methods: [linear, ties, slerp, dare_ties, task_arithmetic]
  depth: {knots: 3}
  filters: [self_attn, mlp]
search: {sampler: random}
"""


def worded(outcome: Score, characters: int, seed: int) -> Score:
    """With an answer to each question that is not a bit like any other."""
    some = random.Random(seed)
    answers = (some.randbytes(characters // 2).hex() for _ in outcome.outcomes)
    pairs = zip(outcome.outcomes, answers, strict=True)
    return replace(outcome, outcomes=tuple(replace(one, text=text) for one, text in pairs))


def make(path: Path, count: int, *, texts: int = 0) -> None:
    """A study of so many candidates, every twentieth of which failed."""
    config = RunConfig.from_text(CONFIG)
    spec = SyntheticSpec(
        parents=("math", "code", "text"),
        tasks=(("one", 1.0), ("two", 1.0)),
        questions=200,
        fail_rate=0.05,
    )
    evaluator, space = SyntheticEvaluator(spec), config.space(32)
    catalogue = evaluator.catalogue()
    manifest = Manifest(
        config=config.to_yaml(),
        space=space.to_dict(),
        inputs={},
        inputs_dtype="bfloat16",
        catalogue=catalogue,
        questions=divide(catalogue, 0.3, seed=0),
        versions=versions(),
        created="2026-01-01T00:00:00+00:00",
        dry_run=True,
    )
    store = Store.create(str(path), manifest)
    store.hold()
    store.room = config.output.answers_room
    if texts:
        prompts = {
            one.id: QuestionText(prompt=one.id * (texts // 20)) for one in catalogue.questions
        }
        store.keep_questions(prompts)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = manifest.questions.search
    for at in range(count):
        recipe = draw(space, study.ask())
        number = store.add(recipe, origin="random", trial=at)
        outcome = evaluator.evaluate(Candidate(id=number, recipe=recipe, questions=asked))
        if texts and isinstance(outcome, Score):
            outcome = worded(outcome, texts, number)
        store.finish(number, Split.SEARCH, outcome, worker=f"node/{at % 8}")
    store.close()


def measured(path: Path, out: Path) -> tuple[float, float]:
    """Seconds to read the records, and to write the whole report."""
    store = Store.open(str(path))
    started = time.perf_counter()
    store.records()
    read = time.perf_counter() - started
    started = time.perf_counter()
    write_report(make_report(store, config_of(store)), out)
    taken = time.perf_counter() - started
    store.close()
    return read, taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--texts", type=int, default=0, help="characters of an answer")
    parser.add_argument("--folder", type=Path, help="keeps the studies, and uses those there")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        print("| candidates | report s | reading s | ratio | page MB |")
        print("|---|---|---|---|---|")
        for count in arguments.candidates:
            study = folder / str(count) / "study.db"
            study.parent.mkdir(parents=True, exist_ok=True)
            if not study.exists():
                make(study, count, texts=arguments.texts)
            out = study.parent / "report"
            read, taken = measured(study, out)
            size = (out / FORMATS["html"].file).stat().st_size / 1e6
            print(f"| {count:,} | {taken:.1f} | {read:.1f} | {taken / read:.1f} | {size:.1f} |")


if __name__ == "__main__":
    main()
