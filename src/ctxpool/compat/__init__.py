"""Other libraries' interfaces, over the engine."""
