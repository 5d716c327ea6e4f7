/* What LRUCache needs of Python.h: the comparison of keys, the collector's slots, and
 * the two operations that have to be as fast as a dict's.
 *
 * Foreign code (a key's __eq__, a __del__) may run in the comparison only, and
 * cxp_find() looks again when the table has changed under it. So whoever calls it
 * inside a critical section may use the entry until the next Python call; from there
 * to the end of the section nothing here allocates or frees a Python object. What is
 * taken out is kept in cxp_dead and dies outside.
 */
#ifndef CTXPOOL_LRU_CACHE_IMPL_H
#define CTXPOOL_LRU_CACHE_IMPL_H

#include <Python.h>
#include <ctxpool/cache_policy.h>
#include <ctxpool/lru_table.h>
#include <time.h>

#include "critical.h"
#include "refcount.h"

#define CXP_ERROR UINT32_MAX /* instead of an entry number: an exception is set */

#ifdef Py_GIL_DISABLED
#define CXP_STR_HASH(s) __atomic_load_n(&((PyASCIIObject *)(s))->hash, __ATOMIC_RELAXED)
#else
#define CXP_STR_HASH(s) (((PyASCIIObject *)(s))->hash)
#endif

#define CXP_LIKELY(x)   __builtin_expect(!!(x), 1)
#define CXP_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- Keys ---- */

/* Whether an exact int is of one digit, and which number it is. */
static inline int
cxp_is_small(PyObject *number, Py_ssize_t *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)number))
        return 0;
    *value = PyUnstable_Long_CompactValue((PyLongObject *)number);
#else
    Py_ssize_t size = Py_SIZE(number); /* the number of digits, with its sign */
    if (size < -1 || size > 1)
        return 0;
    *value = size * (Py_ssize_t)((PyLongObject *)number)->ob_digit[0];
#endif
    return 1;
}

static inline int
cxp_key_tag(PyObject *key, uint32_t *tag)
{
    Py_hash_t hash = -1;
    if (CXP_LIKELY(PyUnicode_CheckExact(key)))
        hash = CXP_STR_HASH(key);
    else if (PyLong_CheckExact(key)) {
        Py_ssize_t value; /* its own hash, but for -1, which goes the long way */
        if (cxp_is_small(key, &value))
            hash = value;
    }
    if (hash == -1 && (hash = PyObject_Hash(key)) == -1)
        return -1;
    *tag = cxp_lru_tag((uint64_t)hash);
    return 0;
}

/* 1, 0, or -1: only Python can tell. Of two different objects. */
static inline int
cxp_same_atom(PyObject *a, PyObject *b)
{
    PyTypeObject *type = Py_TYPE(a);
    if (type != Py_TYPE(b))
        return -1;
    if (type == &PyUnicode_Type) {
        Py_ssize_t length = PyUnicode_GET_LENGTH(a);
        return length == PyUnicode_GET_LENGTH(b) &&
               PyUnicode_KIND(a) == PyUnicode_KIND(b) &&
               !memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b),
                       (size_t)length * PyUnicode_KIND(a));
    }
    if (type == &PyLong_Type) {
        Py_ssize_t first, second;
        if (cxp_is_small(a, &first) && cxp_is_small(b, &second))
            return first == second;
    }
    if (type == &PyLong_Type || type == &PyBytes_Type) /* run no foreign code */
        return type->tp_richcompare(a, b, Py_EQ) == Py_True;
    return -1;
}

/* cxp_find() from the entry e in slot `at`, which is there but is not the key itself.
 */
static uint32_t __attribute__((noinline))
cxp_find_on(cxp_lru_table *t, PyObject *key, uint32_t tag, uint32_t at, uint32_t e)
{
    while (e) {
        PyObject *candidate = t->entries[e].key;
        if (candidate == key)
            return e;
        int same = cxp_same_atom(candidate, key);
        if (same < 0) {
            uint64_t version = t->version;
            Py_INCREF(candidate);
            same = PyObject_RichCompareBool(candidate, key, Py_EQ);
            Py_DECREF(candidate);
            if (same < 0)
                return CXP_ERROR;
            if (version != t->version) {
                e = cxp_lru_first(t, tag, &at);
                continue;
            }
        }
        if (same)
            return e;
        e = cxp_lru_next(t, tag, &at);
    }
    return 0;
}

/* The entry of key; 0: none; CXP_ERROR. The caller holds the lock, which a comparison
 * may let go for a while. */
static inline __attribute__((always_inline)) uint32_t
cxp_find(cxp_lru_table *t, PyObject *key, uint32_t tag)
{
    uint32_t at, e = cxp_lru_first(t, tag, &at);
    if (CXP_LIKELY(!e || t->entries[e].key == (void *)key))
        return e;
    return cxp_find_on(t, key, tag, at, e);
}

/* ---- What was taken out ---- */

enum { CXP_CAPACITY, CXP_EXPIRED, CXP_RESIZE };

typedef struct {
    PyObject *key, *value;
    int reason;
} cxp_dead_entry;

typedef struct {
    size_t count, room;
    cxp_dead_entry *items;
    cxp_dead_entry first[4];
} cxp_dead;

static inline void
cxp_dead_init(cxp_dead *dead)
{
    dead->count = 0;
    dead->room = 4;
    dead->items = dead->first;
}

/* Take over two references. -1: no memory, and nothing was taken. */
static inline int
cxp_dead_add(cxp_dead *dead, PyObject *key, PyObject *value, int reason)
{
    if (dead->count == dead->room) {
        size_t room = dead->room * 2;
        cxp_dead_entry *items = malloc(room * sizeof *items);
        if (!items)
            return -1;
        memcpy(items, dead->items, dead->count * sizeof *items);
        if (dead->items != dead->first)
            free(dead->items);
        dead->items = items;
        dead->room = room;
    }
    dead->items[dead->count++] = (cxp_dead_entry){key, value, reason};
    return 0;
}

static inline void
cxp_dead_free(cxp_dead *dead)
{
    for (size_t i = 0; i < dead->count; i++) {
        Py_XDECREF(dead->items[i].key);
        Py_XDECREF(dead->items[i].value);
    }
    if (dead->items != dead->first)
        free(dead->items);
    cxp_dead_init(dead);
}

/* Move e from the table to dead. -1: no memory, and it is still there. */
static inline int
cxp_bury(cxp_lru_table *t, uint32_t e, int reason, cxp_dead *dead)
{
    if (cxp_dead_add(dead, t->entries[e].key, t->entries[e].value, reason))
        return -1;
    cxp_cache_remove(t, e);
    return 0;
}

/* Drop all that a detached table holds. */
static inline void
cxp_drop_table(cxp_lru_table *old)
{
    for (uint32_t e = 1; e <= old->high; e++) {
        if (!old->entries[e].key)
            continue;
        Py_DECREF((PyObject *)old->entries[e].key);
        Py_DECREF((PyObject *)old->entries[e].value);
    }
    cxp_lru_fini(old);
}

/* ---- Fast paths ---- */

/* A new reference to the value of key, which becomes the most recently used; NULL
 * without an exception: a miss. Only while no entry has a due time. */
static inline PyObject *
cxp_hit(PyObject *self, cxp_lru_table *t, PyObject *key)
{
    uint32_t tag, e;
    PyObject *value = NULL;
    if (CXP_UNLIKELY(cxp_key_tag(key, &tag)))
        return NULL;
    /* On self: against any other call on this cache. */
    CXP_BEGIN(self);
    e = cxp_find(t, key, tag);
    if (CXP_LIKELY(e && e != CXP_ERROR)) {
        value = t->entries[e].value;
        CXP_INCREF(value);
        cxp_cache_use(t, e);
        t->hits++;
    } else if (!e)
        t->misses++;
    CXP_END();
    return value;
}

/* Whether key is there: 1, 0, or -1 with an exception. As cxp_hit(). */
static inline int
cxp_has(PyObject *self, cxp_lru_table *t, PyObject *key)
{
    uint32_t tag, e;
    if (CXP_UNLIKELY(cxp_key_tag(key, &tag)))
        return -1;
    /* On self: against any other call on this cache. */
    CXP_BEGIN(self);
    e = cxp_find(t, key, tag);
    CXP_END();
    return e == CXP_ERROR ? -1 : e != 0;
}

static inline int
cxp_is_atom(PyObject *object)
{
    if (CXP_LIKELY(!PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HAVE_GC)))
        return 1;
    if (!PyTuple_CheckExact(object))
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) {
        PyObject *item = PyTuple_GET_ITEM(object, i);
        if (!item || PyType_HasFeature(Py_TYPE(item), Py_TPFLAGS_HAVE_GC))
            return 0;
    }
    return 1;
}

static inline void
cxp_track(PyObject *self, int *tracked)
{
    if (!*tracked) {
        *tracked = 1;
        PyObject_GC_Track(self);
    }
}

static inline void
cxp_untrack(PyObject *self, int *tracked)
{
    if (*tracked) {
        *tracked = 0;
        PyObject_GC_UnTrack(self);
    }
}

/* Whether self is an instance of a native class itself, without attributes. */
static inline int
cxp_is_bare(PyObject *self)
{
    return !PyType_HasFeature(Py_TYPE(self), Py_TPFLAGS_HEAPTYPE);
}

/* The collector has to see self from now on, unless both are atoms. Locked. */
static inline void
cxp_track_for(PyObject *self, int *tracked, PyObject *key, PyObject *value)
{
    if (!*tracked && !(cxp_is_atom(key) && cxp_is_atom(value)))
        cxp_track(self, tracked);
}

enum { CXP_STORED, CXP_EVICTED, CXP_LONG_WAY };

/* Store, where each entry counts 1 and none has a due time. CXP_EVICTED: *old_key and
 * *old_value went, and are the caller's. CXP_LONG_WAY: not done. -1: an exception. */
static inline int
cxp_store(PyObject *self, cxp_lru_table *t, const uint32_t *capacity, int *tracked,
          uint64_t *evicted, PyObject *key, PyObject *value, PyObject **old_key,
          PyObject **old_value)
{
    uint32_t tag, e;
    int result = CXP_STORED;
    PyObject *replaced = NULL;
    if (CXP_UNLIKELY(cxp_key_tag(key, &tag)))
        return -1;
    /* On self: against any other call on this cache. */
    CXP_BEGIN(self);
    e = cxp_find(t, key, tag);
    if (CXP_UNLIKELY(e == CXP_ERROR))
        result = -1;
    else if (CXP_UNLIKELY(t->due_count || !*capacity))
        result = CXP_LONG_WAY; /* since the caller looked */
    else if (e) {
        cxp_track_for(self, tracked, value, value);
        replaced = t->entries[e].value;
        CXP_INCREF(value);
        t->entries[e].value = value;
        if (CXP_UNLIKELY(t->policy))
            cxp_cache_use_aside(t, e);
        else
            cxp_lru_promote(t, e);
    } else if (CXP_LIKELY(t->used >= *capacity)) {
        cxp_cache_welcome(t, tag);
        e = cxp_cache_victim(t);
        *old_key = t->entries[e].key;
        *old_value = t->entries[e].value;
        if (CXP_LIKELY(!cxp_cache_replace(t, e, key, value, tag))) {
            *evicted += 1;
            result = CXP_EVICTED;
            cxp_cache_expect(t);
        } else
            result = -2;
    } else if (CXP_UNLIKELY(!cxp_cache_insert(t, key, value, tag)))
        result = -2;
    if (!replaced && CXP_LIKELY(result == CXP_STORED || result == CXP_EVICTED)) {
        CXP_INCREF(key);
        CXP_INCREF(value);
        cxp_track_for(self, tracked, key, value);
    }
    CXP_END();
    if (replaced)
        Py_DECREF(replaced);
    if (CXP_UNLIKELY(result == -2)) {
        PyErr_NoMemory();
        return -1;
    }
    return result;
}

/* ---- References, as Cython is to see them ---- */

static inline PyObject *
cxp_given(PyObject *reference)
{
    return reference;
}

static inline PyObject *
cxp_shared(PyObject *object)
{
    return Py_NewRef(object);
}

/* ---- A copy of all entries, to be looked at without the lock ---- */

typedef struct {
    PyObject *key, *value;
    double size, due;
    uint32_t rank; /* in the order of use, 0 the least recent; where asked for */
    uint32_t mark; /* cxp_policy_mark() */
} cxp_record;

static void
cxp_free_records(cxp_record *records, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(records[i].key);
        Py_XDECREF(records[i].value);
    }
    free(records);
}

/* In the order of insertion; or, if by_use, in that of use. NULL: an exception. */
static cxp_record *
cxp_records(PyObject *self, cxp_lru_table *t, int by_use, Py_ssize_t *count)
{
    cxp_record *records = NULL;
    /* On self: against any other call on this cache. Nothing here runs Python. */
    CXP_BEGIN(self);
    size_t n = t->used;
    uint32_t *order = cxp_lru_in_order(t);
    uint32_t *rank = calloc((size_t)t->high + 1, sizeof *rank);
    if (order && rank)
        records = malloc((n + 1) * sizeof *records);
    if (records) {
        uint32_t e = cxp_lru_oldest(t);
        for (uint32_t i = 0; e; e = cxp_lru_newer(t, e))
            rank[e] = i++;
        for (size_t i = 0; i < n; i++) {
            e = order[i];
            cxp_record *record = &records[by_use ? rank[e] : i];
            record->key = Py_NewRef((PyObject *)t->entries[e].key);
            record->value = Py_NewRef((PyObject *)t->entries[e].value);
            record->size = t->sizes ? t->sizes[e] : 1;
            record->due = t->due_count && t->place[e] ? t->due[e] : Py_HUGE_VAL;
            record->rank = rank[e];
            record->mark = t->policy ? cxp_policy_mark(t->policy, e) : 0;
        }
        *count = (Py_ssize_t)n;
    }
    free(order);
    free(rank);
    CXP_END();
    if (!records)
        PyErr_NoMemory();
    return records;
}

/* The keys, or the pairs, as a list. */
static PyObject *
cxp_list_records(cxp_record *records, Py_ssize_t count, int pairs)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *item;
        if (pairs)
            item = PyTuple_Pack(2, records[i].key, records[i].value);
        else
            item = Py_NewRef(records[i].key);
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, item);
    }
    return list;
}

/* ---- The clock of time.monotonic() ---- */

static inline double
cxp_monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- The child of a fork ---- */

#ifdef Py_GIL_DISABLED
enum { CXP_FREE_THREADED = 1 };

/* A thread that the fork left behind may have been inside a call: then nobody will ever
 * unlock self, and its table may be half changed. It starts again empty. To tell such a
 * lock from our own (a key's __eq__ may fork) we look while we hold none. */
static void
cxp_after_fork(PyObject *self, cxp_lru_table *t)
{
    Py_BEGIN_ALLOW_THREADS if (self->ob_mutex._bits & 1)
    {
        uint64_t version = t->version;
        uint32_t limit = t->limit;
        struct cxp_policy *policy = t->policy;
        cxp_lru_init(t);
        if (policy)
            cxp_policy_init(policy, policy->kind);
        t->policy = policy;
        t->version = version + 1;
        t->limit = limit;
        self->ob_mutex._bits = 0;
    }
    Py_END_ALLOW_THREADS
}
#else
enum { CXP_FREE_THREADED = 0 };

static void
cxp_after_fork(PyObject *self, cxp_lru_table *t)
{
    (void)self, (void)t;
}
#endif

/* ---- Type slots that Cython does not make ---- */

static Py_ssize_t cxp_table_at; /* offset of the cxp_lru_table in the object */
static traverseproc cxp_base_traverse;
static inquiry cxp_base_clear;
static destructor cxp_base_dealloc;

static cxp_lru_table *
cxp_table_of(PyObject *self)
{
    return (cxp_lru_table *)(void *)((char *)self + cxp_table_at);
}

/* Other threads stand still: on free-threaded builds the collector stops the world,
 * and no thread stops inside a change of the table. */
static int
cxp_traverse(PyObject *self, visitproc visit, void *arg)
{
    cxp_lru_table *t = cxp_table_of(self);
    for (uint32_t e = 1; e <= t->high; e++) {
        Py_VISIT((PyObject *)t->entries[e].key);
        if (t->entries[e].key)
            Py_VISIT((PyObject *)t->entries[e].value);
    }
    return cxp_base_traverse(self, visit, arg);
}

static void
cxp_drop_all(PyObject *self)
{
    cxp_lru_table old;
    CXP_BEGIN(self);
    cxp_cache_detach(cxp_table_of(self), &old);
    CXP_END();
    cxp_drop_table(&old);
}

static int
cxp_clear(PyObject *self)
{
    cxp_drop_all(self);
    return cxp_base_clear(self);
}

/* Weak references first: a value's __del__ must not bring the cache back to life. The
 * trashcan: a chain of caches in caches may be long. */
static void
cxp_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(
        self, cxp_dealloc) if (*(PyObject **)(void *)((char *)self +
                                                      Py_TYPE(self)->tp_weaklistoffset))
        PyObject_ClearWeakRefs(self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    cxp_lru_table old;
    cxp_cache_detach(cxp_table_of(self), &old);
    cxp_drop_table(&old);
    PyErr_Restore(type, value, traceback);
    cxp_base_dealloc(self);
    Py_TRASHCAN_END
}

/* ---- c[k] and get(), without Cython's part: 2 to 3 ns each ---- */

static Py_ssize_t cxp_hooks_at; /* offset of the unsigned int in the object */
static unsigned int cxp_get_hooks, cxp_missing_hook;
static _PyCFunctionFastWithKeywords cxp_slow_get;
static binaryfunc cxp_slow_subscript;

static inline unsigned int
cxp_hooks_of(PyObject *self)
{
    return *(unsigned int *)(void *)((char *)self + cxp_hooks_at);
}

static PyObject *
cxp_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    cxp_lru_table *t = cxp_table_of(self);
    if (CXP_UNLIKELY(names || count < 1 || count > 2 || cxp_lru_timed(t) ||
                     cxp_hooks_of(self) & cxp_get_hooks))
        return cxp_slow_get(self, args, count, names);
    PyObject *value = cxp_hit(self, t, args[0]);
    if (CXP_LIKELY(value) || PyErr_Occurred())
        return value;
    return Py_NewRef(count == 2 ? args[1] : Py_None);
}

static PyObject *
cxp_subscript(PyObject *self, PyObject *key)
{
    cxp_lru_table *t = cxp_table_of(self);
    if (CXP_UNLIKELY(cxp_lru_timed(t) || cxp_hooks_of(self) & cxp_missing_hook))
        return cxp_slow_subscript(self, key);
    PyObject *value = cxp_hit(self, t, key);
    if (CXP_UNLIKELY(!value) && !PyErr_Occurred()) {
        PyObject *wrapped = PyTuple_Pack(1, key); /* a tuple would be its arguments */
        if (wrapped) {
            PyErr_SetObject(PyExc_KeyError, wrapped);
            Py_DECREF(wrapped);
        }
    }
    return value;
}

static int
cxp_take_reads(PyTypeObject *type, PyObject *specimen, unsigned int *hooks,
               unsigned int get_hooks, unsigned int missing_hook)
{
    PyMethodDescrObject *descr =
        (PyMethodDescrObject *)PyDict_GetItemString(type->tp_dict, "get");
    if (!descr || Py_TYPE(descr) != &PyMethodDescr_Type ||
        descr->d_method->ml_flags != (METH_FASTCALL | METH_KEYWORDS)) {
        PyErr_SetString(PyExc_SystemError, "LRUCache.get is not what it was made as");
        return -1;
    }
    cxp_hooks_at = (char *)hooks - (char *)specimen;
    cxp_get_hooks = get_hooks;
    cxp_missing_hook = missing_hook;
    cxp_slow_get =
        (_PyCFunctionFastWithKeywords)(void (*)(void))descr->d_method->ml_meth;
    descr->d_method->ml_meth = (PyCFunction)(void (*)(void))cxp_get;
    cxp_slow_subscript = type->tp_as_mapping->mp_subscript;
    type->tp_as_mapping->mp_subscript = cxp_subscript;
    return 0;
}

static void
cxp_take_slots(PyTypeObject *type, PyObject *specimen, cxp_lru_table *table)
{
    cxp_table_at = (char *)table - (char *)specimen;
    cxp_base_traverse = type->tp_traverse;
    cxp_base_clear = type->tp_clear;
    cxp_base_dealloc = type->tp_dealloc;
    type->tp_traverse = cxp_traverse;
    type->tp_clear = cxp_clear;
    type->tp_dealloc = cxp_dealloc;
    /* A mapping only: no sequence protocol, and `match` takes it for one. */
    type->tp_as_sequence->sq_item = NULL;
    type->tp_flags |= Py_TPFLAGS_MAPPING;
    PyType_Modified(type);
}

#endif
