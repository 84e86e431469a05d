"""Models with different tokenizers: ``vocabulary_alignment`` decides which rows the result has."""
