"""What the commands do, one module each; ``run_handle`` is a run for scripts and notebooks."""
