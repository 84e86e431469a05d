"""Gradients of a loss by a recipe's coefficients, from backward passes of the resident model.

With ``W`` a merged tensor, ``G = dL/dW`` what a backward pass gives, and ``w_j`` the weights that
``W`` was merged by, ``dL/dw_j = <G, dW/dw_j>`` (``method_derivatives``), and the derivative by the
recipe's coefficients follows from their shares in each weight (``coefficients``). One
backward pass gives all of them. A tensor's gradient is taken as soon as it is complete and freed:
only one lives at a time, and there is no second model and no graph over the merge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import torch
from torch import Tensor

from merging.building.build import named, operands_of, want_of
from merging.building.tensor_sources import Key, MappedTensors, TensorSource
from merging.checkpoints.checkpoint import Checkpoint
from merging.gradients.method_derivatives import DIFFERENTIABLE, slope
from merging.methods.method_registry import flattened
from merging.planning.expressions import Combine, Expression
from merging.planning.merge_plan import MergePlan, TensorJob
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.recipes.coefficients import Coefficients


class GradientError(ValueError):
    """A recipe whose coefficients have no gradient."""


class CoefficientGradients:
    """Collects the gradient of a loss by a recipe's coefficients.

    Args:
        plan: What the resident model was built by.
        checkpoints: The models it was planned on.
        parameters: By output name, the resident model's parameter that it is in, and what takes
            its part of one like it; outputs that the model does not read are left out.
        coefficients: Those of the plan's recipe.
        statistics: What is known of the parents; changes nothing but speed.
        supply: Where the parents' tensors come from; ``None`` takes them as they lie.

    Raises:
        GradientError: If a merge above a coefficient has a method without a derivative.

    Attributes:
        values: ``(n,)`` float64, the gradient summed over all backward passes so far.
    """

    def __init__(
        self,
        plan: MergePlan,
        checkpoints: Mapping[str, Checkpoint],
        parameters: Mapping[str, tuple[Tensor, Callable[[Tensor], Tensor]]],
        coefficients: Coefficients,
        *,
        statistics: StatisticsCache | None = None,
        supply: TensorSource | None = None,
    ) -> None:
        self.values = torch.zeros(len(coefficients.values), dtype=torch.float64)
        self._checkpoints = checkpoints
        self._coefficients = coefficients
        self._statistics = statistics
        self._supply = supply or MappedTensors(statistics)
        self._inside: dict[Tensor, list[tuple[TensorJob, Callable[[Tensor], Tensor]]]]
        self._inside = defaultdict(list)
        jobs = [job for job in plan.jobs if job.name in parameters and self._learns(job.expression)]
        for job in jobs:
            target, part = parameters[job.name]
            self._inside[target].append((job, part))
        methods = {node.method for job in jobs for node in self._above(job.expression)}
        if refused := sorted(methods - DIFFERENTIABLE):
            raise GradientError(
                f"method: expected one of {', '.join(sorted(DIFFERENTIABLE))}, got "
                f"{', '.join(refused)}; it has no derivative by its weights"
            )

    def zero(self) -> None:
        """Begin a new sum."""
        self.values.zero_()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Within it, backward passes add to ``values``; parameters need no gradients after it."""
        handles = []
        try:
            for target in self._inside:
                target.requires_grad_(True)
                handles.append(target.register_post_accumulate_grad_hook(self._take))  # type: ignore[no-untyped-call]
            yield
        finally:
            for handle in handles:
                handle.remove()
            for target in self._inside:
                target.grad = None
                target.requires_grad_(False)

    def _take(self, target: Tensor) -> None:
        """Add what the gradient of one of the model's parameters says, and free it."""
        gradient, target.grad = target.grad, None
        if gradient is None:
            return
        gradient = gradient.detach().contiguous()
        for job, part in self._inside[target]:
            want = want_of(job, self._checkpoints, target.device)
            with (
                torch.no_grad(),
                statistics_scope.scope(self._statistics),
                closing(self._supply.stream([want])) as stream,
            ):
                stored = next(stream)
                named(want, stored)
                self._descend(job, job.expression, stored, part(gradient).reshape(-1), {})

    def _descend(
        self,
        job: TensorJob,
        node: Expression,
        stored: Mapping[Key, Tensor],
        gradient: Tensor,
        made: dict[int, Tensor],
    ) -> None:
        """Add the part of a node and of all below it."""
        if not isinstance(node, Combine) or not self._learns(node):
            return
        operands = operands_of(job, node, stored, made, device=gradient.device, chunk=None)
        found = slope(
            node.method,
            flattened(operands, job.shape, chunk=None),
            gradient,
            wanted=[self._learns(one) for one in node.inputs],
            base=node.base is not None and self._learns(node.base),
        )
        assert node.origin is not None
        for (source, tensor), weight in zip(node.origin.sources, found.weights, strict=True):
            for index, share in self._coefficients.shares(
                node.origin.merge, source, tensor=tensor, position=node.origin.depth
            ):
                self.values[index] += share * weight
        for one, inner in zip((*node.inputs, node.base), (*found.inputs, found.base), strict=True):
            if one is not None and inner is not None:
                self._descend(job, one, stored, inner, made)

    def _learns(self, node: Expression) -> bool:
        """Whether a coefficient has a say in it."""
        return any(True for _ in self._above(node))

    def _above(self, node: Expression) -> Iterator[Combine]:
        """The merges in it that a coefficient has a say in, itself included."""
        if not isinstance(node, Combine):
            return
        inner = [found for one in (*node.inputs, node.base) if one for found in self._above(one)]
        origin = node.origin
        if inner or (
            origin is not None
            and any(
                self._coefficients.shares(
                    origin.merge, source, tensor=tensor, position=origin.depth
                )
                for source, tensor in origin.sources
            )
        ):
            yield node
            yield from inner
