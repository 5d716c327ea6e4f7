/* An object's critical section, for C: against its other threads on free-threaded
 * builds, nothing elsewhere.
 *
 * For the hottest calls only. cython.critical_section takes no lock on builds with a
 * GIL either, but it does an INCREF and a DECREF of the object; from CPython 3.12 on
 * these stall the processor (the one stores half of the count, and then the other loads
 * the whole) for longer than all of an append or of taking a block. */
#ifndef CTXPOOL_NATIVE_CRITICAL_H
#define CTXPOOL_NATIVE_CRITICAL_H

#include <Python.h>

#ifdef Py_GIL_DISABLED
#define CXP_HAS_GIL 0
#else
#define CXP_HAS_GIL 1
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define CXP_BEGIN(self) Py_BEGIN_CRITICAL_SECTION(self)
#define CXP_END()       Py_END_CRITICAL_SECTION()
#else
#define CXP_BEGIN(self) {
#define CXP_END()       }
#endif

/* In a forked child, where this thread is the only one: whoever held or was handed the
 * object's lock in the parent will not let go of it here. */
static inline void
cxp_unlock_after_fork(PyObject *self)
{
#ifdef Py_GIL_DISABLED
    self->ob_mutex = (PyMutex){0};
#else
    (void)self;
#endif
}

/* In a forked child: whether a thread that the fork left behind was inside a call on
 * the object. Then its lock is free again, and the object may be half changed. We hold
 * no lock ourselves. */
static inline int
cxp_left_behind(PyObject *self)
{
    int locked = 0;
#ifdef Py_GIL_DISABLED
    PyThreadState *state = PyEval_SaveThread(); /* it lets go of its locks */
    locked = self->ob_mutex._bits & 1;
    if (locked)
        self->ob_mutex._bits = 0;
    PyEval_RestoreThread(state);
#else
    (void)self;
#endif
    return locked;
}

#endif /* CTXPOOL_NATIVE_CRITICAL_H */
