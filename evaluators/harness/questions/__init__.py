"""The questions of tasks: their lasting names, their documents, and worked examples."""
