"""From prompts to a task's value: ``requests`` asks and marks, ``task_scores`` sums up."""
