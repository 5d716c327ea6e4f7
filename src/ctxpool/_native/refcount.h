/* Py_INCREF for the hottest calls.
 *
 * CPython 3.12 and 3.13 store the lower half of the count there, and load the whole of
 * it in the DECREF that follows soon after, in the interpreter's loop: the load has to
 * wait until the store has left the processor's store buffer, for longer than a whole
 * look-up takes. A store of the whole count is handed on at once. */
#ifndef CTXPOOL_NATIVE_REFCOUNT_H
#define CTXPOOL_NATIVE_REFCOUNT_H

#include <Python.h>

#if !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG) && !defined(Py_LIMITED_API) && \
    PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && SIZEOF_VOID_P > 4
#define CXP_INCREF(object)                                                             \
    do {                                                                               \
        PyObject *const object_ = (PyObject *)(object);                                \
        Py_ssize_t const count_ = object_->ob_refcnt;                                  \
        if ((int32_t)count_ >= 0) /* not immortal, as Py_DECREF has it */              \
            object_->ob_refcnt = count_ + 1;                                           \
        else                                                                           \
            Py_INCREF(object_);                                                        \
    } while (0)
#else
#define CXP_INCREF(object) Py_INCREF((PyObject *)(object))
#endif

#endif
