"""Caches over the engine's LRUCache."""
