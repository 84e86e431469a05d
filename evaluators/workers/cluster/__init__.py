"""Nodes and their processes: ``ray_cluster`` alone imports Ray, ``node_check`` looks at a node."""
