/* The sampler of alloc_sampler.h behind CPython's allocators, and the stack of Python
 * frames at a sample.
 *
 * The hooks stand in front of all three domains. They look at nothing that they are
 * given as context: while another thread changes the allocators, which CPython does
 * without a lock, it may see half of the old record and half of the new one.
 *
 * A sample is taken inside malloc: no Python code runs there, nothing of Python's is
 * allocated, and no reference is given up. So frames are read as the interpreter keeps
 * them (as tracemalloc does); their code objects are kept until the end.
 */
#ifndef CTXPOOL_NATIVE_ALLOCATION_SAMPLER_IMPL_H
#define CTXPOOL_NATIVE_ALLOCATION_SAMPLER_IMPL_H

#include <Python.h>

#include <pthread.h>
#include <stdlib.h>

#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include "internal/pycore_frame.h"
#undef Py_BUILD_CORE

#include "ctxpool/alloc_sampler.h"

enum { CXP_MOST_DEPTH = 128 };
enum { CXP_OPERATION_AT = -2 }; /* a place that is an operation's name, not code */

static cxp_alloc_sampler cxp_sampler;
/* Read at each allocation: the quickest model there is, which a library that is loaded
 * late may use for so little. */
static _Thread_local cxp_alloc_thread cxp_mine
    __attribute__((tls_model("initial-exec")));
static _Thread_local int cxp_inside;

static PyMemAllocatorEx cxp_inner[3];
static int cxp_hooked[3];
static size_t cxp_counted[3]; /* what is larger, the inner one asks of the raw domain */
static int cxp_depth;
static PyObject *cxp_operation; /* a ContextVar */
static uint64_t cxp_raw_calls;

/* ---- The stack ---- */

/* This thread's state where it may be looked at: it holds what guards Python's objects,
 * and belongs to the main interpreter, whose objects the samples keep. */
static PyThreadState *
cxp_attached(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyThreadState *ts = PyThreadState_GetUnchecked();
    int ending = Py_IsFinalizing();
#else
    PyThreadState *ts = PyGILState_GetThisThreadState();
    int ending = _Py_IsFinalizing();
    if (ts != _PyThreadState_UncheckedGet()) /* before 3.12 that is any thread's */
        ts = NULL;
#endif
    return ts && !ending && ts->interp == PyInterpreterState_Main() ? ts : NULL;
}

static int
cxp_stack(PyThreadState *ts, PyObject **codes, int32_t *places)
{
#if PY_VERSION_HEX >= 0x030D0000
    struct _PyInterpreterFrame *frame = ts->current_frame;
#else
    struct _PyInterpreterFrame *frame = ts->cframe ? ts->cframe->current_frame : NULL;
#endif
    int n = 0;
    for (; frame && n < cxp_depth; frame = frame->previous) {
        if (_PyFrame_IsIncomplete(frame))
            continue;
#if PY_VERSION_HEX >= 0x030D0000
        codes[n] = (PyObject *)_PyFrame_GetCode(frame);
#else
        codes[n] = (PyObject *)frame->f_code;
#endif
        places[n++] = (int32_t)_PyInterpreterFrame_LASTI(frame);
    }
    return n;
}

static uint32_t
cxp_place(uint32_t parent, PyObject *where, int32_t at)
{
    int made;
    uint32_t node = cxp_alloc_node(&cxp_sampler, parent, where, at, &made);
    if (made)
        Py_INCREF(where);
    return node;
}

static void __attribute__((noinline))
cxp_sample(void *p, size_t n)
{
    PyObject *codes[CXP_MOST_DEPTH], *operation = NULL;
    int32_t places[CXP_MOST_DEPTH];
    int depth = 0;

    if (!p || cxp_inside)
        return;
    cxp_inside = 1;
    PyThreadState *ts = cxp_attached();
    if (ts) {
        depth = cxp_stack(ts, codes, places);
        if (PyContextVar_Get(cxp_operation, NULL, &operation))
            PyErr_Clear();
    }
    cxp_alloc_lock(&cxp_sampler);
    if (cxp_sampler.on) {
        uint32_t node = CXP_ALLOC_ROOT;
        if (operation && PyUnicode_CheckExact(operation))
            node = cxp_place(node, operation, CXP_OPERATION_AT);
        while (depth--)
            node = cxp_place(node, codes[depth], places[depth]);
        cxp_alloc_note(&cxp_sampler, p, n, node);
    }
    cxp_alloc_unlock(&cxp_sampler);
    Py_XDECREF(operation); /* its context holds it, too */
    cxp_inside = 0;
}

/* ---- The hooks ---- */

static inline void
cxp_allocated(int domain, void *p, size_t n)
{
    if (n <= cxp_counted[domain] && cxp_alloc_due(&cxp_sampler, &cxp_mine, n))
        cxp_sample(p, n);
}

static inline void *
cxp_hook_realloc(int domain, void *q, size_t n)
{
    cxp_alloc_sample was;
    int known = q && cxp_alloc_maybe(&cxp_sampler, q) &&
                cxp_alloc_forget(&cxp_sampler, q, &was);
    void *p = cxp_inner[domain].realloc(cxp_inner[domain].ctx, q, n);
    if (!p && known)
        cxp_alloc_again(&cxp_sampler, &was);
    if (p)
        cxp_allocated(domain, p, n);
    return p;
}

static inline void
cxp_hook_free(int domain, void *p)
{
    cxp_alloc_sample was;
    if (p && cxp_alloc_maybe(&cxp_sampler, p))
        cxp_alloc_forget(&cxp_sampler, p, &was);
    cxp_inner[domain].free(cxp_inner[domain].ctx, p);
}

#define CXP_HOOKS(name, domain)                                                        \
    static void *cxp_malloc_##name(void *ctx, size_t n)                                \
    {                                                                                  \
        (void)ctx;                                                                     \
        void *p = cxp_inner[domain].malloc(cxp_inner[domain].ctx, n);                  \
        cxp_allocated(domain, p, n);                                                   \
        return p;                                                                      \
    }                                                                                  \
    static void *cxp_calloc_##name(void *ctx, size_t count, size_t n)                  \
    {                                                                                  \
        (void)ctx;                                                                     \
        void *p = cxp_inner[domain].calloc(cxp_inner[domain].ctx, count, n);           \
        cxp_allocated(domain, p, count * n);                                           \
        return p;                                                                      \
    }                                                                                  \
    static void *cxp_realloc_##name(void *ctx, void *p, size_t n)                      \
    {                                                                                  \
        (void)ctx;                                                                     \
        return cxp_hook_realloc(domain, p, n);                                         \
    }                                                                                  \
    static void cxp_free_##name(void *ctx, void *p)                                    \
    {                                                                                  \
        (void)ctx;                                                                     \
        cxp_hook_free(domain, p);                                                      \
    }

CXP_HOOKS(raw, PYMEM_DOMAIN_RAW)
CXP_HOOKS(mem, PYMEM_DOMAIN_MEM)
CXP_HOOKS(obj, PYMEM_DOMAIN_OBJ)

static PyMemAllocatorEx cxp_hooks[3] = {
    {NULL, cxp_malloc_raw, cxp_calloc_raw, cxp_realloc_raw, cxp_free_raw},
    {NULL, cxp_malloc_mem, cxp_calloc_mem, cxp_realloc_mem, cxp_free_mem},
    {NULL, cxp_malloc_obj, cxp_calloc_obj, cxp_realloc_obj, cxp_free_obj},
};

static int
cxp_is_first(int domain)
{
    PyMemAllocatorEx now;
    PyMem_GetAllocator((PyMemAllocatorDomain)domain, &now);
    return now.malloc == cxp_hooks[domain].malloc;
}

/* Whether our hook is called: by CPython, or by another that stands in front of it. Who
 * was there before us takes us out with himself, and tells nobody. */
static int
cxp_is_reached(int domain)
{
    static void *(*const ask[3])(size_t) = {PyMem_RawMalloc, PyMem_Malloc,
                                            PyObject_Malloc};
    static void (*const give_back[3])(void *) = {PyMem_RawFree, PyMem_Free,
                                                 PyObject_Free};
    cxp_alloc_thread before = cxp_mine;
    cxp_inside++;                  /* no sample */
    cxp_mine.left = INT64_MIN / 2; /* so that any call looks up, and writes it anew */
    cxp_mine.more = 0;
    give_back[domain](ask[domain](1));
    int reached = cxp_mine.left >= 0;
    cxp_mine = before;
    cxp_inside--;
    return reached;
}

/* A stand-in for the raw domain's own, to see whether the others ask it. */
static void *
cxp_malloc_seen(void *ctx, size_t n)
{
    (void)ctx;
    __atomic_add_fetch(&cxp_raw_calls, 1, __ATOMIC_RELAXED);
    return cxp_inner[PYMEM_DOMAIN_RAW].malloc(cxp_inner[PYMEM_DOMAIN_RAW].ctx, n);
}

/* pymalloc asks the raw domain for what is larger than 512 bytes: let it be counted
 * there, once. Other allocators may not; so try. */
static void
cxp_find_counted(void)
{
    PyMemAllocatorEx seen = cxp_inner[PYMEM_DOMAIN_RAW];
    seen.malloc = cxp_malloc_seen;
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &seen);
    cxp_counted[PYMEM_DOMAIN_RAW] = SIZE_MAX;
    for (int domain = PYMEM_DOMAIN_MEM; domain <= PYMEM_DOMAIN_OBJ; domain++) {
        const PyMemAllocatorEx *inner = &cxp_inner[domain];
        uint64_t before = __atomic_load_n(&cxp_raw_calls, __ATOMIC_RELAXED);
        for (int i = 0; i < 3; i++)
            inner->free(inner->ctx, inner->malloc(inner->ctx, 100000));
        uint64_t calls = __atomic_load_n(&cxp_raw_calls, __ATOMIC_RELAXED) - before;
        cxp_counted[domain] = calls >= 3 ? 512 : SIZE_MAX;
    }
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &cxp_inner[PYMEM_DOMAIN_RAW]);
}

static void
cxp_install(void)
{
    int fresh = 1;
    for (int domain = 0; domain < 3; domain++) {
        cxp_hooked[domain] = cxp_hooked[domain] && cxp_is_reached(domain);
        fresh &= !cxp_hooked[domain];
    }
    for (int domain = 0; domain < 3; domain++)
        if (!cxp_hooked[domain])
            PyMem_GetAllocator((PyMemAllocatorDomain)domain, &cxp_inner[domain]);
    if (fresh)
        cxp_find_counted();
    for (int domain = 0; domain < 3; domain++)
        if (!cxp_hooked[domain]) {
            cxp_hooked[domain] = 1;
            PyMem_SetAllocator((PyMemAllocatorDomain)domain, &cxp_hooks[domain]);
        }
}

/* Where somebody has hooked in front of ours since, they stay, and only pass on. */
static void
cxp_uninstall(void)
{
    for (int domain = 0; domain < 3; domain++)
        if (cxp_hooked[domain] && cxp_is_first(domain)) {
            PyMem_SetAllocator((PyMemAllocatorDomain)domain, &cxp_inner[domain]);
            cxp_hooked[domain] = 0;
        }
}

/* ---- For the module ---- */

static void
cxp_before_fork(void)
{
    cxp_alloc_lock(&cxp_sampler);
}

static void
cxp_after_fork(void)
{
    cxp_alloc_unlock(&cxp_sampler);
}

static int
cxp_sampler_init(PyObject *operation)
{
    cxp_alloc_init(&cxp_sampler);
    cxp_operation = Py_NewRef(operation);
    if (pthread_atfork(cxp_before_fork, cxp_after_fork, cxp_after_fork)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* -1 with MemoryError. */
static int
cxp_sampler_start(double mean, int depth, uint32_t most)
{
    cxp_depth = depth;
    if (cxp_alloc_begin(&cxp_sampler, mean, most)) {
        PyErr_NoMemory();
        return -1;
    }
    cxp_install();
    return 0;
}

/* The places, whose `where` are the caller's references; free() them. */
static cxp_alloc_place *
cxp_sampler_copy(uint32_t *used)
{
    cxp_alloc_lock(&cxp_sampler);
    cxp_alloc_place *copy = cxp_alloc_copy(&cxp_sampler, used);
    for (uint32_t i = 0; i < *used; i++)
        Py_XINCREF((PyObject *)copy[i].where);
    cxp_alloc_unlock(&cxp_sampler);
    return copy;
}

static void
cxp_sampler_drop(cxp_alloc_place *places, uint32_t used)
{
    for (uint32_t i = 0; i < used; i++)
        Py_XDECREF((PyObject *)places[i].where);
    free(places);
}

static void
cxp_sampler_stop(void)
{
    cxp_alloc_place *places;
    uint32_t used;
    cxp_uninstall();
    cxp_alloc_end(&cxp_sampler, &places, &used);
    cxp_sampler_drop(places, used);
}

/* The line of an instruction; 0: none. */
static int
cxp_line(PyObject *code, int32_t at)
{
    int line = PyCode_Addr2Line((PyCodeObject *)code, at * (int)sizeof(_Py_CODEUNIT));
    return line > 0 ? line : 0;
}

#endif /* CTXPOOL_NATIVE_ALLOCATION_SAMPLER_IMPL_H */
