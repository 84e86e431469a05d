"""The config file: ``run_config`` reads it, ``config_sections`` has every key."""
