"""Scores by lm-eval: ``harness_evaluator`` first; only ``lm_eval_adapter`` imports lm-eval."""
