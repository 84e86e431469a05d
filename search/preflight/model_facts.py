"""What the models of a run are, from their headers and small files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.resident_models.tokenizer_cache import tokenizer_key
from merging.checkpoints.checkpoint import Checkpoint
from merging.tokenizers import chat_template_files


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """One model.

    Attributes:
        name: Short name.
        location: As the config has it.
        architecture: Class of the model, such as ``LlamaForCausalLM``.
        layers: Number of layers; 0 where the names of tensors show none.
        parameters: Number of weights.
        bytes: Size of the weights, as they are merged.
        dtypes: Types of the weights, the most frequent first.
        vocabulary: Rows of the embeddings; 0 where there are none.
        tokenizer: Hash of the tokenizer's files, 8 hex digits; equal for equal tokenizers.
        chat_template: Whether it has one.
        template: Hash of the chat template, 8 hex digits; empty without one.
        tied: Whether the output head is the embeddings.
        adapter: Whether it is a model with a LoRA adapter.
        quantised: What its weights are quantised with, as its config calls it; empty if they are
            plain.
    """

    name: str
    location: str
    architecture: str
    layers: int
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    vocabulary: int
    tokenizer: str
    chat_template: bool
    template: str
    tied: bool
    adapter: bool
    quantised: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> ModelFacts:
        """The facts of an opened model; no weight is read but where the head is in doubt."""
        infos = checkpoint.tensors.values()
        dtypes = Counter[str]()
        for info in infos:
            dtypes[str(info.dtype).removeprefix("torch.")] += info.numel
        template = chat_template_files.stored(checkpoint.tokenizer_folder)
        kinds = checkpoint.config.get("architectures")
        return cls(
            name=checkpoint.name,
            location=checkpoint.location,
            architecture=str(kinds[0] if kinds else checkpoint.config.get("model_type", "unknown")),
            layers=len(checkpoint.layout.layers),
            parameters=sum(info.numel for info in infos),
            bytes=sum(info.numel * info.dtype.itemsize for info in infos),
            dtypes=tuple(name for name, _ in dtypes.most_common()),
            vocabulary=checkpoint.rows or 0,
            tokenizer=tokenizer_key(checkpoint.tokenizer_folder)[:8],
            chat_template=template is not None,
            template="" if template is None else _digest(template),
            tied=checkpoint.tied,
            adapter=checkpoint.adapter is not None,
            quantised=checkpoint.quantisation["quant_method"] if checkpoint.packed else "",
        )


def differences(facts: Mapping[str, ModelFacts]) -> list[str]:
    """In what the models differ that a merge has to do something about, in sentences."""
    models = list(facts.values())
    found = []
    if len({one.tokenizer for one in models}) > 1:
        groups = _grouped({one.name: one.tokenizer for one in models})
        found.append(
            f"the files of the tokenizers differ ({groups}); the result gets the one of "
            "output.tokenizer, by default the base's"
        )
    templates = {one.name: one.template or "none" for one in models}
    if len(set(templates.values())) > 1:
        found.append(
            f"the chat templates differ ({_grouped(templates)}); a merged model is asked with that "
            "of its tokenizer"
        )
    if len({one.dtypes[:1] for one in models}) > 1:
        groups = _grouped({one.name: one.dtypes[0] for one in models}, names=True)
        found.append(f"the weights have different types ({groups}); set output.dtype")
    if quantised := {one.name: one.quantised for one in models if one.quantised}:
        groups = _grouped(quantised, names=True)
        found.append(
            f"quantised weights are read as plain ones ({groups}), and the result is plain; a copy "
            "that never was quantised makes a better parent"
        )
    if len({one.tied for one in models}) > 1:
        groups = _grouped(
            {one.name: "tied" if one.tied else "untied" for one in models}, names=True
        )
        found.append(f"some heads are tied to the embeddings and some are not ({groups})")
    return found


def _grouped(values: Mapping[str, str], *, names: bool = False) -> str:
    """``math, code / chat``; with the values' own names ``math, code: tied / chat: untied``."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return " / ".join(
        ", ".join(members) + (f": {value}" if names else "") for value, members in groups.items()
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]
