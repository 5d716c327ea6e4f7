/* What block_pool.pyx needs of CPython and NumPy that Cython has no words for. */
#ifndef CTXPOOL_NATIVE_LEASE_H
#define CTXPOOL_NATIVE_LEASE_H

#include <Python.h>

#include <numpy/arrayobject.h>

/* Whether nobody but its block reaches the memory behind a view: nobody else has the
 * view, a buffer or a slice of it, a weak reference to it, or its lease. `owners`
 * counts the references to the lease that are the block's and the view's own.
 *
 * Only a hint on free-threaded builds, where another thread's references count late:
 * there it may refuse a strict release, but never returns memory. */
static inline int
cxp_view_is_quiescent(PyObject *view, PyObject *lease, Py_ssize_t owners)
{
    PyMemoryViewObject *v = (PyMemoryViewObject *)view;
    return Py_REFCNT(view) == 1 && v->exports == 0 && v->weakreflist == NULL &&
           !(v->flags & _Py_MEMORYVIEW_RELEASED) && Py_REFCNT(v->mbuf) == 1 &&
           v->mbuf->exports == 1 && Py_REFCNT(lease) == owners;
}

static inline int
cxp_view_is_released(PyObject *view)
{
    return (((PyMemoryViewObject *)view)->flags & _Py_MEMORYVIEW_RELEASED) != 0;
}

#ifdef Py_GIL_DISABLED
#define CXP_KEEPS_VIEWS 0
#else
#define CXP_KEEPS_VIEWS 1
#endif

/* A writable C-contiguous array of `descr` (its reference is stolen) over `data`,
 * kept alive by `base`; NULL with an exception. */
static inline PyObject *
cxp_array_over(PyArray_Descr *descr, int nd, npy_intp *dims, void *data, PyObject *base)
{
    PyObject *array = PyArray_NewFromDescr(&PyArray_Type, descr, nd, dims, NULL, data,
                                           NPY_ARRAY_CARRAY, NULL);
    if (array == NULL)
        return NULL;
    Py_INCREF(base);
    if (PyArray_SetBaseObject((PyArrayObject *)array, base) < 0) {
        Py_DECREF(array);
        return NULL;
    }
    return array;
}

/* The bytes of an array, or -1 where it can't be: too large, or items that a block
 * must not hold. */
static inline Py_ssize_t
cxp_layout_bytes(PyArray_Descr *descr, int nd, const npy_intp *dims, size_t limit)
{
    size_t bytes = (size_t)PyDataType_ELSIZE(descr);
    if (bytes == 0 || PyDataType_REFCHK(descr))
        return -1;
    for (int i = 0; i < nd; i++) {
        if (dims[i] < 0)
            return -1;
        if (dims[i] && bytes > limit / (size_t)dims[i])
            return -1;
        bytes *= (size_t)dims[i];
    }
    return bytes > limit ? -1 : (Py_ssize_t)bytes;
}

#endif /* CTXPOOL_NATIVE_LEASE_H */
