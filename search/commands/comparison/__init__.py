"""Two candidates of a study, question by question."""
