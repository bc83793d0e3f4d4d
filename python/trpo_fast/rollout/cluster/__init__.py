"""Ray actors that step environments, on any number of machines.

Nothing here is imported before an agent is asked for a cluster, and Ray not before it is needed.
"""

from .apart import ClusterSampler
from .connection import ClusterError, Connection

__all__ = ["ClusterError", "ClusterSampler", "Connection"]
