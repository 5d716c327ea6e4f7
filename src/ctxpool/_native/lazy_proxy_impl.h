/* What LazyProxy does below Cython: publish the loaded object to threads that take no
 * lock, and hand on what has no Python spelling. */
#ifndef CTXPOOL_NATIVE_LAZY_PROXY_IMPL_H
#define CTXPOOL_NATIVE_LAZY_PROXY_IMPL_H

#include <Python.h>
#include <stddef.h>

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

/* ---- The call, a type slot that Cython does not make ---- */

typedef PyObject *(*cxp_loader)(PyObject *self);

typedef struct cxp_call_slot {
    vectorcallfunc call;
    cxp_loader object; /* borrowed, loaded if need be */
} cxp_call_slot;

typedef struct cxp_proxy_object {
    PyObject_HEAD cxp_call_slot slot;
} cxp_proxy_object;

/* Counted: a chain of calls that C alone makes may come back to the proxy. */
static PyObject *
cxp_call_object(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    PyObject *target = ((cxp_proxy_object *)self)->slot.object(self);

    if (!target || Py_EnterRecursiveCall(" in the call of a LazyProxy"))
        return NULL;
    PyObject *result = PyObject_Vectorcall(target, args, nargsf, names);
    Py_LeaveRecursiveCall();
    return result;
}

static int
cxp_take_proxy(PyTypeObject *type, PyObject *specimen, cxp_call_slot *slot)
{
    if ((char *)slot - (char *)specimen != offsetof(cxp_proxy_object, slot)) {
        PyErr_SetString(PyExc_SystemError, "LazyProxy is laid out otherwise");
        return -1;
    }
    type->tp_vectorcall_offset =
        offsetof(cxp_proxy_object, slot) + offsetof(cxp_call_slot, call);
    type->tp_call = PyVectorcall_Call;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
    PyType_Modified(type);
    return 0;
}

#endif /* CTXPOOL_NATIVE_LAZY_PROXY_IMPL_H */
