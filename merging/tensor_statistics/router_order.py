"""Mixtures of experts: whether the routers of models still name the same experts.

Experts are merged by their number. A model that was trained apart, or put together in another
order, may answer as well with its experts elsewhere, and then an average mixes experts that do
different work. Each row of a router belongs to one expert, so that rows tell the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.safetensors_header import TensorInfo

MOST_ROUTERS = 8
"""Routers that are compared, at even distances over depth."""

ALIKE = 0.5
"""Cosine between two rows from which they are of one expert; of fine-tunes it is 0.9 and more."""

CLEARER = 0.1
"""By how much another expert's row must be more alike than the own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterOrder:
    """The routers of a model, compared with another's.

    Attributes:
        model: Its name.
        experts: Rows that were compared, over all layers.
        moved: Of these the ones that match the row of another expert.
        likeness: Mean cosine between rows of one number, in [-1, 1].
    """

    model: str
    experts: int
    moved: int
    likeness: float

    @property
    def drifted(self) -> bool:
        """Whether experts of one number are no longer the same."""
        return bool(self.moved) or self.likeness < ALIKE


def compare_routers(
    checkpoints: Mapping[str, Checkpoint], reference: str
) -> tuple[RouterOrder, ...]:
    """Compare the routers of models with those of one of them.

    Args:
        checkpoints: The models by name, of one architecture.
        reference: Name of the one to compare with.

    Returns:
        One for every other model; empty where there are no experts.
    """
    origin = checkpoints[reference]
    found = list(_routers(origin))
    picked = found[:: -(-len(found) // MOST_ROUTERS)] if found else []
    orders = []
    for name, model in checkpoints.items():
        layers = model.layout.layers
        pairs = [
            (layers[depth][suffix], tensor)
            for depth, suffix, tensor in picked
            if depth < len(layers) and suffix in layers[depth]
        ]
        compared = [
            _compare(model.tensor(own), origin.tensor(tensor))
            for own, tensor in pairs
            if name != reference and model.tensors[own].shape == origin.tensors[tensor].shape
        ]
        if compared:
            cosines = torch.cat([own for own, _ in compared])
            orders.append(
                RouterOrder(
                    model=name,
                    experts=len(cosines),
                    moved=sum(moved for _, moved in compared),
                    likeness=float(cosines.mean()),
                )
            )
    return tuple(orders)


def _routers(checkpoint: Checkpoint) -> Iterator[tuple[int, str, str]]:
    """Layer, rest of the name and name of every router: a matrix with one row per expert."""
    for depth, layer in enumerate(checkpoint.layout.layers):
        experts = _experts(layer, checkpoint.tensors)
        for suffix, name in layer.items():
            shape = checkpoint.tensors[name].shape
            routes = {"gate", "router"} & set(suffix.split("."))
            if routes and ".experts." not in suffix and len(shape) == 2 and shape[0] == experts > 1:
                yield depth, suffix, name


def _experts(layer: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> int:
    """Number of experts in a layer, stored one by one or all in one tensor."""
    parts = [(s.partition(".experts.")[2], name) for s, name in layer.items() if ".experts." in s]
    numbers = {part.partition(".")[0] for part, _ in parts if part[:1].isdecimal()}
    return len(numbers) or (tensors[parts[0][1]].shape[0] if parts else 0)


def _compare(rows: Tensor, others: Tensor) -> tuple[Tensor, int]:
    """Cosines between rows of one number, ``(n,)``, and how many match another's row better.

    What all rows share changes no choice of experts, and is taken away first.
    """
    pair = rows.float(), others.float()
    if torch.equal(*pair):
        return torch.ones(len(rows)), 0
    units = [torch.nn.functional.normalize(one - one.mean(dim=0), dim=1) for one in pair]
    cosines = (units[0] @ units[1].T).nan_to_num()
    own, best = cosines.diagonal(), linear_sum_assignment(cosines.numpy(), maximize=True)[1]
    matched = cosines[torch.arange(len(own)), torch.from_numpy(best)]
    return own, int(((matched > ALIKE) & (matched > own + CLEARER)).sum())
