"""The passes as pure functions of chunks in torch: the reference, and what GPUs run."""
