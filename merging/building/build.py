"""Running a plan: into a resident model, as a stream of tensors, or to a model folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from merging.building.fingerprint import fingerprint
from merging.building.model_writer import ModelWriteError, ModelWriter
from merging.building.output_checks import BuildError, NoSpaceError, OutputChecks
from merging.building.tensor_sources import Key, MappedTensors, TensorSource, Want
from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.model_layout import is_head
from merging.methods.method_registry import Operands, combine
from merging.planning.expressions import Combine, Expression, Leaf, leaves
from merging.planning.merge_plan import MergePlan, TensorJob
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.statistics_cache import StatisticsCache

Progress = Callable[[int, int], None]
"""Called after each tensor with the number done and the number of all."""

ExtraFiles = Mapping[str, str] | Callable[[str], Mapping[str, str]]
"""Files to write with a model; or a function that gives them once the fingerprint is known."""


def build_into(
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    targets: Mapping[str, Tensor],
    *,
    chunk: int | None = None,
    progress: Progress | None = None,
    statistics: StatisticsCache | None = None,
    supply: TensorSource | None = None,
) -> str:
    """Overwrite the weights of a resident model.

    Args:
        plan: What to build.
        checkpoints: The models it was planned on.
        targets: Resident tensors by output name; a name may have a prefix more than the plan's
            (``transformer.wte.weight`` for ``wte.weight``), and the head may be called otherwise
            (``lm_head.weight`` for ``embed_out.weight``). They are computed where they are.
        chunk: Elements at a time; changes nothing but speed.
        progress: Called after each tensor.
        statistics: What is known of the parents from earlier builds; changes nothing but speed.
        supply: Where the parents' tensors come from; ``None`` takes them as they lie. Changes
            nothing but speed.

    Returns:
        The fingerprint of the weights.

    Raises:
        BuildError: If the targets are not those of the plan; nothing is written then.
        NonFiniteError: If a merged weight is NaN or infinite. The targets are then half written.
    """
    matched = _match(plan, targets)
    sealing = OutputChecks(chunk)
    # tensors made in inference mode can be written to only there
    frozen = any(target.is_inference() for target in matched)
    wants = [
        want_of(job, checkpoints, target.device)
        for job, target in zip(plan.jobs, matched, strict=True)
    ]
    with (
        torch.inference_mode(frozen),
        torch.no_grad(),
        statistics_scope.scope(statistics),
        closing((supply or MappedTensors(statistics)).stream(wants)) as stream,
    ):
        made = zip(plan.jobs, wants, stream, matched, strict=True)
        for done, (job, want, stored, target) in enumerate(made, start=1):
            _make(job, want, stored, target, chunk)
            sealing.add(job, want, target)
            if progress is not None:
                progress(done, len(plan.jobs))
        sealing.finish()
    if statistics is not None:
        statistics.flush()
    return fingerprint(sealing.lines)


def tensors(
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    *,
    device: torch.device | str = "cpu",
    chunk: int | None = None,
    statistics: StatisticsCache | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Make the output tensors one by one, in output order; arguments as for ``build_into``.

    Raises:
        NonFiniteError: If a merged weight is NaN or infinite.
    """
    mapped = MappedTensors(statistics)
    for job in plan.jobs:
        out = torch.empty(job.shape, dtype=job.dtype, device=device)
        want = want_of(job, checkpoints, out.device)
        with torch.inference_mode(False), torch.no_grad(), statistics_scope.scope(statistics):
            _run(job, want, mapped.tensors(want), out, chunk)
        yield job.name, out
    if statistics is not None:
        statistics.flush()


def write_model(
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    out: Path,
    *,
    max_shard_bytes: int = 5 * 1024**3,
    progress: Progress | None = None,
    extra_files: ExtraFiles | None = None,
    device: torch.device | str = "cpu",
    statistics: StatisticsCache | None = None,
) -> str:
    """Write the merged model as a folder that transformers loads.

    Tensors are streamed: one is written while the next is made. Everything lies beside ``out`` and
    is renamed at the end, so that ``out`` is either a whole model or not there.

    Args:
        plan: What to build.
        checkpoints: The models it was planned on.
        out: Folder to make; may exist if it is empty.
        max_shard_bytes: Most bytes of weights in one file; a larger tensor gets its own.
        progress: Called after each tensor.
        extra_files: Further files, name -> text, or what gives them for the fingerprint; names
            without folders.
        device: Where to compute.
        statistics: What is known of the parents from earlier builds; changes nothing but speed.

    Returns:
        The fingerprint of the weights.

    Raises:
        BuildError: If ``out`` is in use, or cannot be written; what was begun is removed.
        NoSpaceError: If the disk is full; what was begun is removed.
        NonFiniteError: If a merged weight is NaN or infinite; what was begun is removed.
    """
    lines, mapped = [], MappedTensors(statistics)
    try:
        with (
            ModelWriter(plan, out, max_shard_bytes=max_shard_bytes) as writer,
            ThreadPoolExecutor(1, thread_name_prefix="writer") as thread,
        ):
            writing: Future[None] | None = None
            for done, job in enumerate(writer.order, start=1):
                made = torch.empty(job.shape, dtype=job.dtype, device=device)
                with (
                    torch.inference_mode(False),
                    torch.no_grad(),
                    statistics_scope.scope(statistics),
                ):
                    want = want_of(job, checkpoints, made.device)
                    lines.append(_run(job, want, mapped.tensors(want), made, None))
                if writing is not None:
                    writing.result()
                writing = thread.submit(writer.add, made)
                if progress is not None:
                    progress(done, len(plan.jobs))
            if writing is not None:
                writing.result()
            extra = extra_files(fingerprint(lines)) if callable(extra_files) else extra_files
            writer.finish(extra or {})
    except ModelWriteError as error:
        raise (NoSpaceError if error.full else BuildError)(str(error)) from error
    return fingerprint(lines)


def _run(
    job: TensorJob, want: Want, stored: Mapping[Key, Tensor], out: Tensor, chunk: int | None
) -> str:
    """Make one tensor, check it, and describe it for the fingerprint."""
    _make(job, want, stored, out, chunk)
    sealing = OutputChecks(chunk)
    sealing.add(job, want, out)
    sealing.finish()
    return sealing.lines[0]


def _make(
    job: TensorJob, want: Want, stored: Mapping[Key, Tensor], out: Tensor, chunk: int | None
) -> None:
    """Make one tensor."""
    named(want, stored)
    root = job.expression
    if isinstance(root, Leaf):
        out.detach().copy_(stored[root.model, root.tensor])
        return
    operands = operands_of(job, root, stored, {}, device=out.device, chunk=chunk)
    combine(root.method, operands, out=out, chunk=chunk)


def operands_of(
    job: TensorJob,
    node: Combine,
    stored: Mapping[Key, Tensor],
    made: dict[int, Tensor],
    *,
    device: torch.device,
    chunk: int | None,
) -> Operands:
    """What a merge of one tensor merges; merges below it are carried out.

    Args:
        job: The output tensor.
        node: The merge.
        stored: The parents' tensors.
        made: Results of merges below, by the node's id: each is made once and kept here.
        device: Where to compute.
        chunk: Elements at a time.
    """

    def value(one: Expression) -> Tensor:
        if isinstance(one, Leaf):
            return stored[one.model, one.tensor]
        if id(one) not in made:  # shared sub-trees are the same object
            inner = torch.empty(job.shape, dtype=torch.float32, device=device)
            operands = operands_of(job, one, stored, made, device=device, chunk=chunk)
            made[id(one)] = combine(one.method, operands, out=inner, chunk=chunk)
        return made[id(one)]

    return Operands(
        inputs=[value(one) for one in node.inputs],
        base=None if node.base is None else value(node.base),
        per_input=node.per_input,
        shared=node.shared,
        masks=node.masks,
    )


def want_of(job: TensorJob, checkpoints: Mapping[str, Checkpoint], device: torch.device) -> Want:
    """The stored tensors of a job, each once."""
    stored = {
        (leaf.model, leaf.tensor): (checkpoints[leaf.model], leaf.tensor)
        for leaf in leaves(job.expression)
    }
    return Want(stored=stored, device=device)


def named(want: Want, stored: Mapping[Key, Tensor]) -> None:
    """Tell the statistics what the tensors at hand are."""
    scope = statistics_scope.active()
    if scope is not None:
        scope.clear()
        for key, (checkpoint, tensor) in want.stored.items():
            scope.add(stored[key], f"{checkpoint.identity}:{tensor}")


def _match(plan: MergePlan, targets: Mapping[str, Tensor]) -> list[Tensor]:
    """The target of every job; checks that each fits and that no other is left as it was."""
    problems, matched = [], []
    for job in plan.jobs:
        name = _target_name(job.name, targets)
        if name is None:
            problems.append(f"{job.name}: expected a target of that name, got none")
            continue
        target = targets[name]
        matched.append(target)
        for what, expected, got in (
            ("shape", list(job.shape), list(target.shape)),
            ("dtype", job.dtype, target.dtype),
            ("memory", "contiguous", "contiguous" if target.is_contiguous() else "strided"),
        ):
            if expected != got:
                problems.append(f"{job.name}: expected a target of {what} {expected}, got {got}")
    written = {target.data_ptr() for target in matched}
    stale = [name for name, target in targets.items() if target.data_ptr() not in written]
    if stale and not problems:
        problems.append(
            f"{stale[0]}: expected only targets that the plan makes, got {len(stale)} it does not"
        )
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BuildError(problems[0] + more)
    return matched


def _target_name(name: str, targets: Mapping[str, Tensor]) -> str | None:
    """The target for an output tensor: of that name, or the only one it can mean."""
    if name in targets:
        return name
    found = [target for target in targets if target.endswith("." + name)]
    if not found and is_head(name):
        found = [target for target in targets if is_head(target)]
    return found[0] if len(found) == 1 else None
