"""The tokenizer keys of a mergekit document: ``tokenizer_source``, or ``tokenizer`` with rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spaces.mergekit.merge_section import Notes
from spaces.mergekit.plain_values import Unreadable, flag, whole
from spaces.recipes.vocabulary import TokenRule, Vocabulary

ModelOf = Callable[[Any, str], str | None]
"""Name of the model that a value of the file stands for; notes the problem under the key."""

_TOKENIZER_KEYS = frozenset({"source", "tokens", "pad_to_multiple_of"})


def source_of(data: Mapping[Any, Any], notes: Notes) -> tuple[str, Any]:
    """The key that says whose tokenizer it is, and its value; ``None`` where none does."""
    tokenizer = data.get("tokenizer")
    if tokenizer is None:
        return "tokenizer_source", data.get("tokenizer_source")
    if data.get("tokenizer_source") is not None:
        notes.problem("tokenizer", "expected it or tokenizer_source, got both")
    if not isinstance(tokenizer, Mapping):
        notes.problem("tokenizer", f"expected keys and values, got {tokenizer!r}")
        return "tokenizer", None
    return "tokenizer.source", tokenizer.get("source", "union")


def read_vocabulary(
    data: Mapping[Any, Any], *, notes: Notes, model_of: ModelOf
) -> Vocabulary | None:
    """What a document says of the output's vocabulary; ``None`` where it says nothing."""
    key, source = source_of(data, notes)
    if source is None:
        return None
    model = None if source == "union" else model_of(source, key)
    table = data.get("tokenizer") or {}
    for unknown in sorted(map(str, table.keys() - _TOKENIZER_KEYS)):
        notes.ignore(f"tokenizer.{unknown}", "not a key of mergekit")
    rules = _rules(table.get("tokens"), notes, model_of)
    pad = table.get("pad_to_multiple_of")
    multiple = notes.take("tokenizer.pad_to_multiple_of", whole, pad) if pad else None
    if not notes.sound or (model is None and source != "union"):
        return None
    return notes.take(
        "tokenizer", Vocabulary, model=model, tokens=rules, pad_to_multiple_of=multiple
    )


def vocabulary_keys(vocabulary: Vocabulary, locations: Mapping[str, str]) -> dict[str, Any]:
    """The keys for a document; ``read_vocabulary`` is the inverse."""
    source = "union" if vocabulary.model is None else locations[vocabulary.model]
    if not vocabulary.tokens and vocabulary.pad_to_multiple_of is None:
        return {"tokenizer_source": source}
    table: dict[str, Any] = {"source": source}
    if vocabulary.tokens:
        table["tokens"] = {
            rule.token: {"source": _source(rule, locations)}
            | ({"force": True} if rule.force else {})
            for rule in vocabulary.tokens
        }
    if vocabulary.pad_to_multiple_of is not None:
        table["pad_to_multiple_of"] = vocabulary.pad_to_multiple_of
    return {"tokenizer": table}


def _source(rule: TokenRule, locations: Mapping[str, str]) -> Any:
    if rule.model is None:
        return {"kind": "zero"}
    place = locations[rule.model]
    if rule.source is None:
        return place
    key = "token_id" if isinstance(rule.source, int) else "token"
    return {"kind": "model_token", "model": place, key: rule.source}


def _rules(table: Any, notes: Notes, model_of: ModelOf) -> tuple[TokenRule, ...]:
    if not table:
        return ()
    if not isinstance(table, Mapping):
        notes.problem("tokenizer.tokens", f"expected tokens and their sources, got {table!r}")
        return ()
    found = [_rule(str(token), entry, notes, model_of) for token, entry in table.items()]
    return tuple(rule for rule in found if rule is not None)


def _rule(token: str, entry: Any, notes: Notes, model_of: ModelOf) -> TokenRule | None:
    key = f"tokenizer.tokens.{token}"
    if not isinstance(entry, Mapping) or entry.get("source") is None:
        notes.problem(key, f"expected a source, got {entry!r}")
        return None
    source, at = entry["source"], f"{key}.source"
    force = notes.take(f"{key}.force", flag, entry.get("force", False))
    kind = source.get("kind") if isinstance(source, Mapping) else None
    if kind == "zero":
        return notes.take(key, TokenRule, token=token, force=bool(force))
    given: str | int | None = None
    if kind == "model_token":
        given = notes.take(at, _other_token, source)
        source = source.get("model")
    model = model_of(source, at)
    if model is None:
        return None
    return notes.take(key, TokenRule, token=token, model=model, source=given, force=bool(force))


def _other_token(source: Mapping[Any, Any]) -> str | int:
    named = [key for key in ("token", "token_id") if source.get(key) is not None]
    if len(named) != 1:
        raise Unreadable(f"expected either token or token_id, got {dict(source)!r}")
    return str(source["token"]) if named == ["token"] else whole(source["token_id"])
