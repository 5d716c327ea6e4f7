/* The slots of an object pool: which objects are idle, which are out, how many may be.
 *
 * Each object has an entry, which is in one of two circular lists, the newest first:
 *
 *     idle:  came back last  ...  came back first      LIFO takes at the left
 *     out:   went out last   ...  went out first       leaks are found from the right
 *
 *     n_idle + n_out + n_reserved <= max_size
 *
 * A reserved slot has no entry: its object is being made or disposed of. All is O(1),
 * runs no Python code, and is under the pool's critical section. */
#ifndef CTXPOOL_NATIVE_OBJECT_POOL_IMPL_H
#define CTXPOOL_NATIVE_OBJECT_POOL_IMPL_H

#include <Python.h>
#include <stdint.h>
#include <time.h>

#include "critical.h"

typedef struct cxp_entry {
    struct cxp_entry *prev, *next; /* towards the newer, towards the older */
    struct cxp_entry *same;        /* another entry of the same object, or NULL */
    PyObject *obj;                 /* owned; NULL once the collector cleared it */
    PyObject *place;               /* where it was acquired, or NULL */
    double created, since;
    uint64_t uses;
    uint8_t out, by_lease, told;
    uint8_t foreign; /* the parent's, in a forked child */
} cxp_entry;

typedef struct cxp_slots {
    cxp_entry idle, out; /* the lists' ends */
    Py_ssize_t n_idle, n_out, n_reserved, peak, waiting;
    Py_ssize_t max_size, min_size;
    uint64_t acquires, releases;
    double max_age, max_idle;
    int closed, lifo;
} cxp_slots;

static inline void
cxp_slots_empty(cxp_slots *s)
{
    s->idle.prev = s->idle.next = &s->idle;
    s->out.prev = s->out.next = &s->out;
    s->n_idle = s->n_out = s->n_reserved = s->waiting = 0;
    s->releases = s->acquires;
}

static inline void
cxp_entry_unlink(cxp_entry *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
}

static inline void
cxp_entry_link(cxp_entry *list, cxp_entry *e)
{
    e->prev = list;
    e->next = list->next;
    e->next->prev = e;
    list->next = e;
}

static inline Py_ssize_t
cxp_slots_size(const cxp_slots *s)
{
    return s->n_idle + s->n_out + s->n_reserved;
}

/* A linked-out entry becomes one that is out. */
static inline void
cxp_slots_send(cxp_slots *s, cxp_entry *e, double now)
{
    cxp_entry_link(&s->out, e);
    e->since = now;
    e->uses++;
    e->out = e->by_lease = 1;
    e->told = 0;
    s->acquires++;
    if (++s->n_out > s->peak)
        s->peak = s->n_out;
}

/* idle -> out; there is one. */
static inline cxp_entry *
cxp_slots_take(cxp_slots *s, double now)
{
    cxp_entry *e = s->lifo ? s->idle.next : s->idle.prev;
    cxp_entry_unlink(e);
    s->n_idle--;
    cxp_slots_send(s, e, now);
    return e;
}

/* out -> idle, or 0 where the pool is closed. */
static inline int
cxp_slots_give(cxp_slots *s, cxp_entry *e, double now)
{
    if (s->closed)
        return 0;
    cxp_entry_unlink(e);
    s->n_out--;
    cxp_entry_link(&s->idle, e);
    s->n_idle++;
    e->since = now;
    e->out = 0;
    e->by_lease = 1;
    s->releases++;
    return 1;
}

/* The hot calls. An idle object that need not be looked at first, or NULL. */
static inline cxp_entry *
cxp_locked_take(PyObject *pool, cxp_slots *s, double now)
{
    cxp_entry *e = NULL;
    CXP_BEGIN(pool);
    if (s->n_idle && !s->waiting && !s->closed) {
        e = s->lifo ? s->idle.next : s->idle.prev;
        e = now - e->created >= s->max_age ? NULL : cxp_slots_take(s, now);
    }
    CXP_END();
    return e;
}

static inline int
cxp_locked_give(PyObject *pool, cxp_slots *s, cxp_entry *e, double now)
{
    int given;
    CXP_BEGIN(pool);
    given = cxp_slots_give(s, e, now);
    CXP_END();
    return given;
}

/* As time.monotonic(), but a few milliseconds late where that makes it quicker. */
static inline double
cxp_monotonic(void)
{
    struct timespec now;
#if defined(CLOCK_MONOTONIC_COARSE)
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#elif defined(CLOCK_UPTIME_RAW)
    clock_gettime(CLOCK_UPTIME_RAW, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int
cxp_slots_check(const cxp_slots *s)
{
    Py_ssize_t idle = 0, out = 0;
    for (cxp_entry *e = s->idle.next; e != &s->idle; e = e->next, idle++)
        if (e->next->prev != e || e->out)
            return 1;
    for (cxp_entry *e = s->out.next; e != &s->out; e = e->next, out++)
        if (e->next->prev != e || !e->out)
            return 2;
    if (idle != s->n_idle || out != s->n_out || s->n_reserved < 0)
        return 3;
    if (cxp_slots_size(s) > s->max_size || out > s->peak)
        return 4;
    return s->acquires - s->releases != (uint64_t)out ? 5 : 0;
}

/* ---- Dead leases, to be used again without malloc ---- */

#define CXP_KEPT_LEASES 256
static PyObject *cxp_kept_lease[CXP_KEPT_LEASES];
static int cxp_kept_leases;

static inline PyObject *
cxp_lease_reborn(void)
{
#ifndef Py_GIL_DISABLED
    if (cxp_kept_leases) {
        PyObject *lease = cxp_kept_lease[--cxp_kept_leases];
        Py_SET_REFCNT(lease, 1);
        PyObject_GC_Track(lease);
        return lease;
    }
#endif
    return NULL;
}

/* At the end of tp_dealloc: it holds no references but to None. One that the collector
 * finalized would not be finalized again. */
static inline void
cxp_lease_died(PyObject *lease)
{
#ifndef Py_GIL_DISABLED
    if (cxp_kept_leases < CXP_KEPT_LEASES && !PyObject_GC_IsFinalized(lease)) {
        cxp_kept_lease[cxp_kept_leases++] = lease;
        return;
    }
#endif
    Py_TYPE(lease)->tp_free(lease);
}

/* ---- What an await gives at once: a StopIteration, and no traceback for it ---- */

static inline PyObject *
cxp_stop_with(PyObject *value)
{
    if (!PyTuple_Check(value) && !PyExceptionInstance_Check(value)) {
        PyErr_SetObject(PyExc_StopIteration, value);
        return NULL;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *
cxp_stop(PyObject *self)
{
    (void)self;
    return NULL; /* no more, and with None */
}

static inline void
cxp_set_next(PyObject *type, iternextfunc next)
{
    ((PyTypeObject *)type)->tp_iternext = next;
}

static inline void
cxp_lease_slots(PyObject *type, destructor dealloc, destructor finalize)
{
    ((PyTypeObject *)type)->tp_dealloc = dealloc;
    ((PyTypeObject *)type)->tp_finalize = finalize;
    PyType_Modified((PyTypeObject *)type);
}

/* For Cython, to which a function's result is a new reference. */
#define cxp_new_reference(object) (object)

/* ---- The pool's objects, for the collector ---- */

static Py_ssize_t cxp_slots_at; /* offset of the cxp_slots in a pool */
static traverseproc cxp_pool_base_traverse;

static cxp_slots *
cxp_slots_of(PyObject *pool)
{
    return (cxp_slots *)(void *)((char *)pool + cxp_slots_at);
}

static int
cxp_pool_traverse(PyObject *pool, visitproc visit, void *arg)
{
    cxp_slots *s = cxp_slots_of(pool);
    if (s->idle.next) { /* else it was never made */
        for (cxp_entry *e = s->idle.next; e != &s->idle; e = e->next)
            Py_VISIT(e->obj);
        for (cxp_entry *e = s->out.next; e != &s->out; e = e->next)
            Py_VISIT(e->obj);
    }
    return cxp_pool_base_traverse(pool, visit, arg);
}

/* The entries stay: leases that die later need them. */
static int
cxp_pool_clear(PyObject *pool)
{
    cxp_slots *s = cxp_slots_of(pool);
    if (s->idle.next == NULL)
        return 0;
    s->closed = 1;
    for (cxp_entry *e = s->idle.next; e != &s->idle; e = e->next)
        Py_CLEAR(e->obj);
    for (cxp_entry *e = s->out.next; e != &s->out; e = e->next)
        Py_CLEAR(e->obj);
    return 0;
}

static inline void
cxp_pool_slots(PyObject *type, PyObject *specimen, cxp_slots *slots)
{
    PyTypeObject *t = (PyTypeObject *)type;
    cxp_slots_at = (char *)slots - (char *)specimen;
    cxp_pool_base_traverse = t->tp_traverse;
    t->tp_traverse = cxp_pool_traverse;
    t->tp_clear = cxp_pool_clear;
}

#endif /* CTXPOOL_NATIVE_OBJECT_POOL_IMPL_H */
