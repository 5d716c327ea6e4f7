# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Skeleton."""


cdef class BlockPool:
    pass
cdef class Block:
    pass
