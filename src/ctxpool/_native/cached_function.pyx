# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""CachedFunction and CachedMethod: calls go to cached_function.h and cached_method.h,
the rest is here."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject

import sys
import time
from types import MethodType

from .. import _cache_support
from .. import _function_support as support
from .._cache_support import MISSING as _MISSING
from .._function_support import CacheInfo

from .cache import Cache

__all__ = ["CachedFunction", "CachedMethod"]

cdef extern from "cached_function.h":
    PyObject *CXP_MARK
    void *cxp_call_cached
    void *cxp_call_timed
    void *cxp_call_uncached
    void *cxp_call_extras
    object cxp_call_function(object function, PyObject **args, size_t nargsf,
                             PyObject *names)
    tuple cxp_positional(PyObject **args, size_t nargsf)
    dict cxp_named(PyObject **args, size_t nargsf, PyObject *names)
    void cxp_forget(object cache, cxp_lru_table *t)
    int cxp_take_call(PyTypeObject *type, object specimen, cxp_cached *c) except -1

cdef extern from "cached_method.h":
    ctypedef PyObject *(*cxp_settler)(PyObject *, PyObject *)
    void *cxp_call_method
    bint cxp_houses(object instance)
    object cxp_home_of(object self, object instance)
    object cxp_move_in(object self, object instance, object fresh)
    void cxp_say_goodbye(cxp_method *m, object home)
    bint cxp_belongs(object home, object method, object instance)
    int cxp_take_method(PyTypeObject *type, object specimen, cxp_method *m,
                        PyTypeObject *home_type, object home, object one, object two,
                        object three) except -1

cdef extern from "Python.h":
    object PyVectorcall_Call(object callable, tuple args, dict kwargs)

cdef object MISSING = _MISSING
cdef object MARK = support.MARK
CXP_MARK = <PyObject *>MARK
cdef object monotonic = time.monotonic


cdef object through_cache(object self, object key, PyObject **args, size_t nargsf,
                          PyObject *names):
    """A call with a key of its own; the arguments are still the caller's."""
    cdef CachedFunction me = <CachedFunction>self
    cdef LRUCache cache = me.cache
    cdef object function = me.function, flights = me.flights
    value = cache.lookup(key, MISSING)
    if value is not MISSING:
        return value
    if flights is not None:
        return support.fly(cache, flights, key, function,
                           cxp_positional(args, nargsf), cxp_named(args, nargsf, names))
    value = cxp_call_function(function, args, nargsf, names)
    cache._store_if_it_fits(key, value)
    return value


cdef double read_timer(object timer) except? -1:
    return _cache_support.checked_number(timer(), "the time that timer returns")


cdef LRUCache cache_of(CachedFunction self):
    cdef LRUCache cache = self.cache
    if cache is None:  # the collector has cleared it
        raise ReferenceError("the cached function was garbage")
    return cache


@cython.final
cdef class CachedFunction:
    """CachedFunction(function, maxsize=128, typed=False, *, policy='lru', ttl=None,
    key=None, getsizeof=None, timer=None, single_flight=False, method=False)
--

A function that remembers its results: what :func:`ctxpool.lru_cache` makes.

    It does what the object of :func:`functools.lru_cache` does, binds to instances as
    a function does, and is pickled by name.

    Parameters
    ----------
    function : callable
        What is called where no result is known.
    maxsize : int or None
        The most results kept; the least recently used goes first. 0: none are kept,
        None: no bound. With *getsizeof* the bound of the sum of the sizes.
    typed : bool
        Whether arguments of different types are different calls even where they are
        equal.
    policy : str
        Which result goes first instead, as of :class:`~ctxpool.Cache`: "s3fifo" hits
        more often than LRU on most loads, and can fall far below it on some.
    ttl : float, optional
        Seconds that a result is kept.
    key : callable, optional
        ``key(*args, **kwargs)`` makes the key of a call.
    getsizeof : callable, optional
        ``getsizeof(result)`` is its size. One that is too large is not kept.
    timer : callable, optional
        The clock of *ttl*; :func:`time.monotonic` by default.
    single_flight : bool
        Of several threads that make the same call at once, one calls the function
        and the others wait for its outcome; see :meth:`LRUCache.get_or_compute`.
    method : bool
        The first positional argument is passed on, and is no part of the key.

    Notes
    -----
    **Thread-safety**: as of functools: look-up and store are atomic, the function is
    called outside any lock. Exceptions are not cached.

    Examples
    --------
    >>> double = CachedFunction(lambda n: n * 2, 100)
    >>> double(4), double(4)
    (8, 8)
    >>> double.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=100, currsize=1)
    """

    def __cinit__(self, function, maxsize=128, typed=False, *, policy="lru", ttl=None,
                  key=None, getsizeof=None, timer=None, single_flight=False,
                  method=False):
        maxsize, policy, ttl = support.checked(function, maxsize, policy, ttl, key,
                                               getsizeof, timer)
        bound = support.bound(maxsize)
        clock = monotonic if timer is None else timer
        if policy == "lru":
            self.cache = LRUCache(bound, getsizeof, ttl=ttl, timer=clock)
        else:
            self.cache = Cache(bound, policy, getsizeof, ttl=ttl, timer=clock)
        self.function = function
        self.key = key
        self.timer = timer
        self.maxsize = maxsize
        self.policy = policy
        self.flights = {} if single_flight else None
        self.c.function = <PyObject *>function
        self.c.cache = <PyObject *>self.cache
        self.c.key = NULL if key is None else <PyObject *>key
        self.c.timer = NULL if timer is None else <PyObject *>timer
        self.c.table = &self.cache.table
        self.c.capacity = &self.cache.capacity
        self.c.tracked = &self.cache.tracked
        self.c.evicted = &self.cache.evicted[0]
        self.c.extras = <cxp_extras>through_cache
        self.c.clock = <cxp_clock>read_timer
        self.c.ttl = 0 if ttl is None else ttl
        self.c.typed = bool(typed)
        self.c.method = bool(method)
        self.c.first_stays = maxsize is not None and ttl is None
        if maxsize == 0 and not single_flight:
            self.c.call = cxp_call_uncached
        elif key is not None or getsizeof is not None or single_flight:
            self.c.call = cxp_call_extras
        else:
            self.c.call = cxp_call_cached if ttl is None else cxp_call_timed

    @cython.embedsignature(False)
    def __call__(self, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)  # f.__call__(); f() comes quicker

    def __get__(self, instance, owner):
        return self if instance is None else MethodType(self, instance)

    def cache_info(self):
        """Hits, misses, maxsize and current size, as a named tuple."""
        cdef LRUCache cache = cache_of(self)
        cdef uint64_t uncached
        stats = cache.stats()
        with cython.critical_section(self):
            uncached = self.c.uncached
        return CacheInfo(stats.hits, stats.misses + uncached, self.maxsize,
                         stats.currsize)

    def cache_clear(self):
        """Forget all results, and the counts."""
        cdef LRUCache cache = cache_of(self)
        with cython.critical_section(self):
            self.c.uncached = 0
        cxp_forget(cache, &cache.table)

    def cache_parameters(self):
        """``{"maxsize": ..., "typed": ...}``, a new dict; policy and ttl if given."""
        return support.parameters(self.maxsize, bool(self.c.typed), self.policy,
                                  self.c.ttl)

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


cdef CachedFunction specimen = CachedFunction(len)
cxp_take_call(<PyTypeObject *>CachedFunction, specimen, &specimen.c)
specimen = None


# Its method has to be there when it dies; cycles can be broken elsewhere.
@cython.final
@cython.no_gc_clear
cdef class Home:
    """What one instance has of one CachedMethod. Copies and pickles of it are None."""

    cdef object method
    cdef readonly object owner  # a weak one: a copied __dict__ brings us elsewhere
    cdef object cached

    def __cinit__(self, method, owner, cached):
        self.method = method
        self.owner = owner
        self.cached = cached

    def __dealloc__(self):
        if type(self.method) is CachedMethod:
            cxp_say_goodbye(&(<CachedMethod>self.method).m, self)

    def __reduce__(self):
        return support.nothing, ()


cdef object settle(CachedMethod self, object instance):
    """The home of an instance that has none yet."""
    cdef bint houses = cxp_houses(instance)
    cdef object number = <size_t><void *>instance, homes = self.homes
    # The instance's own __dict__ dies with it.
    forget = None if houses else support.forgetting(homes, number)
    owner = support.owner_of(instance, forget, self.function)
    fresh = Home(self, owner, self.make(self.function, method=True))
    if houses:
        return cxp_move_in(self, instance, fresh)
    home = homes.setdefault(number, fresh)  # another thread may have been faster
    if not cxp_belongs(home, self, instance):
        homes[number] = home = fresh
    return home


# What the C struct borrows has to be there to the end; cycles can be broken elsewhere.
@cython.final
@cython.no_gc_clear
cdef class CachedMethod:
    """CachedMethod(function, make)
--

A method that remembers its results for each instance: see
    :func:`ctxpool.cached_method`, which makes it.

    Parameters
    ----------
    function : callable
        The method.
    make : callable
        ``make(function, method=True)`` gives the cached function of an instance.
    """

    def __cinit__(self, function, make):
        make(function, method=True)  # bad arguments are told of at once
        self.function = function
        self.make = make
        self.homes = {}
        self.names = []
        self.m.call = cxp_call_method
        self.m.homes = <PyObject *>self.homes
        self.m.settle = <cxp_settler>settle
        take_name(self, support.home_name(function))

    def __set_name__(self, owner, name):
        take_name(self, support.home_name(owner, name))

    @cython.embedsignature(False)
    def __call__(self, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        return MethodType((<Home>cxp_home_of(self, instance)).cached, instance)

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


cdef int take_name(CachedMethod self, name) except -1:
    """From now on homes have this name. Calls under way may still use the former."""
    name = sys.intern(name)
    self.names.append(name)
    self.m.name = <PyObject *>name
    return 0


cdef CachedMethod method_specimen = CachedMethod(len, lambda function, *, method: None)
cxp_take_method(<PyTypeObject *>CachedMethod, method_specimen, &method_specimen.m,
                <PyTypeObject *>Home, Home(1, 2, 3), 1, 2, 3)
method_specimen = None
