"""Quantised models: ``packed_tensors`` finds their weights, ``storage_kinds`` makes them plain."""
