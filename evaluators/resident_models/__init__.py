"""A model kept on its device and refilled per recipe, which ``model_builder`` does."""
