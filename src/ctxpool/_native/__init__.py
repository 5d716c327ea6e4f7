"""The engine in Cython over the C core. ``ctxpool._backend`` decides if it is used."""
