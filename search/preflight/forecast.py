"""How far a budget reaches: candidates, hours, and when it is done."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import torch

from evaluators.resident_models.devices.free_memory import free_bytes
from merging.checkpoints.checkpoint import Checkpoint
from runs.config.budget import Budget
from runs.config.run_config import RunConfig
from runs.records.manifest import Manifest
from search.engine.final_check import asks_all, places, references, reserve
from search.engine.processes.worker_setup import worker_memory
from search.engine.trials.question_schedule import QuestionSchedule
from search.preflight.smoke_test import CandidatePace

MOST = 100_000
"""Candidates after which a forecast stops counting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workforce:
    """Who works.

    Attributes:
        workers: Their number.
        gpus: GPUs of each.
        assumed: Why the number is a guess; empty where it is known.
    """

    workers: int
    gpus: float
    assumed: str = ""

    @property
    def words(self) -> str:
        """Such as ``8 GPUs``, ``2 workers``."""
        if self.gpus:
            count = self.workers * self.gpus
            return f"{count:g} GPU{'s' if count != 1 else ''}"
        return f"{self.workers} worker{'s' if self.workers != 1 else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run will come to.

    Attributes:
        candidates: Recipes that will be tried, about.
        questions: Questions that will be asked of them and by the final check, about.
        hours: By the clock, set-up and final check included.
        limit: The budget that ends it.
        seconds: Of one worker for one candidate, on average.
        crew: Who works.
    """

    candidates: int
    questions: int
    hours: float
    limit: str
    seconds: float
    crew: Workforce

    def sentence(self, now: datetime) -> str:
        """``about 620 candidates by 07:00 on 8 GPUs``."""
        end = now + timedelta(hours=self.hours)
        day = "" if end.date() == now.date() else f" on {end:%d %B}"
        more = "more than " if self.candidates >= MOST else "about "
        count = f"{_rounded(self.candidates):,} candidate{'s' if self.candidates != 1 else ''}"
        return f"{more}{count} by {end:%H:%M}{day} on {self.crew.words}"


def crew_of(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> Workforce:
    """The workers that a run would get, as far as this machine can tell."""
    workers, here = config.workers, torch.cuda.device_count()
    if isinstance(workers.gpus, str):
        gpus = 1.0 if here else 0.0
    else:
        gpus = float(workers.gpus)
    if not workers.ray:
        return Workforce(workers=1, gpus=min(1.0, gpus))
    if isinstance(workers.count, int):
        return Workforce(workers=workers.count, gpus=gpus)
    if workers.ray_address is not None:
        return Workforce(workers=1, gpus=gpus, assumed="the cluster's size; say it with --workers")
    if gpus:
        count = max(1, int(here / gpus)) if here else 1
        why = "" if here else "this machine has no GPU; say their number with --workers"
        return Workforce(workers=count, gpus=gpus, assumed=why)
    cores = int((os.cpu_count() or 1) / workers.cpus)
    loads = free_bytes(torch.device("cpu")) // worker_memory(config, checkpoints)
    return Workforce(workers=max(1, min(cores, int(loads))), gpus=0.0)


def forecast(
    config: RunConfig, manifest: Manifest, *, pace: CandidatePace, crew: Workforce
) -> Forecast:
    """Count candidates until one of the budget's limits is reached.

    Every candidate is taken to be asked one block; that leaders are asked more, and equal recipes
    not again, is left out of account.
    """
    budget, questions = Budget.of(config.search), manifest.questions
    top, seeds = places(config.search.validate_top, manifest.objectives), len(manifest.seeds)
    at_once = asks_all(config)
    others = references(config, top=top, seeds=seeds)
    last = reserve(config, questions, top=top, seeds=seeds)
    rotation = QuestionSchedule(manifest.catalogue, questions.search, all_at_once=at_once)
    check = last * pace.question + (2 * top + others) * pace.build
    candidates = asked = 0
    busy = 0.0  # seconds of all workers
    limit = "trials"
    while candidates < MOST:
        size = rotation.total if not rotation.grows else rotation.size
        more = busy + pace.build + size * pace.question
        hours = (pace.setup + (more + check) / crew.workers) / 3600
        reached = {
            "trials": budget.trials is not None and candidates >= budget.trials,
            "questions": budget.questions is not None and asked + size + last > budget.questions,
            "tokens": budget.tokens is not None
            and (asked + size + last) * pace.tokens > budget.tokens,
            "hours": budget.hours is not None and hours > budget.hours,
            "gpu_hours": budget.gpu_hours is not None
            and (more + check) / 3600 * crew.gpus > budget.gpu_hours,
        }
        if any(reached.values()):
            limit = next(name for name, done in reached.items() if done)
            break
        busy, asked, candidates = more, asked + size, candidates + 1
        rotation.count(size)
    hours = (pace.setup + (busy + check) / crew.workers) / 3600
    return Forecast(
        candidates=candidates,
        questions=asked + last,
        hours=hours,
        limit=f"search.{limit}",
        seconds=busy / candidates if candidates else math.nan,
        crew=crew,
    )


def _rounded(count: int) -> int:
    """To two digits: it is a forecast."""
    if count < 100:
        return count
    return round(count, 2 - len(str(count)))
