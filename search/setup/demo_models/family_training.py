"""Training of the demo's models: Llama-shaped, half a million parameters, seconds on one core."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from search.setup.demo_models.exercises import (
    CHARACTERS,
    FOUR,
    LENGTH,
    THREE,
    Curriculum,
    Timetable,
    exercise,
)

if TYPE_CHECKING:
    from torch import Tensor

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
SPECIAL = (PAD, EOS, UNKNOWN)
CONTEXT = 64
"""Longest text in tokens."""

_BASE = "training base"
_WIDTH = LENGTH + 2 + LENGTH + 1  # tag, digits and "="; the longest answer and the end
_IGNORED = -100  # label of positions without loss
_BATCH = 32
_CHECKED = 32  # exercises per skill in a check of how far the base is
_CHECK_EVERY = 20

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of all work that is done, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """Size and schooling of a family.

    Attributes:
        curriculum: What is taught.
        layers: Decoder layers.
        hidden: Width; the feed-forward part is twice as wide.
        least: Steps of the base's schooling before its skills are checked at all.
        most: Steps after which its schooling ends, whatever it can do.
        enough: Share of right answers, per skill, with which it ends.
        habit_steps: Steps in which the base takes on its bad habits.
        special_steps: Steps of a specialist.
        rehearsal: Share of a specialist's exercises on what it is not to specialise in.
    """

    curriculum: Curriculum = THREE
    layers: int = 6
    hidden: int = 96
    least: int = 200
    most: int = 420
    enough: float = 0.9
    habit_steps: int = 40
    special_steps: int = 30
    rehearsal: float = 0.15

    @property
    def steps(self) -> int:
        """Most steps for the whole family."""
        return self.most + self.habit_steps + len(self.curriculum.targets) * self.special_steps


FULL = TrainingPlan()
"""Merges of it are worth searching."""
HARD = TrainingPlan(curriculum=FOUR, most=600)
"""Merges of it are worth searching for longer."""
QUICK = TrainingPlan(layers=4, hidden=32, least=30, most=30, habit_steps=5, special_steps=5)
"""Valid models that know little: for trying the machinery."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: number for number, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab=ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        bos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def train_family(
    course: TrainingPlan, *, seed: int, avoid: Set[str], progress: Progress
) -> dict[str, LlamaForCausalLM]:
    """Train a base and its specialists.

    Everything is drawn from ``seed``; on one machine, equal seeds give equal weights.

    Returns:
        Models by name: ``base``, then one per target skill.
    """
    meter = _Meter(course.steps, progress)
    with _one_thread():
        base = new_model(course, seed)
        taught = _school(base, course, seed=seed, avoid=avoid, step=lambda: meter.step(_BASE))
        meter.step(_BASE, course.most - taught)
        source = random.Random(f"habits {seed}")
        habits: Timetable = ((course.curriculum.habits, 1.0),)
        for _ in _train(base, habits, course.habit_steps, rate=1e-3, source=source, avoid=avoid):
            meter.step(_BASE)
        family = {"base": base}
        for skill in course.curriculum.targets:
            model = copy.deepcopy(base)
            own = course.curriculum.speciality(skill, rehearsal=course.rehearsal)
            source = random.Random(f"{skill} {seed}")
            steps, rate = course.special_steps, course.curriculum.rates[skill]
            for _ in _train(model, own, steps, rate=rate, source=source, avoid=avoid):
                meter.step(f"training {skill}")
            family[skill] = model
    return family


class _Meter:
    """Turns steps into shares of the work."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def step(self, label: str, count: int = 1) -> None:
        """Note steps that were made, or are not needed."""
        self._done += count
        self._progress(label, self._done / self._total)


@contextmanager
def _one_thread() -> Iterator[None]:
    # Models this small gain nothing from a second thread, lose much by it on a busy machine, and
    # sum in another order with it.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def new_model(course: TrainingPlan, seed: int) -> LlamaForCausalLM:
    """An untrained model of a course's size.

    The initial weights are larger and the rotary periods shorter than usual: with texts of 15
    tokens, skills that depend on positions are then learnt in a third of the steps.
    """
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(CHARACTERS),
        hidden_size=course.hidden,
        intermediate_size=2 * course.hidden,
        num_hidden_layers=course.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=0.06,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=SPECIAL.index(EOS),
        eos_token_id=SPECIAL.index(EOS),
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _school(
    base: LlamaForCausalLM,
    course: TrainingPlan,
    *,
    seed: int,
    avoid: Set[str],
    step: Callable[[], None],
) -> int:
    """Teach the base every skill, until it is good at each; returns the number of steps."""
    timetable: Timetable = ((course.curriculum.everything, 1.0),)
    source = random.Random(f"school {seed}")
    checks = random.Random(f"checks {seed}")
    lessons = _train(base, timetable, course.most, rate=2e-3, source=source, avoid=avoid, flat=True)
    for taught in lessons:
        step()
        due = taught >= course.least and taught % _CHECK_EVERY == 0
        if due and _weakest(base, course.curriculum, checks) >= course.enough:
            return taught
    return course.most


def _train(
    model: LlamaForCausalLM,
    timetable: Timetable,
    steps: int,
    *,
    rate: float,
    source: random.Random,
    avoid: Set[str],
    flat: bool = False,
) -> Iterator[int]:
    """Train a model, one step per item; yields the number of steps taken.

    Args:
        model: Changed in place; in evaluation mode between steps.
        timetable: What to teach.
        steps: How many, if the caller does not stop before.
        rate: Peak learning rate; reached after a short rise, then falling along a cosine.
        source: Where exercises are drawn from.
        avoid: Strings of digits not to use.
        flat: Stay at the peak instead of falling.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    rise = 20 if flat else 5
    for done in range(steps):
        fall = 1.0 if flat else 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * done / steps))
        optimizer.param_groups[0]["lr"] = rate * fall * min(1.0, (done + 1) / rise)
        pairs = [exercise(timetable, source, avoid=avoid) for _ in range(_BATCH)]
        logits, labels = _answer_logits(model, pairs)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield done + 1


def _answer_logits(model: LlamaForCausalLM, pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Logits ``(answer tokens, vocabulary)`` and labels ``(answer tokens)`` of a batch."""
    tokens, labels = _encoded(pairs)
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != _IGNORED
    return model.lm_head(hidden[wanted]), labels[:, 1:][wanted]


_IDS = {token: number for number, token in enumerate((*SPECIAL, *CHARACTERS))}


def _encoded(pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Tokens and labels ``(batch, width)``; only answers and their ends have labels."""
    tokens, labels = [], []
    for prompt, answer in pairs:
        question = [_IDS[character] for character in prompt]
        reply = [*(_IDS[character] for character in answer), _IDS[EOS]]
        rest = _WIDTH - len(question) - len(reply)
        tokens.append(question + reply + [_IDS[PAD]] * rest)
        labels.append([_IGNORED] * len(question) + reply + [_IGNORED] * rest)
    return torch.tensor(tokens), torch.tensor(labels)


@torch.no_grad()
def _weakest(model: LlamaForCausalLM, curriculum: Curriculum, source: random.Random) -> float:
    """Share of exercises answered right, of the skill where it is least."""
    shares = []
    for name in curriculum.taught:
        lesson: Timetable = (({name: {name: 1.0}}, 1.0),)
        tokens, labels = _encoded([exercise(lesson, source) for _ in range(_CHECKED)])
        # With every token before it right, an answer is right exactly if greedy decoding gives it.
        guesses = model(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(-1)
        right = (guesses == labels[:, 1:]) | (labels[:, 1:] == _IGNORED)
        shares.append(float(right.all(1).float().mean()))
    return min(shares)
