/* The call of a CachedFunction: a look-up straight from the arguments of a vectorcall.
 *
 * Keys, as functools.lru_cache makes them:
 *     one argument that is exactly a str or an int      itself
 *     anything else                                     a tuple:
 *         positional arguments; then, if there are keywords, CXP_MARK and each name and
 *         value as they were given; then, if typed, the type of each argument
 * The tuple is built when a result is stored. A look-up hashes and compares the
 * arguments where they lie; the hash is the one that the tuple would have, so that the
 * cache's own ways find the entry too. A lone str or int never equals a tuple, so both
 * kinds live in one table.
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

typedef double (*cxp_clock)(PyObject *timer);

/* What a call needs, at the start of the object. */
typedef struct cxp_cached {
    vectorcallfunc call;
    PyObject *function, *cache;
    PyObject *key, *timer; /* NULL, or what was given */
    cxp_lru_table *table;
    const uint32_t *capacity;
    int *tracked;
    uint64_t *evicted; /* by reason */
    cxp_extras extras;
    cxp_clock clock;   /* asks the timer */
    double ttl;        /* 0: none */
    uint64_t uncached; /* calls that were never looked up: maxsize=0 */
    int typed;
    int method;      /* the first argument is no part of the key */
    int first_stays; /* of two results of the same call, as in a bounded functools */
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

/* The hash of a tuple, as CPython has it since 3.8: xxHash64's lanes. */
#define CXP_TUPLE_SEED UINT64_C(2870177450012600261)

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

/* In the order of cxp_key_of(). */
static inline int
cxp_arguments_tag(const cxp_arguments *a, uint32_t *tag)
{
    uint64_t sum = CXP_TUPLE_SEED;
    for (Py_ssize_t i = 0; i < a->count; i++)
        if (CXP_UNLIKELY(cxp_mix_hash(&sum, a->items[i])))
            return -1;
    if (a->named && CXP_UNLIKELY(cxp_mix_hash(&sum, CXP_MARK)))
        return -1;
    for (Py_ssize_t i = 0; i < a->named; i++)
        if (CXP_UNLIKELY(cxp_mix_hash(&sum, PyTuple_GET_ITEM(a->names, i)) ||
                         cxp_mix_hash(&sum, a->items[a->count + i])))
            return -1;
    for (Py_ssize_t i = 0; a->typed && i < a->count + a->named; i++)
        if (CXP_UNLIKELY(cxp_mix_hash(&sum, (PyObject *)Py_TYPE(a->items[i]))))
            return -1;
    sum += (uint64_t)cxp_key_length(a) ^ (CXP_TUPLE_SEED ^ UINT64_C(3527539));
    *tag = cxp_lru_tag(sum == UINT64_MAX ? UINT64_C(1546275796) : sum);
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

/* Calls made by C alone have no frame that would count their depth. */
static PyObject *
cxp_call_counted(PyObject *function, PyObject *const *args, size_t nargsf,
                 PyObject *names)
{
    if (Py_EnterRecursiveCall(" in a cached function"))
        return NULL;
    PyObject *result = PyObject_Vectorcall(function, args, nargsf, names);
    Py_LeaveRecursiveCall();
    return result;
}

/* The time of the timer that was given: -1: it raised. Without one nothing is done:
 * the clock can be read later, under the lock. Not locked. */
static inline int
cxp_ask_timer(const cxp_cached *c, double *now)
{
    if (CXP_LIKELY(!c->timer))
        return 0;
    PyObject *timer = Py_NewRef(c->timer);
    *now = c->clock(timer);
    Py_DECREF(timer);
    return *now == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Whether e, which is a hit, is due. The exact clock takes as long as the rest of a
 * hit; one that the kernel sets at each of its ticks is near enough for most. */
static inline int
cxp_is_over(const cxp_cached *c, uint32_t e, double now)
{
    const cxp_lru_table *t = c->table;
    if (!t->due_count || !t->place[e])
        return 0;
    if (!c->timer) {
#ifdef CLOCK_MONOTONIC_COARSE
        struct timespec tick;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
        if (CXP_LIKELY(t->due[e] > (double)tick.tv_sec + 2))
            return 0;
#endif
        now = cxp_monotonic();
    }
    return t->due[e] <= now;
}

/* Move e, which is due, to dead, which has room. Locked. */
static inline void
cxp_expire(const cxp_cached *c, uint32_t e, cxp_dead *dead)
{
    cxp_bury(c->table, e, CXP_EXPIRED, dead);
    c->evicted[CXP_EXPIRED]++;
}

/* An entry for a key that is not there; it holds what was given. 0: no memory. Locked.
 */
static inline uint32_t
cxp_admit(const cxp_cached *c, PyObject *key, PyObject *value, uint32_t tag, double now,
          cxp_dead *dead)
{
    cxp_lru_table *t = c->table;
    uint32_t e;
    if (t->used && t->used >= *c->capacity) {
        int reason = CXP_EXPIRED;
        e = cxp_lru_first_due(t, now);
        if (CXP_LIKELY(!e)) {
            reason = CXP_CAPACITY;
            e = cxp_cache_victim(t);
        }
        PyObject *old_key = t->entries[e].key, *old_value = t->entries[e].value;
        if (CXP_UNLIKELY(cxp_cache_replace(t, e, key, value, tag)))
            return 0;
        cxp_dead_add(dead, old_key, old_value, reason);
        c->evicted[reason]++;
    } else if (CXP_UNLIKELY(!(e = cxp_cache_insert(t, key, value, tag))))
        return 0;
    Py_INCREF(key);
    Py_INCREF(value);
    return e;
}

enum { CXP_DUE_PER_KEEP = 2 }; /* as LRUCache's stores */

/* Keep a result; of a: NULL for a lone key. Where an entry came in the meantime, it
 * stays if c->first_stays. Not inlined: a caller may be under way in many depths. */
static __attribute__((noinline)) int
cxp_keep(cxp_cached *c, PyObject *cache, PyObject *key, const cxp_arguments *a,
         uint32_t tag, PyObject *value)
{
    PyObject *replaced = NULL;
    cxp_lru_table *t = c->table;
    cxp_dead
        dead; /* its first four places are enough: two due, the same key, a victim */
    double now = -Py_HUGE_VAL;
    uint32_t e;
    int result = 0;
    if (c->ttl > 0) {
        if (cxp_ask_timer(c, &now))
            return -1;
        if (!c->timer)
            now = cxp_monotonic();
    }
    cxp_dead_init(&dead);
    /* On the cache: against any other call that uses it. */
    CXP_BEGIN(cache);
    for (int i = 0; i < CXP_DUE_PER_KEEP && (e = cxp_lru_first_due(t, now)); i++)
        cxp_expire(c, e, &dead);
    e = a ? cxp_find_call(t, a, tag) : cxp_find(t, key, tag);
    if (CXP_UNLIKELY(e == CXP_ERROR))
        result = -1;
    else if (CXP_UNLIKELY(c->ttl > 0 && cxp_lru_use_due(t)))
        result = -2;
    else {
        if (CXP_UNLIKELY(e && cxp_lru_is_due(t, e, now))) {
            cxp_expire(c, e, &dead);
            e = 0;
        }
        if (CXP_LIKELY(!e)) {
            e = cxp_admit(c, key, value, tag, now, &dead);
            result = e ? 0 : -2;
        } else if (c->first_stays)
            e = 0;
        else {
            replaced = t->entries[e].value;
            t->entries[e].value = Py_NewRef(value);
            cxp_cache_use(t, e);
        }
        if (CXP_LIKELY(e)) {
            cxp_track_for(cache, c->tracked, key, value);
            if (c->ttl > 0)
                cxp_lru_set_due(t, e, now + c->ttl);
        }
    }
    CXP_END();
    Py_XDECREF(replaced);
    cxp_dead_free(&dead);
    if (CXP_UNLIKELY(result == -2))
        PyErr_NoMemory();
    return result;
}

/* Call the function and keep what it returns. */
static PyObject *__attribute__((noinline))
cxp_miss(cxp_cached *c, const cxp_arguments *a, uint32_t tag, PyObject *const *args,
         size_t nargsf, PyObject *names)
{
    PyObject *function = Py_NewRef(c->function), *cache = Py_NewRef(c->cache);
    PyObject *result = cxp_call_counted(function, args, nargsf, names);
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

/* With getsizeof or single_flight a miss is LRUCache's own to handle, and to count. */
static PyObject *cxp_through_cache(PyObject *self, PyObject *const *args, size_t nargsf,
                                   PyObject *names);

static inline __attribute__((always_inline)) PyObject *
cxp_call_any(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names,
             int expires, int extras)
{
    cxp_cached *c = &((cxp_cached_object *)self)->c;
    cxp_arguments a = cxp_arguments_of(c, args, nargsf, names);
    cxp_lru_table *t = c->table;
    PyObject *value = NULL, *old_key = NULL, *old_value = NULL;
    double now = -Py_HUGE_VAL;
    uint32_t tag, e;
    int lone = expires && cxp_is_lone(&a);
    if (CXP_UNLIKELY(lone ? cxp_key_tag(a.items[0], &tag)
                          : cxp_arguments_tag(&a, &tag)))
        return NULL;
    if (expires && cxp_lru_timed(t) && CXP_UNLIKELY(cxp_ask_timer(c, &now)))
        return NULL;
    /* On the cache: against any other call that uses it. */
    CXP_BEGIN(c->cache);
    e = lone ? cxp_find(t, a.items[0], tag) : cxp_find_call(t, &a, tag);
    if (expires && e && e != CXP_ERROR && CXP_UNLIKELY(cxp_is_over(c, e, now))) {
        old_key = t->entries[e].key;
        old_value = t->entries[e].value;
        cxp_cache_remove(t, e);
        c->evicted[CXP_EXPIRED]++;
        e = 0;
    }
    if (CXP_LIKELY(e && e != CXP_ERROR)) {
        value = t->entries[e].value;
        Py_INCREF(value);
        cxp_cache_use(t, e);
        t->hits++;
    } else if (!e && !extras)
        t->misses++;
    CXP_END();
    if (expires) {
        Py_XDECREF(old_key);
        Py_XDECREF(old_value);
    }
    if (CXP_UNLIKELY(!value && !e))
        return extras ? cxp_through_cache(self, args, nargsf, names)
                      : cxp_miss(c, &a, tag, args, nargsf, names);
    return value;
}

static PyObject *
cxp_call_many(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    return cxp_call_any(self, args, nargsf, names, 0, 0);
}

/* With ttl. */
static PyObject *
cxp_call_timed(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    return cxp_call_any(self, args, nargsf, names, 1, 0);
}

static PyObject *
cxp_call_cached(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    cxp_cached *c = &((cxp_cached_object *)self)->c;
    Py_ssize_t skip = c->method;
    if (PyVectorcall_NARGS(nargsf) != 1 + skip || names || c->typed)
        return cxp_call_many(self, args, nargsf, names);
    PyObject *key = args[skip];
    if (!PyUnicode_CheckExact(key) && !PyLong_CheckExact(key))
        return cxp_call_many(self, args, nargsf, names);
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
    return cxp_call_counted(c->function, args, nargsf, names);
}

static PyObject *
cxp_through_cache(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    cxp_cached *c = &((cxp_cached_object *)self)->c;
    cxp_arguments a = cxp_arguments_of(c, args, nargsf, names);
    PyObject *key = c->key ? cxp_call_counted(c->key, a.items, (size_t)a.count, names)
                           : cxp_key_of(&a);
    if (!key)
        return NULL;
    PyObject *value = c->extras(self, key, (PyObject **)(uintptr_t)args, nargsf, names);
    Py_DECREF(key);
    return value;
}

/* With any of key, getsizeof, single_flight. */
static PyObject *
cxp_call_extras(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (((cxp_cached_object *)self)->c.key)
        return cxp_through_cache(self, args, nargsf, names);
    return cxp_call_any(self, args, nargsf, names, 1, 1);
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
    return cxp_call_counted(function, args, nargsf, names);
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
    cxp_cache_detach(t, &old);
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
