"""What a run is given and leaves behind: config, study, statistics, report, exports.

``config.run_config`` and ``storage.store`` are where to begin.
"""
