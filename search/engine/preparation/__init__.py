"""What is checked before a run drives its workers: models, tasks, seeds, budget."""
