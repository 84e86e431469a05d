"""The demo's models and tasks, trained on this machine: ``model_family`` first."""
