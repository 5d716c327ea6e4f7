/* What MarkovModel needs of Python.h: keys as ids, results as objects, the collector's
 * slots. As for lru_cache_impl.h: foreign code runs in the comparison of keys only
 * (cxp_find), and whoever found an id may use it until the next Python call. What
 * nothing names any more is taken out under the lock and dies outside. */
#ifndef CTXPOOL_MARKOV_IMPL_H
#define CTXPOOL_MARKOV_IMPL_H

#include "critical.h"
#include "lru_cache_impl.h"

#include <ctxpool/markov.h>

/* The id of key, new if need be; CXP_ERROR. Locked. */
static inline uint32_t
cxp_intern(cxp_markov *m, PyObject *key, uint32_t tag)
{
    uint32_t id = cxp_find(&m->keys, key, tag);
    if (CXP_LIKELY(id))
        return id;
    id = cxp_markov_add(m, key, tag);
    if (!id) {
        PyErr_NoMemory();
        return CXP_ERROR;
    }
    Py_INCREF(key);
    return id;
}

/* Let die what nothing names. */
static inline void
cxp_sweep(PyObject *self, cxp_markov *m)
{
    PyObject *dead;
    do {
        /* On self: against any other call on this model. */
        CXP_BEGIN(self);
        dead = m->unused == CXP_MARKOV_LISTED ? NULL : cxp_markov_take_unused(m);
        CXP_END();
        Py_XDECREF(dead);
    } while (CXP_UNLIKELY(dead != NULL));
}

/* model.record(key), where contexts are made of the keys themselves. */
static inline int
cxp_note(PyObject *self, cxp_markov *m, PyObject *key)
{
    uint32_t tag, id;
    if (CXP_UNLIKELY(cxp_key_tag(key, &tag)))
        return -1;
    /* On self: against any other call on this model. */
    CXP_BEGIN(self);
    id = cxp_intern(m, key, tag);
    if (CXP_LIKELY(id != CXP_ERROR))
        cxp_markov_record(m, id, id);
    CXP_END();
    cxp_sweep(self, m);
    return id == CXP_ERROR ? -1 : 0;
}

/* The same, where they are made of names. */
static int
cxp_note_as(PyObject *self, cxp_markov *m, PyObject *key, PyObject *name)
{
    uint32_t tag, name_tag, id, own = CXP_ERROR;
    uint64_t version;
    if (cxp_key_tag(key, &tag) || cxp_key_tag(name, &name_tag))
        return -1;
    /* On self: against any other call on this model. */
    CXP_BEGIN(self);
    do {
        id = cxp_intern(m, key, tag);
        version = m->keys.version;
        own = id == CXP_ERROR ? CXP_ERROR : cxp_find(&m->keys, name, name_tag);
    } while (own != CXP_ERROR && version != m->keys.version);
    if (own == 0 && (own = cxp_markov_add(m, name, name_tag)))
        Py_INCREF(name);
    else if (own == 0) {
        own = CXP_ERROR;
        PyErr_NoMemory();
    }
    if (own != CXP_ERROR)
        cxp_markov_record(m, id, own);
    CXP_END();
    cxp_sweep(self, m);
    return own == CXP_ERROR ? -1 : 0;
}

/* n, a whole number from 0 to 2^30, or -1: ask somebody else. */
static inline long
cxp_small(PyObject *n)
{
    int overflow;
    if (!PyLong_CheckExact(n))
        return -1;
    long value = PyLong_AsLongAndOverflow(n, &overflow);
    return !overflow && value >= 0 && value <= 1 << 30 ? value : -1;
}

typedef struct {
    PyObject *key;
    double chance;
} cxp_guess;

/* A list of (key, chance); takes over the references. */
static PyObject *
cxp_list_guesses(cxp_guess *guesses, uint32_t count)
{
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; i < count; i++) {
        PyObject *pair = list ? PyTuple_New(2) : NULL;
        PyObject *chance = pair ? PyFloat_FromDouble(guesses[i].chance) : NULL;
        if (!chance) {
            Py_XDECREF(pair);
            Py_CLEAR(list);
            Py_DECREF(guesses[i].key);
            continue;
        }
        PyTuple_SET_ITEM(pair, 0, guesses[i].key);
        PyTuple_SET_ITEM(pair, 1, chance);
        PyList_SET_ITEM(list, i, pair);
    }
    return list;
}

static inline cxp_guess
cxp_guess_of(const cxp_markov *m, uint32_t i)
{
    PyObject *key = m->keys.entries[m->guesses[i].id].key;
    return (cxp_guess){Py_NewRef(key), m->guesses[i].chance};
}

/* The n likeliest keys after the names, a tuple of at most 8 or NULL, were used. */
static PyObject *
cxp_predict(PyObject *self, cxp_markov *m, uint32_t n, PyObject *names)
{
    uint32_t tags[CXP_MARKOV_MAX_ORDER], count = 0, id = 0;
    Py_ssize_t length = names ? PyTuple_GET_SIZE(names) : 0;
    cxp_guess few[8], *found = few;
    for (Py_ssize_t i = 0; i < length; i++)
        if (cxp_key_tag(PyTuple_GET_ITEM(names, i), &tags[i]))
            return NULL;
    /* On self: against any other call on this model. */
    CXP_BEGIN(self);
    cxp_markov_place at;
    uint64_t version;
    do {
        version = m->keys.version;
        at = m->here;
        for (Py_ssize_t i = 0; i < length && id != CXP_ERROR; i++) {
            id = cxp_find(&m->keys, PyTuple_GET_ITEM(names, i), tags[i]);
            cxp_markov_push(&at, m->order, id);
        }
    } while (id != CXP_ERROR && version != m->keys.version);
    if (id != CXP_ERROR) {
        count = cxp_markov_predict(m, &at, n);
        if (count > 8 && !(found = malloc(count * sizeof *found))) {
            PyErr_NoMemory();
            id = CXP_ERROR;
        } else
            for (uint32_t i = 0; i < count; i++)
                found[i] = cxp_guess_of(m, i);
    }
    CXP_END();
    PyObject *list = id == CXP_ERROR ? NULL : cxp_list_guesses(found, count);
    if (found != few)
        free(found);
    return list;
}

/* The likeliest way on, of at most so many steps. */
static PyObject *
cxp_follow(PyObject *self, cxp_markov *m, uint32_t steps)
{
    uint32_t count = 0, room = 8;
    double reached = 1.0;
    cxp_guess few[8], *found = few;
    int failed = 0;
    /* On self: against any other call on this model. */
    CXP_BEGIN(self);
    cxp_markov_place at = m->here;
    while (count < steps && cxp_markov_predict(m, &at, 1)) {
        if (count == room) {
            cxp_guess *more = malloc(2 * (size_t)room * sizeof *more);
            if (!more) {
                failed = 1;
                break;
            }
            memcpy(more, found, count * sizeof *more);
            if (found != few)
                free(found);
            found = more;
            room *= 2;
        }
        reached *= m->guesses[0].chance;
        found[count] = cxp_guess_of(m, 0);
        found[count++].chance = reached;
        cxp_markov_push(&at, m->order, m->guesses[0].id);
    }
    CXP_END();
    PyObject *list = cxp_list_guesses(found, count);
    if (found != few)
        free(found);
    if (failed && list) {
        Py_CLEAR(list);
        PyErr_NoMemory();
    }
    return list;
}

/* The keys in the order of their ids, and what cxp_markov_save() gives, as bytes; both
 * rates too, as they are at that moment. */
static PyObject *
cxp_saved(PyObject *self, cxp_markov *m, cxp_markov_rate **rates, size_t *count)
{
    size_t length = 0, keys = 0;
    uint32_t *saved;
    PyObject **held;
    /* On self: against any other call on this model. Nothing here runs Python. */
    CXP_BEGIN(self);
    *count = (size_t)CXP_MARKOV_RATES * 2 * (m->order + 1);
    *rates = malloc(*count * sizeof **rates);
    held = malloc(((size_t)m->keys.used + 1) * sizeof(PyObject *));
    saved = *rates && held ? cxp_markov_save(m, &length) : NULL;
    if (saved) {
        memcpy(*rates, m->rates, *count * sizeof **rates);
        for (uint32_t id = 1; id <= m->keys.high; id++)
            if (m->keys.entries[id].key)
                held[keys++] = Py_NewRef((PyObject *)m->keys.entries[id].key);
    }
    CXP_END();
    PyObject *list = saved ? PyList_New((Py_ssize_t)keys) : PyErr_NoMemory();
    for (size_t i = 0; i < keys; i++)
        if (list)
            PyList_SET_ITEM(list, (Py_ssize_t)i, held[i]);
        else
            Py_DECREF(held[i]);
    PyObject *pair = NULL, *bytes = NULL;
    if (list)
        bytes = PyBytes_FromStringAndSize((char *)saved, (Py_ssize_t)(4 * length));
    if (bytes)
        pair = PyTuple_Pack(2, list, bytes);
    Py_XDECREF(list);
    Py_XDECREF(bytes);
    free(saved);
    free(held);
    return pair;
}

/* Drop all that a model holds which nobody else sees. */
static void
cxp_drop_model(cxp_markov *old)
{
    for (uint32_t id = 1; id <= old->keys.high; id++)
        Py_XDECREF((PyObject *)old->keys.entries[id].key);
    cxp_markov_fini(old);
}

/* ---- Type slots that Cython does not make ---- */

static Py_ssize_t cxp_model_at; /* offset of the cxp_markov in the object */
static traverseproc cxp_model_base_traverse;
static inquiry cxp_model_base_clear;
static destructor cxp_model_base_dealloc;

static cxp_markov *
cxp_model_of(PyObject *self)
{
    return (cxp_markov *)(void *)((char *)self + cxp_model_at);
}

/* Other threads stand still, as for cxp_traverse(). */
static int
cxp_model_traverse(PyObject *self, visitproc visit, void *arg)
{
    cxp_markov *m = cxp_model_of(self);
    for (uint32_t id = 1; id <= m->keys.high; id++)
        Py_VISIT((PyObject *)m->keys.entries[id].key);
    return cxp_model_base_traverse(self, visit, arg);
}

/* A small model that knows nothing takes its place; where there is no memory even for
 * that, the cycle stays. */
static int
cxp_model_clear(PyObject *self)
{
    cxp_markov *m = cxp_model_of(self), fresh, old;
    double zeros[CXP_MARKOV_RATES * 4] = {0};
    if (!cxp_markov_init(&fresh, 1, 1, 1, zeros, zeros)) {
        CXP_BEGIN(self);
        fresh.keys.version = m->keys.version + 1;
        old = *m;
        *m = fresh;
        CXP_END();
        cxp_drop_model(&old);
    }
    return cxp_model_base_clear(self);
}

static void
cxp_model_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(
        self,
        cxp_model_dealloc) if (*(PyObject **)(void *)((char *)self +
                                                      Py_TYPE(self)->tp_weaklistoffset))
        PyObject_ClearWeakRefs(self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    cxp_markov old = *cxp_model_of(self);
    memset(cxp_model_of(self), 0, sizeof old);
    cxp_drop_model(&old);
    PyErr_Restore(type, value, traceback);
    cxp_model_base_dealloc(self);
    Py_TRASHCAN_END
}

static void
cxp_take_model_slots(PyTypeObject *type, PyObject *specimen, cxp_markov *m)
{
    cxp_model_at = (char *)m - (char *)specimen;
    cxp_model_base_traverse = type->tp_traverse;
    cxp_model_base_clear = type->tp_clear;
    cxp_model_base_dealloc = type->tp_dealloc;
    type->tp_traverse = cxp_model_traverse;
    type->tp_clear = cxp_model_clear;
    type->tp_dealloc = cxp_model_dealloc;
    PyType_Modified(type);
}

#endif
