"""What runs inside vLLM's workers: their weights are replaced by those of the resident model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

Handle = tuple[Callable[..., Tensor], tuple[Any, ...]]
"""What another process maps a tensor's memory by: some hundred bytes."""


class WeightRefill:
    """What vLLM mixes into its worker class; the name is one that no worker has."""

    def merge_search_refill(self: Any, weights: Iterable[tuple[str, Tensor | Handle]]) -> None:
        """Replace every weight.

        Args:
            weights: All of a checkpoint's, layer after layer: of a layer that lacks one, vLLM
                leaves the memory as it is; out of order it holds whole layers back.
        """
        self.reload_weights(weights_iterator=_fresh(weights))
        for module in self.get_model().modules():
            # On a CPU a head keeps a packed copy; one tied to the embeddings is passed over.
            method: Any = getattr(module, "quant_method", None)
            if type(method).__name__ == "UnquantizedEmbeddingMethod":
                method.process_weights_after_loading(module)


def handles(weights: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Handle]]:
    """Weights as they are sent to other processes, which map the same memory."""
    shared: Callable[[Tensor], Handle] = reduce_tensor
    return [(name, shared(tensor)) for name, tensor in weights]


def _fresh(weights: Iterable[tuple[str, Tensor | Handle]]) -> Iterator[tuple[str, Tensor]]:
    """A copy of each, one at a time: vLLM keeps some, while the model is filled again."""
    for name, held in weights:
        tensor = held if isinstance(held, Tensor) else held[0](*held[1])
        yield name, tensor.clone()
