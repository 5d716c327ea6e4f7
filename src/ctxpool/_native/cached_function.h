/* The call of a CachedFunction: a look-up straight from the arguments of a vectorcall.
 *
 * Keys, as functools.lru_cache makes them:
 *     one argument that is exactly a str or an int      itself
 *     anything else                                     a tuple:
 *         positional arguments; then, if there are keywords, CXP_MARK and each name and
 *         value as they were given; then, if typed, the type of each argument
 * The tuple is built when a result is stored. A look-up hashes and compares the
 * arguments where they lie; the hash is this file's own, so only it may search such a
 * table. A lone str or int never equals a tuple, so both kinds live in one table.
 *
 * The object keeps the cache and the function; cxp_cached borrows them. Foreign code
 * runs in hash, comparison and the function itself; for the comparison see
 * cxp_find_call().
 */
#ifndef CTXPOOL_CACHED_FUNCTION_H
#define CTXPOOL_CACHED_FUNCTION_H

#include "lru_cache_impl.h"

typedef PyObject *(*cxp_extras)(PyObject *self, PyObject *key, PyObject **args,
                                size_t nargsf, PyObject *names);

/* What a call needs, at the start of the object. */
typedef struct cxp_cached {
    vectorcallfunc call;
    PyObject *function, *cache, *key; /* key: NULL, or makes the key */
    cxp_lru_table *table;
    const uint32_t *capacity;
    int *tracked;
    uint64_t *evicted;
    cxp_extras extras;
    uint64_t uncached; /* calls that were never looked up: maxsize=0 */
    int typed;
    int method;    /* the first argument is no part of the key */
    int unbounded; /* a later result replaces an earlier one, as in functools */
} cxp_cached;

typedef struct cxp_cached_object {
    PyObject_HEAD cxp_cached c;
} cxp_cached_object;

/* The arguments that make the key. */
typedef struct cxp_arguments {
    PyObject *const *items; /* the values of the keywords follow */
    Py_ssize_t count, named;
    PyObject *names;
    int typed;
} cxp_arguments;

static PyObject *CXP_MARK;

static inline cxp_arguments
cxp_arguments_of(const cxp_cached *c, PyObject *const *args, size_t nargsf,
                 PyObject *names)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf), skip = c->method && count;
    return (cxp_arguments){args + skip, count - skip,
                           names ? PyTuple_GET_SIZE(names) : 0, names, c->typed};
}

static inline int
cxp_is_lone(const cxp_arguments *a)
{
    return a->count == 1 && !a->named && !a->typed &&
           (PyUnicode_CheckExact(a->items[0]) || PyLong_CheckExact(a->items[0]));
}

static inline Py_ssize_t
cxp_key_length(const cxp_arguments *a)
{
    return a->count + (a->named ? 1 + 2 * a->named : 0) +
           (a->typed ? a->count + a->named : 0);
}

/* A new reference: the key. */
static PyObject *
cxp_key_of(const cxp_arguments *a)
{
    if (cxp_is_lone(a))
        return Py_NewRef(a->items[0]);
    PyObject *key = PyTuple_New(cxp_key_length(a));
    if (!key)
        return NULL;
    Py_ssize_t n = 0;
    for (Py_ssize_t i = 0; i < a->count; i++)
        PyTuple_SET_ITEM(key, n++, Py_NewRef(a->items[i]));
    if (a->named)
        PyTuple_SET_ITEM(key, n++, Py_NewRef(CXP_MARK));
    for (Py_ssize_t i = 0; i < a->named; i++) {
        PyTuple_SET_ITEM(key, n++, Py_NewRef(PyTuple_GET_ITEM(a->names, i)));
        PyTuple_SET_ITEM(key, n++, Py_NewRef(a->items[a->count + i]));
    }
    for (Py_ssize_t i = 0; a->typed && i < a->count + a->named; i++)
        PyTuple_SET_ITEM(key, n++, Py_NewRef((PyObject *)Py_TYPE(a->items[i])));
    return key;
}

/* ---- Search by arguments ---- */

/* The mixing of xxHash64's lanes. */
static inline uint64_t
cxp_mix(uint64_t sum, uint64_t lane)
{
    sum += lane * UINT64_C(14029467366897019727);
    sum = (sum << 31) | (sum >> 33);
    return sum * UINT64_C(11400714785074694791);
}

static inline int
cxp_mix_hash(uint64_t *sum, PyObject *item)
{
    Py_hash_t hash = -1;
    if (CXP_LIKELY(PyUnicode_CheckExact(item)))
        hash = CXP_STR_HASH(item);
    if (hash == -1 && (hash = PyObject_Hash(item)) == -1)
        return -1;
    *sum = cxp_mix(*sum, (uint64_t)hash);
    return 0;
}

static inline int
cxp_arguments_tag(const cxp_arguments *a, uint32_t *tag)
{
    uint64_t sum = (uint64_t)a->count + 1;
    for (Py_ssize_t i = 0; i < a->count + a->named; i++)
        if (CXP_UNLIKELY(cxp_mix_hash(&sum, a->items[i])))
            return -1;
    for (Py_ssize_t i = 0; i < a->named; i++)
        if (CXP_UNLIKELY(cxp_mix_hash(&sum, PyTuple_GET_ITEM(a->names, i))))
            return -1;
    for (Py_ssize_t i = 0; a->typed && i < a->count + a->named; i++)
        sum = cxp_mix(sum, (uint64_t)(uintptr_t)Py_TYPE(a->items[i]) >> 4);
    *tag = cxp_lru_tag(sum ^ (sum >> 32));
    return 0;
}

enum { CXP_ASK = -2 };

/* 1, 0; without `ask`, CXP_ASK where only Python can tell; with it -1, an exception. */
static inline int
cxp_same_item(PyObject *stored, PyObject *given, int ask)
{
    if (stored == given)
        return 1;
    int same = cxp_same_atom(stored, given);
    if (same < 0)
        same = ask ? PyObject_RichCompareBool(stored, given, Py_EQ) : CXP_ASK;
    return same;
}

/* The items from left to right, as tuples compare. */
static inline int
cxp_same_call(PyObject *key, const cxp_arguments *a, int ask)
{
    if (!PyTuple_CheckExact(key) || PyTuple_GET_SIZE(key) != cxp_key_length(a))
        return 0;
    PyObject **stored = &PyTuple_GET_ITEM(key, 0);
    int same;
    for (Py_ssize_t i = 0; i < a->count; i++)
        if ((same = cxp_same_item(*stored++, a->items[i], ask)) != 1)
            return same;
    if (a->named && *stored++ != CXP_MARK)
        return 0;
    for (Py_ssize_t i = 0; i < a->named; i++) {
        same = cxp_same_item(*stored++, PyTuple_GET_ITEM(a->names, i), ask);
        if (same == 1)
            same = cxp_same_item(*stored++, a->items[a->count + i], ask);
        if (same != 1)
            return same;
    }
    for (Py_ssize_t i = 0; a->typed && i < a->count + a->named; i++)
        if (*stored++ != (PyObject *)Py_TYPE(a->items[i]))
            return 0;
    return 1;
}

/* As cxp_find(): the entry, 0, or CXP_ERROR. After a comparison in Python the search
 * starts again if the table has changed. Locked. */
static inline uint32_t
cxp_find_call(cxp_lru_table *t, const cxp_arguments *a, uint32_t tag)
{
again:;
    uint32_t at, e = cxp_lru_first(t, tag, &at);
    for (; e; e = cxp_lru_next(t, tag, &at)) {
        PyObject *candidate = t->entries[e].key;
        int same = cxp_same_call(candidate, a, 0);
        if (CXP_UNLIKELY(same == CXP_ASK)) {
            uint64_t version = t->version;
            Py_INCREF(candidate);
            same = cxp_same_call(candidate, a, 1);
            Py_DECREF(candidate);
            if (same < 0)
                return CXP_ERROR;
            if (version != t->version)
                goto again;
        }
        if (same)
            return e;
    }
    return 0;
}

/* ---- Calls ---- */

/* Keep a result. An entry that came in the meantime stays, in a bounded cache. */
static int
cxp_keep(cxp_cached *c, PyObject *cache, PyObject *key, const cxp_arguments *a,
         uint32_t tag, PyObject *value)
{
    PyObject *old_key = NULL, *old_value = NULL;
    cxp_lru_table *t = c->table;
    uint32_t e;
    int result = 0;
    /* On the cache: against any other call that uses it. */
    CXP_BEGIN(cache);
    e = a ? cxp_find_call(t, a, tag) : cxp_find(t, key, tag);
    if (CXP_UNLIKELY(e == CXP_ERROR))
        result = -1;
    else if (CXP_UNLIKELY(e)) {
        if (c->unbounded) {
            cxp_track_for(cache, c->tracked, value, value);
            old_value = t->entries[e].value;
            t->entries[e].value = Py_NewRef(value);
            cxp_lru_promote(t, e);
        }
    } else {
        if (t->used && t->used >= *c->capacity) {
            e = cxp_lru_oldest(t);
            old_key = t->entries[e].key;
            old_value = t->entries[e].value;
            if (CXP_UNLIKELY(cxp_lru_replace(t, e, key, value, tag))) {
                old_key = old_value = NULL;
                result = -2;
            } else
                *c->evicted += 1;
        } else if (CXP_UNLIKELY(!cxp_lru_insert(t, key, value, tag)))
            result = -2;
        if (CXP_LIKELY(!result)) {
            Py_INCREF(key);
            Py_INCREF(value);
            cxp_track_for(cache, c->tracked, key, value);
        }
    }
    CXP_END();
    Py_XDECREF(old_key);
    Py_XDECREF(old_value);
    if (CXP_UNLIKELY(result == -2))
        PyErr_NoMemory();
    return result;
}

/* Call the function and keep what it returns; of a: NULL for a lone key. */
static PyObject *__attribute__((noinline))
cxp_miss(cxp_cached *c, const cxp_arguments *a, uint32_t tag, PyObject *const *args,
         size_t nargsf, PyObject *names)
{
    PyObject *function = Py_NewRef(c->function), *cache = Py_NewRef(c->cache);
    PyObject *result = PyObject_Vectorcall(function, args, nargsf, names);
    Py_DECREF(function);
    if (result) {
        PyObject *key = cxp_key_of(a);
        const cxp_arguments *many = cxp_is_lone(a) ? NULL : a;
        if (!key || cxp_keep(c, cache, key, many, tag, result))
            Py_CLEAR(result);
        Py_XDECREF(key);
    }
    Py_DECREF(cache);
    return result;
}

static PyObject *
cxp_call_many(cxp_cached *c, PyObject *const *args, size_t nargsf, PyObject *names)
{
    cxp_arguments a = cxp_arguments_of(c, args, nargsf, names);
    cxp_lru_table *t = c->table;
    PyObject *value = NULL;
    uint32_t tag, e;
    if (CXP_UNLIKELY(cxp_arguments_tag(&a, &tag)))
        return NULL;
    /* On the cache: against any other call that uses it. */
    CXP_BEGIN(c->cache);
    e = cxp_find_call(t, &a, tag);
    if (CXP_LIKELY(e && e != CXP_ERROR)) {
        value = t->entries[e].value;
        Py_INCREF(value);
        cxp_lru_promote(t, e);
        t->hits++;
    } else if (!e)
        t->misses++;
    CXP_END();
    if (CXP_UNLIKELY(!value && !e))
        return cxp_miss(c, &a, tag, args, nargsf, names);
    return value;
}

static PyObject *
cxp_call_cached(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    cxp_cached *c = &((cxp_cached_object *)self)->c;
    Py_ssize_t skip = c->method;
    if (PyVectorcall_NARGS(nargsf) != 1 + skip || names || c->typed)
        return cxp_call_many(c, args, nargsf, names);
    PyObject *key = args[skip];
    if (!PyUnicode_CheckExact(key) && !PyLong_CheckExact(key))
        return cxp_call_many(c, args, nargsf, names);
    PyObject *value = cxp_hit(c->cache, c->table, key);
    if (CXP_LIKELY(value != NULL))
        return value;
    uint32_t tag;
    if (PyErr_Occurred() || cxp_key_tag(key, &tag))
        return NULL;
    cxp_arguments a = {args + skip, 1, 0, NULL, 0};
    return cxp_miss(c, &a, tag, args, nargsf, names);
}

/* maxsize=0: nothing is looked up. */
static PyObject *
cxp_call_uncached(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    cxp_cached *c = &((cxp_cached_object *)self)->c;
    /* On self: against cache_clear() and cache_info(). */
    CXP_BEGIN(self);
    c->uncached++;
    CXP_END();
    return PyObject_Vectorcall(c->function, args, nargsf, names);
}

/* With any of ttl, key, getsizeof, single_flight: a real key, and LRUCache's own ways.
 */
static PyObject *
cxp_call_extras(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    cxp_cached *c = &((cxp_cached_object *)self)->c;
    cxp_arguments a = cxp_arguments_of(c, args, nargsf, names);
    PyObject *key = c->key
                        ? PyObject_Vectorcall(c->key, a.items, (size_t)a.count, names)
                        : cxp_key_of(&a);
    if (!key)
        return NULL;
    PyObject *value = c->extras(self, key, (PyObject **)(uintptr_t)args, nargsf, names);
    Py_DECREF(key);
    return value;
}

/* Its references are gone: the collector has cleared it. */
static PyObject *
cxp_call_cleared(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    (void)self, (void)args, (void)nargsf, (void)names;
    PyErr_SetString(PyExc_ReferenceError, "the cached function was garbage");
    return NULL;
}

static PyObject *
cxp_call_function(PyObject *function, PyObject **args, size_t nargsf, PyObject *names)
{
    return PyObject_Vectorcall(function, args, nargsf, names);
}

/* The arguments as the tuple and the dict of a Python call. */
static PyObject *
cxp_positional(PyObject **args, size_t nargsf)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    return tuple;
}

static PyObject *
cxp_named(PyObject **args, size_t nargsf, PyObject *names)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict && names && i < PyTuple_GET_SIZE(names); i++)
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(names, i), args[count + i]))
            Py_CLEAR(dict);
    return dict;
}

/* Empty the table and its counts. What it held dies outside the section. */
static void
cxp_forget(PyObject *cache, cxp_lru_table *t)
{
    cxp_lru_table old;
    /* On the cache: against any other call that uses it. */
    CXP_BEGIN(cache);
    cxp_lru_detach(t, &old);
    t->hits = t->misses = 0;
    CXP_END();
    cxp_drop_table(&old);
}

/* ---- Type slots that Cython does not make ---- */

static inquiry cxp_cached_base_clear;

static int
cxp_cached_clear(PyObject *self)
{
    ((cxp_cached_object *)self)->c.call = cxp_call_cleared;
    return cxp_cached_base_clear(self);
}

/* Where a class has no method of its own by the name, a call passes the instance
 * without a bound method: Py_TPFLAGS_METHOD_DESCRIPTOR, as functions do. */
static int
cxp_take_call(PyTypeObject *type, PyObject *specimen, cxp_cached *c)
{
    if ((char *)c - (char *)specimen != offsetof(cxp_cached_object, c)) {
        PyErr_SetString(PyExc_SystemError, "CachedFunction is laid out otherwise");
        return -1;
    }
    type->tp_vectorcall_offset =
        offsetof(cxp_cached_object, c) + offsetof(cxp_cached, call);
    type->tp_call = PyVectorcall_Call;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
    cxp_cached_base_clear = type->tp_clear;
    type->tp_clear = cxp_cached_clear;
    PyType_Modified(type);
    return 0;
}

#endif
