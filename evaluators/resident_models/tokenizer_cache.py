"""A tokenizer with all that was made with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from evaluators.harness.answers.thoughts import MarkError, ThoughtMark
from evaluators.harness_spec import HarnessSpec
from evaluators.resident_models.encoding_cache import EncodingCache
from evaluators.resident_models.skeleton import ResidentError
from spaces.text.error_text import class_and_last_line

TOKENIZER_FILES = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_templ")
"""How the names of the files begin that make a tokenizer what it is."""


@dataclass(kw_only=True, slots=True)
class CachedTokenizer:
    """A tokenizer and what was made with it.

    Attributes:
        tokenizer: With the chat template that is asked for.
        encodings: Texts as tokens.
        mark: What ends thoughts, where there are any.
        requests: By question id.
    """

    tokenizer: Any
    encodings: EncodingCache
    mark: ThoughtMark | None = None
    requests: Mapping[str, list[Any]] = field(default_factory=dict)


class TemplateError(ValueError):
    """A tokenizer that lacks the chat template that is asked for, or one that lacks a variable."""


class TokenizerCache:
    """A desk for each tokenizer; models with the same tokenizer files share one.

    Args:
        spec: Says which chat template is used, what it is told, and what ends thoughts.
    """

    def __init__(self, spec: HarnessSpec) -> None:
        self._spec = spec
        self._known: dict[str, CachedTokenizer] = {}
        self._keys: dict[Path, str] = {}

    def of(self, model: str, folder: Path) -> CachedTokenizer:
        """The desk of a model.

        Raises:
            ResidentError: If the tokenizer does not load, or lacks what it is asked for.
        """
        key = self._keys.get(folder) or tokenizer_key(folder)
        if key not in self._known:
            try:
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, trust_remote_code=self._spec.trust_remote_code
                )
                _choose_template(tokenizer, self._spec)
                mark = ThoughtMark.of(tokenizer, self._spec)
            except (TemplateError, MarkError) as error:
                raise ResidentError([f"model {model}: {error}"]) from error
            except (OSError, ValueError, ImportError) as error:
                raise ResidentError(
                    [f"model {model}: tokenizer: {class_and_last_line(error)}"]
                ) from error
            self._known[key] = CachedTokenizer(
                tokenizer=tokenizer, encodings=EncodingCache(), mark=mark
            )
        self._keys[folder] = key
        return self._known[key]

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._keys.clear()


def tokenizer_key(folder: Path) -> str:
    """Hash of the files that make a tokenizer."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(TOKENIZER_FILES) and file.is_file():
            digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _choose_template(tokenizer: Any, spec: HarnessSpec) -> None:
    """Set the chat template that is asked for.

    Raises:
        TemplateError: If the tokenizer has none of that name, or none at all, or one that does not
            read what it would be told: it would be passed over in silence.
    """
    wanted = spec.apply_chat_template
    if wanted is False:
        return
    has = tokenizer.chat_template
    names = sorted(has) if isinstance(has, dict) else []
    if isinstance(wanted, str) and wanted not in names:
        there = f"one of {', '.join(names)}" if names else "true or false"
        why = "" if names else ": the tokenizer has no template by a name"
        raise TemplateError(f"harness.apply_chat_template: expected {there}, got {wanted!r}{why}")
    if not has:
        raise TemplateError(
            "harness.apply_chat_template: expected false for a tokenizer without a chat template, "
            f"got {str(wanted).lower()}; or set output.tokenizer to a model that has one"
        )
    tokenizer.chat_template = (
        has[wanted] if isinstance(wanted, str) else tokenizer.get_chat_template()
    )
    for name in spec.chat_variables():
        if not re.search(rf"\b{re.escape(name)}\b", tokenizer.chat_template):
            given = name == "enable_thinking"
            key = f"harness.{name}" if given else f"harness.chat_template_args.{name}"
            raise TemplateError(f"{key}: expected a chat template that reads {name}, got another")
