"""The files of a model folder, read without loading a weight: headers, config, hashes."""
