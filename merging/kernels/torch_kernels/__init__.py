"""The passes as pure functions of chunks in torch: the reference, for any device."""
