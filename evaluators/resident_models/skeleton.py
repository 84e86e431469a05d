"""A model without weights of its own, and what of it is built, moved in and learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.pytorch_utils import Conv1D

from merging.checkpoints.quantisation import round_trip
from merging.checkpoints.weight_places import WeightPlaces


class ResidentError(ValueError):
    """A model that cannot be kept resident.

    Attributes:
        problems: One line each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class OutputTensor(Protocol):
    """What is needed to know of an output tensor."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def dtype(self) -> torch.dtype: ...


class Skeleton:
    """A model without weights of its own, and where each tensor of a checkpoint goes in it.

    Attributes:
        model: In eval mode, without gradients; its weights are whatever was built last.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._state: dict[str, Tensor] = model.state_dict()
        self._names: tuple[str, ...] = ()
        self._where = WeightPlaces(places={}, conversions=(), problems=())
        self._apart: dict[str, Tensor] = {}
        self._broken = torch.zeros((), dtype=torch.bool, device=model.device)
        model.register_forward_hook(self._look)

    def targets(self, jobs: Sequence[OutputTensor]) -> dict[str, Tensor]:
        """The tensors to build into, by their names in the checkpoint.

        Where the model holds a tensor in another dtype than the job has, in another arrangement,
        or not at all (transformers ignores it on load), the target is one apart; ``settle`` moves
        it in.

        Raises:
            ResidentError: If a tensor does not fit, or one of the model's would stay empty.
        """
        self._apart = {}
        names = tuple(job.name for job in jobs)
        if names != self._names:
            self._names, self._where = names, WeightPlaces.of(self.model, names)
        problems = list(self._where.problems[:3])
        result: dict[str, Tensor] = {}
        for job in jobs:
            inner = self._inner(job.name)
            if inner is not None and tuple(inner.shape) != tuple(job.shape):
                problems.append(
                    f"tensor {job.name}: expected the shape {tuple(inner.shape)} that the config "
                    f"asks for, got {tuple(job.shape)}"
                )
            if inner is None or inner.dtype != job.dtype:
                device = self.model.device if inner is None else inner.device
                apart = torch.empty(tuple(job.shape), dtype=job.dtype, device=device)
                self._apart[job.name] = apart
                result[job.name] = apart
            else:
                result[job.name] = inner
        problems += [] if problems else self._unfilled()
        if problems:
            raise ResidentError(problems)
        return result

    def settle(self) -> None:
        """Move in what was built apart; call it after every build."""
        with torch.no_grad():
            for name, value in self._apart.items():
                inner = self._inner(name)
                if inner is not None:
                    inner.copy_(value)
            for conversion in self._where.conversions:
                for name, value in conversion.run(self.model, self._apart).items():
                    self._state[name].copy_(value)
        self._apart = {}
        self._broken.zero_()

    def quantise(self, kind: str) -> None:
        """Round the weights of linear layers as if the model was quantised as it is loaded.

        Experts that are held in one tensor count as linear layers, the output head does not.

        Args:
            kind: One of ``round_trip.KINDS``.
        """
        with torch.no_grad():
            for weight in self._matrices():
                round_trip.quantise(weight, kind)

    def _matrices(self) -> Iterator[Tensor]:
        """The weights of linear layers, ``(outputs, inputs)`` each, every one once."""
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        seen = set[int]()
        for path, module in self.model.named_modules():
            of_experts = "expert" in f"{path} {type(module).__name__}".lower()
            for name, weight in module.named_parameters(recurse=False):
                if module is head or id(weight) in seen:
                    continue
                seen.add(id(weight))
                if isinstance(module, nn.Linear | Conv1D) and name == "weight":
                    yield weight.T if isinstance(module, Conv1D) else weight
                elif weight.dim() == 3 and of_experts:
                    turned = getattr(module, "is_transposed", isinstance(module, Llama4TextExperts))
                    yield from weight.transpose(1, 2) if turned else weight

    def parameters(
        self, jobs: Sequence[OutputTensor]
    ) -> dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """The parameters that tensors of the checkpoint are in, for taking gradients.

        Tensors that the model does not hold as parameters are left out. Call ``targets`` first.

        Returns:
            By the names in the checkpoint, the parameter, and what takes the tensor's part of one
            like it.

        Raises:
            ResidentError: If there are tensors whose gradients are those of rearranged ones.
        """
        if self._where.conversions:
            name = next(
                name for names in self._where.conversions[0].sources.values() for name in names
            )
            raise ResidentError(
                [
                    f"tensor {name}: expected one that goes into the model as it is, got one that "
                    f"transformers rearranges on load ({type(self.model).__name__}): coefficients "
                    "of such models cannot be learned by gradient"
                ]
            )
        own = dict(self.model.named_parameters(remove_duplicate=False))
        places = self._where.places
        return {
            job.name: (own[places[job.name].tensor], places[job.name].of)
            for job in jobs
            if job.name in places and places[job.name].tensor in own
        }

    @property
    def broken(self) -> bool:
        """Whether the model gave NaN or infinite logits since it was settled."""
        return bool(self._broken.item())

    def _look(self, model: Any, inputs: Any, output: Any) -> None:
        # A model that overflows still has an argmax: without this it would score like any other.
        # Single entries may be -inf (a masked vocabulary). No synchronisation with the device here.
        del model, inputs
        largest = output.logits[:, -1, :].amax(dim=-1)
        self._broken |= torch.logical_not(largest.isfinite()).any()

    def _inner(self, name: str) -> Tensor | None:
        """The part of the model that a tensor of the checkpoint is."""
        place = self._where.places.get(name)
        whole = None if place is None else self._state.get(place.tensor)
        return None if place is None or whole is None else place.of(whole)

    def _unfilled(self) -> list[str]:
        names = [place.tensor for place in self._where.places.values()]
        names += [name for one in self._where.conversions for name in one.targets]
        filled = {self._state[name].untyped_storage() for name in names if name in self._state}
        return [
            f"tensor {name}: expected one in the checkpoints (the model has it), got none"
            for name, parameter in self.model.named_parameters()
            if parameter.untyped_storage() not in filled
        ][:3]
