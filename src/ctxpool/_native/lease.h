/* What block_pool.pyx needs of CPython and NumPy that Cython has no words for. */
#ifndef CTXPOOL_NATIVE_LEASE_H
#define CTXPOOL_NATIVE_LEASE_H

#include <Python.h>

#include <numpy/arrayobject.h>

#include "critical.h"
#include "ctxpool/block_pool.h"

/* The hot calls on a pool. */
static inline uint32_t
cxp_locked_take(PyObject *owner_of_pool, cxp_block_pool *pool, uint32_t owner,
                int *disturbed)
{
    uint32_t index;
    CXP_BEGIN(owner_of_pool);
    index = cxp_block_pool_take_checked(pool, owner, disturbed);
    CXP_END();
    return index;
}

static inline int
cxp_locked_give(PyObject *owner_of_pool, cxp_block_pool *pool, uint32_t index,
                uint32_t owner)
{
    int state;
    CXP_BEGIN(owner_of_pool);
    state = cxp_block_pool_give(pool, index, owner);
    CXP_END();
    return state;
}

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

/* Dead objects of one type, to be used again without malloc: an allocation by Cython
 * or CPython would cost more than all else that an acquire does. Free-threaded builds
 * have a quick malloc of each thread's own, and keep none. */
#define CXP_KEPT_OBJECTS 256
typedef struct cxp_kept {
    int n;
    PyObject *object[CXP_KEPT_OBJECTS];
} cxp_kept;

/* A reborn object with the fields it died with, or NULL: make one. */
static inline PyObject *
cxp_kept_take(cxp_kept *kept)
{
#ifndef Py_GIL_DISABLED
    if (kept->n) {
        PyObject *object = kept->object[--kept->n];
        Py_SET_REFCNT(object, 1);
        return object;
    }
#endif
    (void)kept;
    return NULL;
}

/* In tp_dealloc, of an object whose references are all given up. */
static inline void
cxp_kept_give(cxp_kept *kept, PyObject *object)
{
#ifndef Py_GIL_DISABLED
    if (kept->n < CXP_KEPT_OBJECTS) {
        kept->object[kept->n++] = object;
        return;
    }
#endif
    (void)kept;
    Py_TYPE(object)->tp_free(object);
}

/* For Cython, to which a function's result is a new reference. */
#define cxp_owned(object) (object)

static inline void
cxp_set_dealloc(PyObject *type, void (*dealloc)(PyObject *))
{
    ((PyTypeObject *)type)->tp_dealloc = dealloc;
}

/* A writable C-contiguous array of `descr` over `data`, kept alive by `base`: it steals
 * a reference to both. NULL with an exception. */
static inline PyObject *
cxp_array_over(PyArray_Descr *descr, int nd, npy_intp *dims, void *data, PyObject *base)
{
    PyObject *array = PyArray_NewFromDescr(&PyArray_Type, descr, nd, dims, NULL, data,
                                           NPY_ARRAY_CARRAY, NULL);
    if (array == NULL) {
        Py_DECREF(base);
        return NULL;
    }
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
