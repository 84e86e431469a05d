"""What a step of learning costs on a real model, beside the passes it consists of.

    python -m benchmarks.gradients --folder benchmarks/families/real

A batch of questions of equal length goes through the resident model of ``benchmarks.real``: forward
alone, forward and backward with every weight's gradient freed at once, and as learning does it,
with the inner products that a weight for every parent, layer and kind of tensor takes. Seconds are
those of the processor. Memory is what the process has of its own at the highest, beside the model:
mapped files can be dropped and do not count.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.real import World  # first: it sets one thread

# isort: split
import torch
from torch import Tensor

from evaluators.harness.answers.answer_gradients import AnswerTokens, backward
from search.engine.learning.learning_plan import filters_of
from spaces.sampling.layered_weights import layered

INTERVAL = 0.002
"""Seconds between two looks at the memory."""


def own_bytes() -> int:
    """Memory of this process that no file can give back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status: expected a line RssAnon")


class Watch:
    """Looks at the memory from a thread of its own."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(INTERVAL):
            self.most = max(self.most, own_bytes())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def questions(count: int, tokens: int, answer: int, *, vocabulary: int) -> list[AnswerTokens]:
    """Written answers after prompts, of random tokens."""
    source = random.Random(0)
    return [
        AnswerTokens(
            question=str(at),
            texts=(tuple(source.randrange(vocabulary) for _ in range(tokens)),),
            starts=(tokens - answer,),
            right=0,
        )
        for at in range(count)
    ]


@contextmanager
def freeing(model: Any) -> Iterator[None]:
    """Within it every parameter's gradient is freed as soon as it is complete."""

    def free(parameter: Tensor) -> None:
        parameter.grad = None

    handles = []
    for one in model.parameters():
        one.requires_grad_(True)
        handles.append(one.register_post_accumulate_grad_hook(free))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.requires_grad_(False)


def measured(work: Callable[[], object], repeats: int) -> tuple[float, int]:
    """Median of the seconds, and the most memory there was."""
    seconds, most = [], 0
    for _ in range(repeats):
        with Watch() as watch:
            began = time.thread_time()
            work()
            seconds.append(time.thread_time() - began)
        most = max(most, watch.most)
    return median(seconds), most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families/real"))
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--answer", type=int, default=10, help="of these")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = World(folder=args.folder.absolute(), answers=args.folder / "answers.jsonl")
    evaluator, space = world.evaluator, world.prepared.space
    assert space.base is not None
    layers = world.prepared.checkpoints[space.base].layout.layers
    recipe = layered(space, layers=len(layers), filters=filters_of(layers))
    built = evaluator._built(recipe)  # a benchmark may look inside
    model, builder = built.skeleton.model, evaluator._builder
    asked = questions(args.questions, args.tokens, args.answer, vocabulary=model.config.vocab_size)
    weights = {one.question: 1.0 / len(asked) for one in asked}

    def passes(factors: dict[str, float]) -> object:
        return backward(model, asked, factors, batch=len(asked), device=model.device)

    def bare() -> None:
        with torch.enable_grad(), freeing(model):
            passes(weights)

    def learning() -> None:
        gradients = builder.gradients(built)
        with torch.enable_grad(), gradients.collecting():
            passes(weights)

    def products() -> int:
        """Memory for the inner products of the largest tensor, its gradient not counted."""
        gradients = builder.gradients(built)
        target = max(gradients._inside, key=lambda one: one.numel())
        target.grad = torch.ones_like(target)
        before = own_bytes()
        with Watch() as watch:
            gradients._take(target)
        return max(0, watch.most - before)

    size = sum(one.numel() * one.element_size() for one in model.parameters())
    passes({})  # what is made once
    print("| what | s | forward passes | own memory, MB | of the model |")
    print("|---|---|---|---|---|")
    base = 0.0
    for name, work in (
        ("forward", lambda: passes({})),
        ("forward and backward, gradients freed", bare),
        ("step of learning", learning),
    ):
        begun = own_bytes()  # with what the allocator has kept of the row before
        seconds, most = measured(work, args.repeats)
        base = base or seconds
        beside = most - begun
        print(
            f"| {name} | {seconds:.2f} | {seconds / base:.2f} | {beside / 1e6:.0f} | "
            f"{beside / size:.0%} |",
            flush=True,
        )
    print(f"model: {size / 1e6:.0f} MB, inner products of a tensor: {products() / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
