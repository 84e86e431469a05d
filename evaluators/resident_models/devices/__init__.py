"""Memory of devices: what is free, what fits, and models spread over several."""
