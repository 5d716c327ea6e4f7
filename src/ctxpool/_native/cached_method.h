/* The call of a CachedMethod: from the instance, which is the first argument, to the
 * CachedFunction that is its own.
 *
 * A home holds it. It lives in the instance's __dict__, or, where there is none (and
 * for classes), in the dict `homes` of the CachedMethod, by the instance's address.
 * What is found there counts only if it is a home, of this method, of this very
 * instance: an instance's __dict__ may have come from another one.
 *
 * With a GIL the home found last is remembered, borrowed: it says goodbye when it dies.
 * Else a look-up reads the attribute as object.__getattribute__ would: no code of the
 * instance's class runs, and an instance that has no real __dict__ yet (CPython keeps
 * its values inline) need not get one.
 */
#ifndef CTXPOOL_CACHED_METHOD_H
#define CTXPOOL_CACHED_METHOD_H

#include <Python.h>
#include <stddef.h>

#include "lru_cache_impl.h" /* CXP_LIKELY */

typedef PyObject *(*cxp_settler)(PyObject *self, PyObject *instance);

/* At the start of the object, which keeps what is borrowed here. */
typedef struct cxp_method {
    vectorcallfunc call;
    PyObject *name, *homes;
    PyObject *last;     /* a home that is alive, or NULL */
    cxp_settler settle; /* a new reference to a home where there was none */
} cxp_method;

typedef struct cxp_method_object {
    PyObject_HEAD cxp_method m;
} cxp_method_object;

/* The native class Home, as Cython lays it out; its fields never change. */
typedef struct cxp_home_object {
    PyObject_HEAD PyObject *method, *owner, *cached; /* owner: a weak reference */
} cxp_home_object;

static PyTypeObject *cxp_home_type;

/* The caller has a reference to the instance, so that to read the weak one is safe. */
static inline int
cxp_belongs(PyObject *home, PyObject *method, PyObject *instance)
{
    if (Py_TYPE(home) != cxp_home_type)
        return 0;
    cxp_home_object *h = (cxp_home_object *)home;
    if (h->method != method || !PyWeakref_CheckRef(h->owner))
        return 0;
    PyWeakReference *owner = (PyWeakReference *)h->owner;
    return __atomic_load_n(&owner->wr_object, __ATOMIC_RELAXED) == instance;
}

/* Whether the home is in the instance's __dict__. A class has a __dict__ that nobody
 * but the class may write to. */
static inline int
cxp_houses(PyObject *instance)
{
    return Py_TYPE(instance)->tp_dictoffset && !PyType_Check(instance);
}

/* A new reference to what is where the home would be; NULL: nothing, or an exception.
 */
static inline PyObject *
cxp_housed(const cxp_method *m, PyObject *instance)
{
    PyObject *found = NULL;
    if (CXP_LIKELY(cxp_houses(instance))) {
        PyObject *name = __atomic_load_n(&m->name, __ATOMIC_RELAXED);
        found = PyObject_GenericGetAttr(instance, name);
        if (CXP_UNLIKELY(!found) && PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        return found;
    }
    PyObject *key = PyLong_FromVoidPtr(instance);
    if (!key)
        return NULL;
#if PY_VERSION_HEX >= 0x030D0000
    (void)PyDict_GetItemRef(m->homes, key, &found);
#else
    found = Py_XNewRef(PyDict_GetItemWithError(m->homes, key));
#endif
    Py_DECREF(key);
    return found;
}

static inline void
cxp_remember(cxp_method *m, PyObject *home)
{
#ifdef Py_GIL_DISABLED
    (void)m, (void)home; /* another thread may be about to drop it */
#else
    m->last = home;
#endif
}

/* The home is about to die. */
static inline void
cxp_say_goodbye(cxp_method *m, PyObject *home)
{
    if (m->last == home)
        m->last = NULL;
}

/* A new reference to the home of an instance. NULL: an exception. */
static inline PyObject *
cxp_home_of(PyObject *self, PyObject *instance)
{
    cxp_method *m = &((cxp_method_object *)self)->m;
#ifndef Py_GIL_DISABLED
    if (CXP_LIKELY(m->last && cxp_belongs(m->last, self, instance)))
        return Py_NewRef(m->last);
#endif
    PyObject *home = cxp_housed(m, instance);
    if (CXP_LIKELY(home && cxp_belongs(home, self, instance))) {
        cxp_remember(m, home);
        return home;
    }
    if (home)
        Py_DECREF(home);
    else if (PyErr_Occurred())
        return NULL;
    return m->settle(self, instance);
}

/* Put a home into the __dict__ of an instance, unless another thread was faster. A new
 * reference to the one that is there. */
static PyObject *
cxp_move_in(PyObject *self, PyObject *instance, PyObject *fresh)
{
    const cxp_method *m = &((cxp_method_object *)self)->m;
    PyObject *home;
#ifdef Py_GIL_DISABLED
    PyObject *dict = PyObject_GenericGetDict(instance, NULL);
    if (!dict)
        return NULL;
    if (PyDict_SetDefaultRef(dict, m->name, fresh, &home) < 0)
        home = NULL;
    else if (!cxp_belongs(home, self, instance)) {
        Py_SETREF(home, Py_NewRef(fresh));
        if (PyDict_SetItem(dict, m->name, fresh))
            Py_CLEAR(home);
    }
    Py_DECREF(dict);
    return home;
#else
    home = cxp_housed(m, instance);
    if (home && cxp_belongs(home, self, instance))
        return home;
    /* What was there may die with code of its own: after the new one is in place. */
    int failed = (!home && PyErr_Occurred()) ||
                 PyObject_GenericSetAttr(instance, m->name, fresh);
    Py_XDECREF(home);
    return failed ? NULL : Py_NewRef(fresh);
#endif
}

static PyObject *
cxp_call_method(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (CXP_UNLIKELY(!PyVectorcall_NARGS(nargsf))) {
        PyErr_SetString(PyExc_TypeError, "a cached_method needs an instance");
        return NULL;
    }
    PyObject *home = cxp_home_of(self, args[0]);
    if (CXP_UNLIKELY(!home))
        return NULL;
    PyObject *cached = ((cxp_home_object *)home)->cached;
    PyObject *result = PyObject_Vectorcall(cached, args, nargsf, names);
    Py_DECREF(home);
    return result;
}

/* A method call on an instance passes it as the first argument, as for functions. */
static int
cxp_take_method(PyTypeObject *type, PyObject *specimen, cxp_method *m,
                PyTypeObject *home_type, PyObject *home, PyObject *one, PyObject *two,
                PyObject *three)
{
    cxp_home_object *h = (cxp_home_object *)home;
    if ((char *)m - (char *)specimen != offsetof(cxp_method_object, m) ||
        h->method != one || h->owner != two || h->cached != three) {
        PyErr_SetString(PyExc_SystemError, "CachedMethod is laid out otherwise");
        return -1;
    }
    cxp_home_type = home_type;
    type->tp_vectorcall_offset =
        offsetof(cxp_method_object, m) + offsetof(cxp_method, call);
    type->tp_call = PyVectorcall_Call;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
    PyType_Modified(type);
    return 0;
}

#endif
