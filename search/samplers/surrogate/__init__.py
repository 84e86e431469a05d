"""The Gaussian process behind the default sampler, and the fit of its hyper-parameters."""
