"""The files of a model beside its weights: tokenizer, generation settings, processors, code."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

TOKENIZER = (
    "tokenizer*.json",
    "tokenizer.model",
    "*.tiktoken",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "additional_chat_templates",
)
"""What makes up a tokenizer."""

GENERATION = "generation_config.json"
"""The generation settings."""

OTHERS = (
    GENERATION,
    "*processor_config.json",
    "modules.json",  # of sentence-transformers, with a folder for each: pooling, normalisation
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "[0-9]_*",
)
"""What else a merged model takes over from its donor."""

CODE = ("*.py",)
"""Code of the model's own, for configs that refer to it."""


def copy_files(source: Path, target: Path, patterns: Iterable[str]) -> None:
    """Copy what matches, files and folders, over what is there."""
    for found in sorted({file for pattern in patterns for file in source.glob(pattern)}):
        if found.is_dir():
            shutil.copytree(found, target / found.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(found, target / found.name)
