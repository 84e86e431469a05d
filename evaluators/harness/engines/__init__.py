"""Ways to run the resident model: ``inference_engine`` says what each does."""
