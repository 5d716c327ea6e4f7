/* What token_window.pyx needs of CPython and numpy that Cython does not say as well. */
#ifndef CTXPOOL_NATIVE_TOKEN_WINDOW_H
#define CTXPOOL_NATIVE_TOKEN_WINDOW_H

#include <Python.h>
#include <numpy/arrayobject.h>

#include "critical.h"
#include "ctxpool/token_ring.h"

/* cxp_ring_push() against the window's other threads. */
static inline bool
cxp_locked_push(PyObject *window, cxp_ring *ring, int64_t value)
{
    bool done;
    CXP_BEGIN(window);
    done = cxp_ring_push(ring, value);
    CXP_END();
    return done;
}

/* The value of an exact int of one digit (most tokens): no Python code runs, nothing
 * can fail. Anything else: false. */
static inline bool
cxp_small_int(PyObject *object, int64_t *value)
{
    if (!PyLong_CheckExact(object))
        return false;
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)object))
        return false;
    *value = PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
    Py_ssize_t digits = Py_SIZE(object);
    if (digits < -1 || digits > 1)
        return false;
    *value = digits * (int64_t)((PyLongObject *)object)->ob_digit[0];
#endif
    return true;
}

/* Any int as a token of the ring. 0; 1 if it does not fit; no Python code runs. */
static inline int
cxp_int_token(const cxp_ring *ring, PyObject *number, uint64_t *token)
{
    int64_t value;
    if (!cxp_small_int(number, &value)) {
        int overflow;
        value = PyLong_AsLongLongAndOverflow(number, &overflow);
        if (overflow) {
            if (overflow < 0 || ring->is_signed || ring->size < 8)
                return 1;
            *token = PyLong_AsUnsignedLongLong(number);
            if (*token == UINT64_MAX && PyErr_Occurred()) {
                PyErr_Clear();
                return 1;
            }
            return 0;
        }
    }
    *token = (uint64_t)value;
    return (uint64_t)value - (uint64_t)ring->least > ring->span;
}

/* The tokens of a list (which the caller has locked) or tuple, if they are all exact
 * ints of one digit and in range. Else false: `to` holds rubbish, nothing is lost. */
static inline bool
cxp_read_small_ints(const cxp_ring *ring, PyObject *items, Py_ssize_t n, char *to)
{
    const uint64_t least = (uint64_t)ring->least, span = ring->span;
    PyObject **item = PySequence_Fast_ITEMS(items);
    int64_t value;
#define CXP_READ(type)                                                                 \
    do {                                                                               \
        type *token = (type *)(void *)to;                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                           \
            if (!cxp_small_int(item[i], &value) || (uint64_t)value - least > span)     \
                return false;                                                          \
            token[i] = (type)value;                                                    \
        }                                                                              \
    } while (0)
    switch (ring->size) {
    case 1:
        CXP_READ(uint8_t);
        break;
    case 2:
        CXP_READ(uint16_t);
        break;
    case 4:
        CXP_READ(uint32_t);
        break;
    default:
        CXP_READ(uint64_t);
    }
#undef CXP_READ
    return true;
}

/* ---- from one integer type to another: one pass that vectorises, a second one
 * only to name the culprit ---- */

#define CXP_BITS(type)   (8 * sizeof(type))
#define CXP_SIGNED(type) ((type) - 1 < (type)1)

/* A value does not fit if it has a bit of the mask, after `add` has moved the signed
 * values that fit to 0 and above. */
#define CXP_CAST_ADD(To, From)                                                         \
    (CXP_SIGNED(To) && CXP_SIGNED(From) && CXP_BITS(To) < CXP_BITS(From)               \
         ? (npy_uint64)1 << (CXP_BITS(To) - 1)                                         \
         : 0)
#define CXP_CAST_MASK(To, From)                                                        \
    (CXP_SIGNED(To) && !CXP_SIGNED(From) && CXP_BITS(To) <= CXP_BITS(From)             \
         ? ~(npy_uint64)0 << (CXP_BITS(To) - 1)                                        \
     : CXP_BITS(To) < CXP_BITS(From)       ? ~(npy_uint64)0 << (CXP_BITS(To) & 63)     \
     : CXP_SIGNED(From) && !CXP_SIGNED(To) ? ~(npy_uint64)0 << (CXP_BITS(From) - 1)    \
                                           : 0)

#define CXP_CAST(To, From, bits)                                                       \
    static size_t cxp_cast_##To##_##From(void *to, const void *from, size_t n)         \
    {                                                                                  \
        const npy_uint##bits add = (npy_uint##bits)CXP_CAST_ADD(To, From);             \
        const npy_uint##bits mask = (npy_uint##bits)CXP_CAST_MASK(To, From);           \
        To *restrict out = (To *)to;                                                   \
        const From *in = (const From *)from;                                           \
        npy_uint##bits bad = 0;                                                        \
        for (size_t i = 0; i < n; i++) {                                               \
            From value = in[i];                                                        \
            out[i] = (To)value;                                                        \
            bad |= (npy_uint##bits)((npy_uint##bits)value + add) & mask;               \
        }                                                                              \
        if (!bad)                                                                      \
            return n;                                                                  \
        for (size_t i = 0; i < n; i++)                                                 \
            if ((npy_uint##bits)((npy_uint##bits)in[i] + add) & mask)                  \
                return i;                                                              \
        return 0; /* another thread has mended it meanwhile */                         \
    }
#define CXP_CASTS(To)                                                                  \
    CXP_CAST(To, npy_int8, 8)                                                          \
    CXP_CAST(To, npy_uint8, 8)                                                         \
    CXP_CAST(To, npy_int16, 16)                                                        \
    CXP_CAST(To, npy_uint16, 16)                                                       \
    CXP_CAST(To, npy_int32, 32)                                                        \
    CXP_CAST(To, npy_uint32, 32)                                                       \
    CXP_CAST(To, npy_int64, 64)                                                        \
    CXP_CAST(To, npy_uint64, 64)                                                       \
    static size_t (*const cxp_casts_##To[])(void *, const void *, size_t) = {          \
        cxp_cast_##To##_npy_int8,  cxp_cast_##To##_npy_uint8,                          \
        cxp_cast_##To##_npy_int16, cxp_cast_##To##_npy_uint16,                         \
        cxp_cast_##To##_npy_int32, cxp_cast_##To##_npy_uint32,                         \
        cxp_cast_##To##_npy_int64, cxp_cast_##To##_npy_uint64,                         \
    };
CXP_CASTS(npy_int8)
CXP_CASTS(npy_uint8)
CXP_CASTS(npy_int16)
CXP_CASTS(npy_uint16)
CXP_CASTS(npy_int32)
CXP_CASTS(npy_uint32)
CXP_CASTS(npy_int64)
CXP_CASTS(npy_uint64)

/* The order of the tables above. */
static inline unsigned
cxp_kind(size_t size, bool is_signed)
{
    unsigned log = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
    return 2 * log + !is_signed;
}

/* n integers of an array to tokens of the ring: n, or the index of one that does not
 * fit. */
static inline size_t
cxp_cast(const cxp_ring *ring, void *to, size_t size, bool is_signed, const void *from,
         size_t n)
{
    static size_t (*const *const casts[])(void *, const void *, size_t) = {
        cxp_casts_npy_int8,   cxp_casts_npy_uint8,  cxp_casts_npy_int16,
        cxp_casts_npy_uint16, cxp_casts_npy_int32,  cxp_casts_npy_uint32,
        cxp_casts_npy_int64,  cxp_casts_npy_uint64,
    };
    unsigned kind = cxp_kind(ring->size, ring->is_signed);
    return casts[kind][cxp_kind(size, is_signed)](to, from, n);
}

/* ---- arrays over a generation ---- */

/* A read-only array over memory that `holder` keeps alive; NULL with an exception. As
 * holder exports no buffer, nobody can make the array writable again. */
static inline PyObject *
cxp_snapshot(PyObject *dtype, int nd, npy_intp *shape, npy_intp *strides,
             const char *data, PyObject *holder)
{
    if (!PyArray_DescrCheck(dtype)) { /* the garbage collector has taken it */
        PyErr_SetString(PyExc_RuntimeError, "the window is being collected");
        return NULL;
    }
    Py_INCREF(dtype); /* stolen */
    PyObject *array =
        PyArray_NewFromDescr(&PyArray_Type, (PyArray_Descr *)dtype, nd, shape, strides,
                             (void *)data, NPY_ARRAY_ALIGNED, NULL);
    if (array == NULL)
        return NULL;
    Py_INCREF(holder); /* stolen, also on failure */
    if (PyArray_SetBaseObject((PyArrayObject *)array, holder) < 0) {
        Py_DECREF(array);
        return NULL;
    }
    return array;
}

#endif /* CTXPOOL_NATIVE_TOKEN_WINDOW_H */
