"""The engine in Python: the specification that ``ctxpool._native`` follows."""
