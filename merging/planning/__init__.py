"""From a recipe and headers to a plan: ``merge_plan`` first.

A plan has one expression per output tensor; ``memory_plan`` says where weights will live.
"""
