"""LazyProxy for other Cython code.

    from ctxpool._native.lazy_proxy cimport LazyProxy
"""

from cpython.object cimport PyObject


cdef extern from "lazy_proxy_impl.h":
    ctypedef PyObject *(*cxp_loader)(PyObject *)

    ctypedef struct cxp_call_slot:
        void *call
        cxp_loader object


cdef class LazyProxy:
    cdef cxp_call_slot slot  # first: C finds it there
    cdef object target  # what still has to be loaded, until `ready`: then the object
    cdef int ready      # set once, after the object is in its place
    cdef object __weakref__
