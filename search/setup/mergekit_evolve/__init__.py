"""Configs of mergekit-evolve as configs of ours: ``evolve_config`` first."""
