"""Where the next recipe comes from: ``sampler_choice`` by name, ``gp_sampler`` the default."""
