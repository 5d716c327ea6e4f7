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

/* Count bytes of a block that its user did not ask for, and no more. */
static inline void
cxp_locked_pad(PyObject *owner_of_pool, cxp_block_pool *pool, size_t bytes)
{
    CXP_BEGIN(owner_of_pool);
    pool->padding += bytes;
    CXP_END();
    (void)owner_of_pool;
}

static inline void
cxp_locked_unpad(PyObject *owner_of_pool, cxp_block_pool *pool, size_t bytes)
{
    CXP_BEGIN(owner_of_pool);
    pool->padding -= bytes;
    CXP_END();
    (void)owner_of_pool;
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

/* ---- Arrays over a block ---- */

#define CXP_MAX_DIMS 32

typedef struct cxp_layout {
    PyArray_Descr *descr; /* borrowed; NULL for bytes */
    int nd;
    npy_intp dims[CXP_MAX_DIMS];
} cxp_layout;

static inline int
cxp_plain_length(PyObject *length, npy_intp *dim)
{
    if (!PyLong_CheckExact(length))
        return 0;
    *dim = PyLong_AsSsize_t(length);
    if (*dim == -1 && PyErr_Occurred())
        PyErr_Clear(); /* too large for anything: left to the general case */
    return *dim >= 0;
}

/* 1 and *layout when the arguments are of the most usual kinds (a dtype or None; an
 * int, a tuple of ints or None) and such an array fits into `limit` bytes. Else 0: the
 * general case has to decide, and to say what is wrong. No exception is ever left. */
static inline int
cxp_plain_layout(PyObject *dtype, PyObject *shape, size_t limit, cxp_layout *layout)
{
    size_t bytes = 1;
    layout->descr = NULL;
    if (dtype != Py_None) {
        if (!PyArray_DescrCheck(dtype))
            return 0;
        layout->descr = (PyArray_Descr *)dtype;
        bytes = (size_t)PyDataType_ELSIZE(layout->descr);
        if (bytes == 0 || PyDataType_REFCHK(layout->descr))
            return 0;
    }
    layout->nd = 1;
    if (shape == Py_None) {
        layout->dims[0] = (npy_intp)(limit / bytes);
        return 1;
    }
    if (PyTuple_CheckExact(shape)) {
        if (PyTuple_GET_SIZE(shape) > CXP_MAX_DIMS)
            return 0;
        layout->nd = (int)PyTuple_GET_SIZE(shape);
        for (int i = 0; i < layout->nd; i++)
            if (!cxp_plain_length(PyTuple_GET_ITEM(shape, i), &layout->dims[i]))
                return 0;
    } else if (!cxp_plain_length(shape, &layout->dims[0])) {
        return 0;
    }
    for (int i = 0; i < layout->nd; i++) {
        size_t dim = (size_t)layout->dims[i];
        if (dim && bytes > limit / dim)
            return 0;
        bytes *= dim;
    }
    return bytes <= limit;
}

/* A writable C-contiguous array over `data`, kept alive by `base`, a reference to which
 * it steals. NULL with an exception. */
static inline PyObject *
cxp_array_over(cxp_layout *layout, void *data, PyObject *base)
{
    PyArray_Descr *descr = layout->descr;
    if (descr)
        Py_INCREF(descr);
    else
        descr = PyArray_DescrFromType(NPY_UINT8);
    PyObject *array =
        PyArray_NewFromDescr(&PyArray_Type, descr, layout->nd, layout->dims, NULL, data,
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

#endif /* CTXPOOL_NATIVE_LEASE_H */
