"""Where candidates are evaluated: ``pool`` is the protocol, ``worker`` what runs in a process.

``ray_pool`` has workers on this machine or a cluster.
"""
