# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# cython: auto_pickle=False
"""LazyProxy as a type whose every slot calls the same slot of its object.

The object is borrowed throughout: it never changes once it is there, the proxy owns it,
and the caller owns the proxy.
"""

cimport cython
from cpython.object cimport PyObject, PyTypeObject

import copy
import math
import operator
import os

from .. import _lazy_support as support

__all__ = ["LazyProxy"]

cdef object base_of = support.base_of

cdef extern from "lazy_proxy_impl.h":
    object cxp_getattr(PyObject *target, object name, PyObject *otherwise)
    bint cxp_is_set(const int *flag)
    void cxp_set(int *flag)
    Py_hash_t cxp_hash(PyObject *target) except? -1
    int cxp_reexport(PyObject *target, Py_buffer *view, int flags) except -1
    void *cxp_call_object
    int cxp_take_proxy(PyTypeObject *type, object specimen,
                       cxp_call_slot *slot) except -1

cdef extern from *:
    int PyObject_SetAttr(PyObject *o, object name, object value) except -1
    int PyObject_DelAttr(PyObject *o, object name) except -1
    object PyObject_Call(PyObject *o, object args, object kwargs)
    object PyObject_GetItem(PyObject *o, object key)
    int PyObject_SetItem(PyObject *o, object key, object value) except -1
    int PyObject_DelItem(PyObject *o, object key) except -1
    object PyObject_RichCompare(PyObject *o, object other, int op)
    object PyObject_Repr(PyObject *o)
    object PyObject_Str(PyObject *o)
    int PyObject_IsTrue(PyObject *o) except -1
    Py_ssize_t PyObject_Size(PyObject *o) except -1
    object PyObject_GetIter(PyObject *o)
    int PySequence_Contains(PyObject *o, object item) except -1
    object PyNumber_Negative(PyObject *o)
    object PyNumber_Positive(PyObject *o)
    object PyNumber_Invert(PyObject *o)
    object PyNumber_Absolute(PyObject *o)
    object PyNumber_Index(PyObject *o)
    object PyNumber_Divmod(PyObject *a, PyObject *b)
    object PyNumber_Power(PyObject *a, PyObject *b, object mod)
    object PyNumber_InPlacePower(PyObject *a, PyObject *b, object mod)
    object PyNumber_Add(PyObject *a, PyObject *b)
    object PyNumber_InPlaceAdd(PyObject *a, PyObject *b)
    object PyNumber_Subtract(PyObject *a, PyObject *b)
    object PyNumber_InPlaceSubtract(PyObject *a, PyObject *b)
    object PyNumber_Multiply(PyObject *a, PyObject *b)
    object PyNumber_InPlaceMultiply(PyObject *a, PyObject *b)
    object PyNumber_MatrixMultiply(PyObject *a, PyObject *b)
    object PyNumber_InPlaceMatrixMultiply(PyObject *a, PyObject *b)
    object PyNumber_TrueDivide(PyObject *a, PyObject *b)
    object PyNumber_InPlaceTrueDivide(PyObject *a, PyObject *b)
    object PyNumber_FloorDivide(PyObject *a, PyObject *b)
    object PyNumber_InPlaceFloorDivide(PyObject *a, PyObject *b)
    object PyNumber_Remainder(PyObject *a, PyObject *b)
    object PyNumber_InPlaceRemainder(PyObject *a, PyObject *b)
    object PyNumber_Lshift(PyObject *a, PyObject *b)
    object PyNumber_InPlaceLshift(PyObject *a, PyObject *b)
    object PyNumber_Rshift(PyObject *a, PyObject *b)
    object PyNumber_InPlaceRshift(PyObject *a, PyObject *b)
    object PyNumber_And(PyObject *a, PyObject *b)
    object PyNumber_InPlaceAnd(PyObject *a, PyObject *b)
    object PyNumber_Xor(PyObject *a, PyObject *b)
    object PyNumber_InPlaceXor(PyObject *a, PyObject *b)
    object PyNumber_Or(PyObject *a, PyObject *b)
    object PyNumber_InPlaceOr(PyObject *a, PyObject *b)


cdef PyObject *load(LazyProxy self) except NULL:
    cdef object pending = None
    # The proxy, against another thread that puts the loaded object in its place.
    with cython.critical_section(self):
        if not cxp_is_set(&self.ready):
            pending = self.target
    if pending is not None:
        value = pending.result()
        # As above. What is replaced is `pending`, which lives on past the section.
        with cython.critical_section(self):
            if not cxp_is_set(&self.ready):
                self.target = value
                cxp_set(&self.ready)
    return <PyObject *>self.target


cdef inline PyObject *of(LazyProxy self) except NULL:
    """The object, loaded if need be: borrowed."""
    if cxp_is_set(&self.ready):
        return <PyObject *>self.target
    return load(self)


cdef inline object kept(LazyProxy self, object result):
    """What an augmented assignment gives: the proxy, if its object changed in place."""
    return self if <PyObject *>result is <PyObject *>self.target else result


cdef LazyProxy checked(proxy):
    if type(proxy) is not LazyProxy:
        raise TypeError(f"a LazyProxy is needed, not {type(proxy).__name__}")
    return <LazyProxy>proxy


@cython.final
cdef class LazyProxy:
    """LazyProxy(load)
--

An object that is loaded when it is first used, and until then is not.

    Whatever is done with the proxy is done with the object that *load* returns:
    attributes, calls, operators, comparison, hash, iteration, ``with``, ``await``,
    ``isinstance``, ``repr``. The first use calls *load*; the proxy then forgets it.

    Parameters
    ----------
    load : callable
        ``load()`` returns the object. It may be slow, and it may raise: the error goes
        to whoever used the proxy, nothing is kept, and the next use tries again. If it
        returns another proxy, that one's object is taken.

    Raises
    ------
    TypeError
        *load* is not callable.
    RuntimeError
        At a use: *load* itself uses the proxy that it is to load, or two loads in two
        threads wait for each other.

    Notes
    -----
    *Threads.* One thread loads; the others that need the object wait for it, and get
    the error if there is one.

    *Pickles and copies* are of the object, and need no ctxpool to be read. Weak
    references are to the proxy. Augmented assignment (``proxy += other``) leaves a
    mutable object behind its proxy and gives a new one, as of an ``int``, by itself.

    *What a proxy can't hide*: ``type(proxy)`` and ``is``; C code that asks for an exact
    type (``"".join([proxy])``); that it is no sequence or mapping to ``match``; that a
    function's proxy in a class makes no method (to look at a class loads nothing); and
    that this type has every special method, so that ``callable(proxy)`` and the
    one-method classes of :mod:`collections.abc` say yes
    (``hasattr(proxy, "__iter__")`` tells the truth). ``memoryview(proxy)`` is for the
    native twin, and for both from Python 3.12 on.

    *Cost.* A use costs the object's own and a few nanoseconds (native).

    Examples
    --------
    >>> from ctxpool import LazyProxy
    >>> numbers = LazyProxy(lambda: print("loading") or [3, 1, 2])
    >>> LazyProxy.is_loaded(numbers)
    False
    >>> len(numbers)
    loading
    3
    >>> sorted(numbers), isinstance(numbers, list)
    ([1, 2, 3], True)
    """

    def __cinit__(self, load):
        self.target = support.Pending(load)
        self.slot.call = cxp_call_object
        self.slot.object = <cxp_loader>of

    @staticmethod
    def is_loaded(proxy):
        """Whether *proxy* has its object. Loads nothing.

        A static method, to be called on the class: ``proxy.is_loaded`` would be an
        attribute of the object.

        Raises
        ------
        TypeError
            *proxy* is no LazyProxy.

        Examples
        --------
        >>> LazyProxy.is_loaded(LazyProxy(dict))
        False
        """
        return bool(cxp_is_set(&checked(proxy).ready))

    @staticmethod
    def loaded(proxy):
        """The object of *proxy* itself, loaded if it was not.

        A static method, to be called on the class: ``proxy.loaded`` would be an
        attribute of the object.

        Raises
        ------
        TypeError
            *proxy* is no LazyProxy.

        Examples
        --------
        >>> type(LazyProxy.loaded(LazyProxy(dict)))
        <class 'dict'>
        """
        return <object>of(checked(proxy))

    def __getattribute__(self, name):
        return cxp_getattr(of(self), name, <PyObject *>base_of)

    def __setattr__(self, name, value):
        PyObject_SetAttr(of(self), name, value)

    def __delattr__(self, name):
        PyObject_DelAttr(of(self), name)

    def __hash__(self):
        return cxp_hash(of(self))

    def __call__(self, *args, **kwargs):
        return PyObject_Call(of(self), args, kwargs)

    def __setitem__(self, key, value):
        PyObject_SetItem(of(self), key, value)

    def __delitem__(self, key):
        PyObject_DelItem(of(self), key)

    def __richcmp__(self, other, int op):
        return PyObject_RichCompare(of(self), other, op)

    def __getbuffer__(self, Py_buffer *view, int flags):
        cxp_reexport(of(self), view, flags)

    def __divmod__(self, other):
        return PyNumber_Divmod(of(self), <PyObject *>other)

    def __rdivmod__(self, other):
        return PyNumber_Divmod(<PyObject *>other, of(self))

    def __pow__(self, other, mod):
        return PyNumber_Power(of(self), <PyObject *>other, mod)

    def __rpow__(self, other, mod):
        return PyNumber_Power(<PyObject *>other, of(self), mod)

    def __ipow__(self, other):
        return kept(self, PyNumber_InPlacePower(of(self), <PyObject *>other, None))

    def __repr__(self):
        return PyObject_Repr(of(self))

    def __str__(self):
        return PyObject_Str(of(self))

    def __bytes__(self):
        return bytes(<object>of(self))

    def __format__(self, spec):
        return format(<object>of(self), spec)

    def __dir__(self):
        return dir(<object>of(self))

    def __bool__(self):
        return PyObject_IsTrue(of(self))

    def __len__(self):
        return PyObject_Size(of(self))

    def __iter__(self):
        return PyObject_GetIter(of(self))

    def __next__(self):
        return next(<object>of(self))

    def __reversed__(self):
        return reversed(<object>of(self))

    def __length_hint__(self):
        return operator.length_hint(<object>of(self))

    def __contains__(self, item):
        return PySequence_Contains(of(self), item)

    def __getitem__(self, key):
        return PyObject_GetItem(of(self), key)

    def __neg__(self):
        return PyNumber_Negative(of(self))

    def __pos__(self):
        return PyNumber_Positive(of(self))

    def __invert__(self):
        return PyNumber_Invert(of(self))

    def __abs__(self):
        return PyNumber_Absolute(of(self))

    def __int__(self):
        return int(<object>of(self))

    def __float__(self):
        return float(<object>of(self))

    def __complex__(self):
        return complex(<object>of(self))

    def __index__(self):
        return PyNumber_Index(of(self))

    def __round__(self, *digits):
        return round(<object>of(self), *digits)

    def __trunc__(self):
        return math.trunc(<object>of(self))

    def __floor__(self):
        return math.floor(<object>of(self))

    def __ceil__(self):
        return math.ceil(<object>of(self))

    def __fspath__(self):
        return os.fspath(<object>of(self))

    def __instancecheck__(self, instance):
        return isinstance(instance, <object>of(self))

    def __subclasscheck__(self, cls):
        return issubclass(cls, <object>of(self))

    def __enter__(self):
        return support.context_manager(<object>of(self), "__enter__", "__exit__")()

    def __exit__(self, exc_type, exc, tb):
        return (<object>of(self)).__exit__(exc_type, exc, tb)

    def __aenter__(self):
        return support.context_manager(<object>of(self), "__aenter__", "__aexit__")()

    def __aexit__(self, exc_type, exc, tb):
        return (<object>of(self)).__aexit__(exc_type, exc, tb)

    def __await__(self):
        return support.awaited(<object>of(self))

    def __aiter__(self):
        return aiter(<object>of(self))

    def __anext__(self):
        return anext(<object>of(self))

    def __copy__(self):
        return copy.copy(<object>of(self))

    def __add__(self, other):
        return PyNumber_Add(of(self), <PyObject *>other)

    def __radd__(self, other):
        return PyNumber_Add(<PyObject *>other, of(self))

    def __iadd__(self, other):
        return kept(self, PyNumber_InPlaceAdd(of(self), <PyObject *>other))

    def __sub__(self, other):
        return PyNumber_Subtract(of(self), <PyObject *>other)

    def __rsub__(self, other):
        return PyNumber_Subtract(<PyObject *>other, of(self))

    def __isub__(self, other):
        return kept(self, PyNumber_InPlaceSubtract(of(self), <PyObject *>other))

    def __mul__(self, other):
        return PyNumber_Multiply(of(self), <PyObject *>other)

    def __rmul__(self, other):
        return PyNumber_Multiply(<PyObject *>other, of(self))

    def __imul__(self, other):
        return kept(self, PyNumber_InPlaceMultiply(of(self), <PyObject *>other))

    def __matmul__(self, other):
        return PyNumber_MatrixMultiply(of(self), <PyObject *>other)

    def __rmatmul__(self, other):
        return PyNumber_MatrixMultiply(<PyObject *>other, of(self))

    def __imatmul__(self, other):
        return kept(self, PyNumber_InPlaceMatrixMultiply(of(self), <PyObject *>other))

    def __truediv__(self, other):
        return PyNumber_TrueDivide(of(self), <PyObject *>other)

    def __rtruediv__(self, other):
        return PyNumber_TrueDivide(<PyObject *>other, of(self))

    def __itruediv__(self, other):
        return kept(self, PyNumber_InPlaceTrueDivide(of(self), <PyObject *>other))

    def __floordiv__(self, other):
        return PyNumber_FloorDivide(of(self), <PyObject *>other)

    def __rfloordiv__(self, other):
        return PyNumber_FloorDivide(<PyObject *>other, of(self))

    def __ifloordiv__(self, other):
        return kept(self, PyNumber_InPlaceFloorDivide(of(self), <PyObject *>other))

    def __mod__(self, other):
        return PyNumber_Remainder(of(self), <PyObject *>other)

    def __rmod__(self, other):
        return PyNumber_Remainder(<PyObject *>other, of(self))

    def __imod__(self, other):
        return kept(self, PyNumber_InPlaceRemainder(of(self), <PyObject *>other))

    def __lshift__(self, other):
        return PyNumber_Lshift(of(self), <PyObject *>other)

    def __rlshift__(self, other):
        return PyNumber_Lshift(<PyObject *>other, of(self))

    def __ilshift__(self, other):
        return kept(self, PyNumber_InPlaceLshift(of(self), <PyObject *>other))

    def __rshift__(self, other):
        return PyNumber_Rshift(of(self), <PyObject *>other)

    def __rrshift__(self, other):
        return PyNumber_Rshift(<PyObject *>other, of(self))

    def __irshift__(self, other):
        return kept(self, PyNumber_InPlaceRshift(of(self), <PyObject *>other))

    def __and__(self, other):
        return PyNumber_And(of(self), <PyObject *>other)

    def __rand__(self, other):
        return PyNumber_And(<PyObject *>other, of(self))

    def __iand__(self, other):
        return kept(self, PyNumber_InPlaceAnd(of(self), <PyObject *>other))

    def __xor__(self, other):
        return PyNumber_Xor(of(self), <PyObject *>other)

    def __rxor__(self, other):
        return PyNumber_Xor(<PyObject *>other, of(self))

    def __ixor__(self, other):
        return kept(self, PyNumber_InPlaceXor(of(self), <PyObject *>other))

    def __or__(self, other):
        return PyNumber_Or(of(self), <PyObject *>other)

    def __ror__(self, other):
        return PyNumber_Or(<PyObject *>other, of(self))

    def __ior__(self, other):
        return kept(self, PyNumber_InPlaceOr(of(self), <PyObject *>other))


cdef LazyProxy specimen = LazyProxy(object)
cxp_take_proxy(<PyTypeObject *>LazyProxy, specimen, &specimen.slot)
specimen = None
support.publish(LazyProxy)
