/* What LazyProxy does below Cython: publish the loaded object to threads that take no
 * lock, and hand on what has no Python spelling. */
#ifndef CTXPOOL_NATIVE_LAZY_PROXY_IMPL_H
#define CTXPOOL_NATIVE_LAZY_PROXY_IMPL_H

#include <Python.h>

/* Whoever sees the flag sees what was stored before cxp_set(). */
static inline int
cxp_is_set(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static inline void
cxp_set(int *flag)
{
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

/* A tuple may hold the proxy of itself, and PyObject_Hash does not count its depth. */
static inline Py_hash_t
cxp_hash(PyObject *target)
{
    Py_hash_t hash;

    if (Py_EnterRecursiveCall(" while hashing the object of a LazyProxy"))
        return -1;
    hash = PyObject_Hash(target);
    Py_LeaveRecursiveCall();
    return hash;
}

/* The target's own buffer, which the target itself will release. Cython put None in
 * the view. */
static inline int
cxp_reexport(PyObject *target, Py_buffer *view, int flags)
{
    Py_CLEAR(view->obj);
    return PyObject_GetBuffer(target, view, flags);
}

/* An attribute of the target. Where a class statement asks its bases for
 * __mro_entries__, which a class has not, base_of(target) is the answer. */
static inline PyObject *
cxp_getattr(PyObject *target, PyObject *name, PyObject *base_of)
{
    PyObject *found = PyObject_GetAttr(target, name);

    if (found == NULL && PyUnicode_Check(name) &&
        PyUnicode_CompareWithASCIIString(name, "__mro_entries__") == 0 &&
        PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return PyObject_CallOneArg(base_of, target);
    }
    return found;
}

#endif /* CTXPOOL_NATIVE_LAZY_PROXY_IMPL_H */
