"""Models with different vocabularies: the output's tokens, and where every row comes from.

The rules are mergekit's (``tokenizer_source`` and ``tokenizer``); see ``vocabulary``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.embedding_rows import EmbeddingRows
from merging.tokenizers.joint_tokenizer import TokenizerError, load, united
from spaces.recipes.recipe import Recipe
from spaces.recipes.vocabulary import TokenRule

_ABSENT, _MEAN = -1, -2  # instead of a model's number: no row, the mean of those that have one


class VocabularyError(ValueError):
    """Vocabularies that cannot be brought together; one line per problem in ``problems``."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class VocabularyAlignment:
    """The output's vocabulary, and the rows that each input gives to it.

    Attributes:
        giver: The model whose tokenizer the output's is, or begins with.
        tokenizer: The output's, as transformers has it.
        changed: Whether it is not the giver's own, so that it has to be saved anew.
        count: Rows of the output's embeddings.
    """

    def __init__(self, recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Load the tokenizers and bring them together.

        Raises:
            VocabularyError: If a tokenizer cannot be loaded, or does not fit its model.
        """
        assert recipe.vocabulary is not None
        self._asked = recipe.vocabulary
        self.giver = self._asked.model or recipe.lender
        names = list(dict.fromkeys([recipe.donor, *recipe.needed]))
        loaded = _loaded(names, checkpoints)
        self._heights = {name: _height(checkpoints[name]) for name in names}
        self._numbers = {
            name: {t: n for t, n in loaded[name].get_vocab().items() if n < self._heights[name]}
            for name in names
        }
        beyond = len(loaded[self.giver].get_vocab()) - len(self._numbers[self.giver])
        if beyond:
            raise VocabularyError(
                [f"model {self.giver}: expected a tokenizer with a row of the embeddings for every "
                 f"token, got {beyond} tokens beyond the last row"]
            )  # fmt: skip
        others = [] if self._asked.model else [n for n in recipe.models if n != self.giver]
        self.tokenizer, self.changed = united(
            loaded[self.giver],
            [(loaded[name], self._numbers[name]) for name in others],
            [rule.token for rule in self._asked.tokens],
        )
        self._tokens: dict[str, int] = dict(self.tokenizer.get_vocab())
        self._size = max(self._tokens.values()) + 1
        multiple = self._asked.pad_to_multiple_of or 1
        self.count = -(-self._size // multiple) * multiple
        self._own = {name: self._rows_of(name) for name in names}
        self._known: dict[tuple[tuple[str, ...], str | None], dict[str, EmbeddingRows]] = {}

    def rows(self, models: Sequence[str], lender: str | None) -> Mapping[str, EmbeddingRows]:
        """Where the rows of every input of a merge come from.

        Args:
            models: The inputs that have the tensor.
            lender: The one that gives rows to the others before their mean is taken.

        Raises:
            VocabularyError: If a rule takes a row of a model that is not among them, or lacks it.
        """
        key = (tuple(models), lender if lender in models else None)
        if key not in self._known:
            self._known[key] = self._align(*key)
        return self._known[key]

    def lacking(self, models: Sequence[str]) -> list[str]:
        """Tokens of the output that none of the models has."""
        has = torch.stack([self._own[model] != _ABSENT for model in models]).any(dim=0)
        return [token for token, number in self._tokens.items() if not has[number]]

    def renumbered(self, config: Mapping[str, Any], donor: str) -> dict[str, Any]:
        """A config with the numbers that its special tokens have in the output.

        Args:
            config: Values by name; those that end in ``_token_id`` are numbers, or lists of them.
            donor: The model whose numbers they are.
        """
        tokens = {number: token for token, number in self._numbers[donor].items()}

        def number(key: str, old: Any) -> int | None:
            found = self._tokens.get(tokens.get(old, ""))
            own: int | None = getattr(self.tokenizer, key, None)
            return own if found is None else found

        result = dict(config)
        own = self._special if self.giver != donor else {}
        for key, value in config.items():
            if not key.endswith("_token_id") or value is None:
                continue
            if isinstance(value, list):
                found = [own.get(key), *(number(key, old) for old in value)]
                result[key] = list(dict.fromkeys(one for one in found if one is not None))
            else:
                result[key] = own.get(key, number(key, value))
        return result

    def stopping(self, settings: Mapping[str, Any], donor: str) -> dict[str, Any]:
        """Generation settings with the output's numbers, which end where the tokenizer ends.

        Where the tokenizer is another model's, whatever ended an answer of the donor's goes on to
        end one.
        """
        ends = settings.get("eos_token_id")
        end = self._special.get("eos_token_id")
        if self.giver == donor or end is None:
            return self.renumbered(settings, donor)
        listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
        result = self.renumbered({**settings, "eos_token_id": listed}, donor)
        found = result["eos_token_id"] or [end]
        return result | {"eos_token_id": found if len(found) > 1 else found[0]}

    @property
    def _special(self) -> dict[str, int]:
        """Numbers of the tokenizer's beginning, end and padding."""
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        found = {key: getattr(self.tokenizer, key, None) for key in keys}
        return {key: number for key, number in found.items() if number is not None}

    def _rows_of(self, model: str) -> Tensor:
        """The model's row of every output token; ``_ABSENT`` where it has none."""
        own = self._numbers[model]
        result = torch.full((self._size,), _ABSENT, dtype=torch.int64)
        for token, number in self._tokens.items():
            result[number] = own.get(token, _ABSENT)
        return result

    def _align(self, models: tuple[str, ...], lender: str | None) -> dict[str, EmbeddingRows]:
        table = torch.stack([self._own[model] for model in models])
        has = table != _ABSENT
        present = has.sum(dim=0)
        giver = torch.full((self._size,), _ABSENT, dtype=torch.int64)
        giver[present > 0] = _MEAN
        if lender is not None:
            giver[has[models.index(lender)]] = models.index(lender)
        giver = torch.where(present == 1, has.int().argmax(dim=0), giver)
        rows = table.gather(0, giver.clamp(min=0)[None])[0]
        forced = torch.zeros(self._size, dtype=torch.bool)
        for rule in self._asked.tokens:
            number = self._tokens[rule.token]
            if rule.force or int(present[number]) < len(models):
                giver[number], rows[number] = self._ruled(rule, models)
            forced[number] = rule.force
        return {
            model: self._rows_for(at, models, table, giver, rows, has[at] & ~forced)
            for at, model in enumerate(models)
        }

    def _rows_for(
        self,
        at: int,
        models: tuple[str, ...],
        table: Tensor,
        giver: Tensor,
        rows: Tensor,
        keeps: Tensor,
    ) -> EmbeddingRows:
        """The rows of one input: its own where it keeps them, else those that are given."""
        giver = torch.where(keeps, at, giver)
        rows = torch.where(keeps, table[at], rows)
        copies = {}
        for number, model in enumerate(models):
            to = torch.nonzero(giver == number).flatten()
            if to.numel():
                copies[model] = (to, rows[to])
        means = []
        for row in torch.nonzero(giver == _MEAN).flatten().tolist():
            column = table[:, row].tolist()
            parts = [(m, r) for m, r in zip(models, column, strict=True) if r != _ABSENT]
            means.append((row, tuple(parts)))
        return EmbeddingRows(count=self.count, copies=copies, means=tuple(means), filled=self._size)

    def _ruled(self, rule: TokenRule, models: tuple[str, ...]) -> tuple[int, int]:
        """Number of the model and its row that a rule names; absent for zeros."""
        if rule.model is None:
            return _ABSENT, 0
        where = f"tokens: {rule.token}"
        if rule.model not in models:
            text = f"expected one of {', '.join(models)} (they have the tensor), got {rule.model}"
            raise VocabularyError([f"{where}: {text}"])
        own = self._numbers[rule.model]
        if isinstance(rule.source, int):
            rows = self._heights[rule.model]
            if rule.source >= rows:
                text = f"expected one of the {rows} rows of {rule.model}, got {rule.source}"
                raise VocabularyError([f"{where}: {text}"])
            return models.index(rule.model), rule.source
        token = rule.token if rule.source is None else rule.source
        if token not in own:
            raise VocabularyError([f"{where}: expected a token of {rule.model}, got {token!r}"])
        return models.index(rule.model), own[token]


def _loaded(names: Sequence[str], checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    result, problems = {}, []
    for name in names:
        try:
            result[name] = load(checkpoints[name].tokenizer_folder)
        except TokenizerError as error:
            problems.append(f"model {name}: tokenizer: {error}")
    if problems:
        raise VocabularyError(problems)
    return result


def _height(checkpoint: Checkpoint) -> int:
    """Rows of a model's embeddings."""
    rows = checkpoint.rows
    if rows is None:
        raise VocabularyError([f"model {checkpoint.name}: expected embeddings, got none"])
    return rows
