"""Pools above the engine.

- :class:`ResourceManager`: pools of objects by name, with a default one behind
  :func:`register_resource_type`, :func:`get_pooled_resource`, :func:`pooled_resource`.
"""

from .manager import (
    ResourceManager,
    get_pooled_resource,
    pooled_resource,
    register_resource_type,
)

__all__ = [
    "ResourceManager",
    "get_pooled_resource",
    "pooled_resource",
    "register_resource_type",
]
