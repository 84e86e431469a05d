"""Passes over tensors in chunks, which the methods are made of.

``dispatch`` runs a pass natively or in torch; ``torch_kernels`` and ``native`` are the two forms.
"""
