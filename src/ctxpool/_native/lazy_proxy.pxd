"""LazyProxy for other Cython code.

    from ctxpool._native.lazy_proxy cimport LazyProxy
"""


cdef class LazyProxy:
    cdef object target  # what still has to be loaded, until `ready`: then the object
    cdef int ready      # set once, after the object is in its place
    cdef object __weakref__
