"""What is known before a run starts: ``inspection`` finds it out, ``preflight_result`` holds it."""
