# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""MarkovModel over csrc/include/ctxpool/markov.h.

Every critical section here is on the model itself, against any other call on it.
Inside, only the comparison of keys may run Python code; what nothing names any more,
and whole models that are replaced, die after the section.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint32_t
from libc.stdlib cimport free

import os
import weakref
from array import array

from .. import _arguments
from .. import _markov_support as support
from .._pickling import constructor

__all__ = ["MarkovModel"]

cdef extern from "markov_impl.h":
    enum:
        CXP_FREE_THREADED

    int cxp_key_tag(object key, uint32_t *tag) except -1
    uint32_t cxp_intern(cxp_markov *m, object key, uint32_t tag) except 0xFFFFFFFF
    void cxp_sweep(object self, cxp_markov *m)
    int cxp_note(object self, cxp_markov *m, object key) except -1
    int cxp_note_as(object self, cxp_markov *m, object key, object name) except -1
    long cxp_small(object n)
    object cxp_predict(object self, cxp_markov *m, uint32_t n, PyObject *names)
    object cxp_follow(object self, cxp_markov *m, uint32_t steps)
    object cxp_saved(object self, cxp_markov *m, cxp_markov_rate **rates,
                     size_t *count)
    void cxp_drop_model(cxp_markov *old)
    bint cxp_left_behind(object self)
    void cxp_take_model_slots(PyTypeObject *type, object specimen, cxp_markov *m)

cdef enum:
    MOST_ORDER = 8

# Where a lock can outlive its thread in a fork: all models there are.
cdef object living = weakref.WeakValueDictionary() if CXP_FREE_THREADED else None


def _after_fork_in_child():
    cdef MarkovModel model
    cdef cxp_markov fresh
    for model in list(living.values()):
        if cxp_left_behind(model):
            begin(&fresh, model.m.order, model.m.contexts, model.m.successors)
            fresh.keys.version = model.m.keys.version + 1
            model.m = fresh
            model.epoch += 1


if CXP_FREE_THREADED and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- Inner parts ----

cdef int begin(cxp_markov *m, uint32_t order, uint32_t contexts,
               uint32_t successors) except -1:
    cdef bytes hits, tries
    hits, tries = support.priors(order)
    if cxp_markov_init(m, order, contexts, successors,
                       <const double *><const char *>hits,
                       <const double *><const char *>tries):
        raise MemoryError(
            f"no memory for {order} x {contexts} contexts of {successors} successors"
        )
    return 0


cdef int renew(MarkovModel self, uint32_t order, uint32_t contexts,
               uint32_t successors) except -1:
    """Forget everything."""
    cdef cxp_markov fresh, old
    begin(&fresh, order, contexts, successors)
    with cython.critical_section(self):
        fresh.keys.version = self.m.keys.version + 1
        old = self.m
        self.m = fresh
        self.epoch += 1
    cxp_drop_model(&old)
    return 0


cdef int configure(MarkovModel self, order, contexts, successors, features) except -1:
    order = _arguments.count("order", order, 1, MOST_ORDER)
    contexts = _arguments.count("contexts", contexts, 1, 1 << 24)
    successors = _arguments.count("successors", successors, 1, 128)
    if features is not None and not callable(features):
        raise TypeError(f"features must be callable, not {features!r}")
    renew(self, order, contexts, successors)
    with cython.critical_section(self):
        replaced = self.features
        self.features = features
    del replaced
    return 0


cdef object features_of(MarkovModel self):
    with cython.critical_section(self):
        return self.features


cdef uint32_t order_of(MarkovModel self):
    with cython.critical_section(self):
        return self.m.order


cdef tuple names_of(MarkovModel self, after):
    """What the last of *after* are called in contexts."""
    features = features_of(self)
    names = []
    for key in after:
        name = key if features is None else features(key)
        hash(name)
        names.append(name)
    return tuple(names[-<Py_ssize_t>order_of(self):])


cdef class MarkovModel:
    """MarkovModel(order=3, contexts=10000, successors=16, *, features=None)
--

Learns a sequence of keys while it goes on, and predicts the next ones.

    Parameters
    ----------
    order : int, optional
        The longest context, in keys: 1 to 8.
    contexts : int, optional
        Most contexts of each length; the least recently used are forgotten. A loop of
        more keys than that is forgotten before it comes round.
    successors : int, optional
        Most keys that a context remembers as its followers: 1 to 128.
    features : callable, optional
        ``features(key)`` is what contexts are made of instead of the key: something
        hashable, such as ``(key.table, hour())``. What is predicted are keys.

    Raises
    ------
    TypeError, ValueError
        An argument is no whole number, or not in its range; *features* isn't callable.
    MemoryError
        There is no memory for the contexts.

    Notes
    -----
    Prediction by partial matching: the longest known context predicts, and leaves what
    it does not know to the next shorter one. Confidences are learned rates of success,
    so that of the predictions at 0.3 about 30 % come true.

    *Memory* is bounded: ``order * contexts`` contexts of at most ``successors`` keys,
    and no key is kept that none of them names. ``max_bytes`` tells the bytes.

    *Cost.* O(order * successors) for a record and for a prediction, neither depending
    on how much was learned. Native: about 0.1 microseconds for a record of a sequence
    that it knows, 0.2 to 0.3 for one of independent draws, and half a microsecond for a
    prediction.

    **Thread-safety**: each single call is atomic, but for :meth:`train` and, with
    *features*, :meth:`follow`. Keys are compared inside it, so an ``__eq__`` that
    blocks will block others; it may use the model itself.

    Examples
    --------
    >>> model = MarkovModel()
    >>> accuracy = model.train("abcabcabcabc" * 5)
    >>> model.record("a"), model.record("b")
    (None, None)
    >>> [(key, confidence)] = model.predict(1)
    >>> key, confidence > 0.5
    ('c', True)
    """

    def __cinit__(self):
        begin(&self.m, 1, 1, 1)
        if CXP_FREE_THREADED:
            living[id(self)] = self

    def __init__(self, order=3, contexts=10_000, successors=16, *, features=None):
        configure(self, order, contexts, successors, features)

    # ---- For other Cython code ----

    cdef int note(self, object key) except -1:
        if self.features is None:
            return cxp_note(self, &self.m, key)
        hash(key)
        features = features_of(self)
        name = key if features is None else features(key)
        return cxp_note_as(self, &self.m, key, name)

    # ---- Use ----

    def record(self, key):
        """Note that *key* was used. O(order * successors).

        Parameters
        ----------
        key : hashable

        Raises
        ------
        TypeError
            *key* can't be hashed.
        Exception
            Whatever the key's methods or ``features`` raise; nothing is noted then.
        """
        self.note(key)

    def predict(self, n=1, after=()):
        """The likeliest next keys. O(order * successors).

        Parameters
        ----------
        n : int, optional
            Most keys to return.
        after : iterable, optional
            Keys to be taken as used next: what would follow them? Not recorded.

        Returns
        -------
        list of (key, float)
            Distinct keys, the likeliest first, each with its probability to be the very
            next one. They sum to 1 at most; the rest is for keys not seen here before.

        Raises
        ------
        TypeError, ValueError
            *n* is no whole number of at least 0.
        """
        cdef long most = cxp_small(n)
        cdef tuple names
        if most < 0:
            most = _arguments.count("n", n, 0, 1 << 30)
        if type(after) is tuple and not <tuple>after:
            return cxp_predict(self, &self.m, <uint32_t>most, NULL)
        names = names_of(self, after)
        return cxp_predict(self, &self.m, <uint32_t>most, <PyObject *>names)

    def follow(self, steps):
        """The likeliest way on, key by key. O(order * successors) for each.

        Parameters
        ----------
        steps : int
            Most keys to return: up to 65,536.

        Returns
        -------
        list of (key, float)
            The likeliest next key, the likeliest one after that..., each with the
            probability of the way up to there.
        """
        cdef long most = _arguments.count("steps", steps, 0, 1 << 16)
        if self.features is None:
            return cxp_follow(self, &self.m, <uint32_t>most)
        way = []
        reached = 1.0
        order = order_of(self)
        while len(way) < most:
            best = self.predict(1, [key for key, _ in way[-order:]])
            if not best:
                break
            reached *= best[0][1]
            way.append((best[0][0], reached))
        return way

    def train(self, history, epochs=1):
        """Record a whole sequence, as often as *epochs* says.

        Parameters
        ----------
        history : iterable of hashable
            Keys in the order of their use. What came before and what comes after are
            not connected with it.
        epochs : int, optional
            How often to go through it.

        Returns
        -------
        list of float
            For each epoch, the share of keys that were the likeliest one beforehand.
        """
        cdef Py_ssize_t right
        keys = list(history)
        accuracy = []
        for _ in range(_arguments.count("epochs", epochs, 0, 1 << 30)):
            self.forget_position()
            right = 0
            for key in keys:
                best = self.predict(1)
                if best and best[0][0] == key:
                    right += 1
                self.record(key)
            accuracy.append(right / len(keys) if keys else 0.0)
        self.forget_position()
        return accuracy

    def forget_position(self):
        """Begin a new sequence: the next key does not follow the last one."""
        with cython.critical_section(self):
            cxp_markov_forget_place(&self.m)
        cxp_sweep(self, &self.m)

    def clear(self):
        """Forget everything."""
        cdef uint32_t order, contexts, successors
        with cython.critical_section(self):
            order, contexts = self.m.order, self.m.contexts
            successors = self.m.successors
        renew(self, order, contexts, successors)

    def __len__(self):
        """How many contexts are known."""
        with cython.critical_section(self):
            return cxp_markov_len(&self.m)

    @property
    def max_bytes(self):
        """The bound of the native tables' bytes, the keys themselves not counted.

        The tables of the contexts are taken at construction (the system gives pages of
        them as they are used); that of the keys grows with them, to half of the bound
        or more only where hardly a key follows two contexts. The pure-Python twin takes
        several times as much.
        """
        cdef uint32_t order, contexts, successors
        with cython.critical_section(self):
            order, contexts = self.m.order, self.m.contexts
            successors = self.m.successors
        return support.max_bytes(order, contexts, successors)

    def __sizeof__(self):
        with cython.critical_section(self):
            return object.__sizeof__(self) + cxp_markov_bytes(&self.m)

    def check(self):
        """Walk all invariants. O(n); for tests.

        Raises
        ------
        AssertionError
            One is broken.
        """
        cdef int broken
        with cython.critical_section(self):
            broken = cxp_markov_check(&self.m)
        if broken:
            raise AssertionError(f"invariant {broken} of the model is broken")

    # ---- Copy and pickle ----

    def __reduce__(self):
        return *constructor(type(self)), self.__getstate__()

    def __getstate__(self):
        """Everything: keys, and as numbers where they are among the contexts."""
        cdef cxp_markov_rate *rates = NULL
        cdef size_t count = 0, i
        cdef double[::1] hits, tries
        cdef uint32_t order, contexts, successors
        with cython.critical_section(self):
            order, contexts = self.m.order, self.m.contexts
            successors = self.m.successors
        try:
            keys, learned = cxp_saved(self, &self.m, &rates, &count)
            hits_out = array("d", bytes(8 * count))
            tries_out = array("d", bytes(8 * count))
            hits, tries = hits_out, tries_out
            for i in range(count):
                hits[i] = rates[i].hits
                tries[i] = rates[i].tries
        finally:
            free(rates)
        return {
            "order": order,
            "contexts": contexts,
            "successors": successors,
            "features": features_of(self),
            "keys": keys,
            "learned": support.pack(learned, "I"),
            "hits": support.pack(hits_out.tobytes(), "d"),
            "tries": support.pack(tries_out.tobytes(), "d"),
            "attributes": getattr(self, "__dict__", None),
        }

    def __setstate__(self, state):
        """Take up what :meth:`__getstate__` gave."""
        cdef bytes hits, tries, saved
        cdef list keys
        cdef uint32_t *ids
        cdef size_t known = 0, i
        cdef uint32_t tag
        cdef uint64_t epoch
        cdef int failed = -1
        cdef bint changed = False
        if state["attributes"]:
            self.__dict__.update(state["attributes"])
        configure(self, state["order"], state["contexts"], state["successors"],
                  state["features"])
        hits, tries = support.unpack(state["hits"], state["tries"], state["order"])
        saved = support.pack(state["learned"], "I")
        keys = list(state["keys"])
        ids = <uint32_t *>PyMem_Malloc((len(keys) + 1) * sizeof(uint32_t))
        if ids == NULL:
            raise MemoryError("no memory to load a model")
        with cython.critical_section(self):
            epoch = self.epoch
        try:
            for key in keys:
                cxp_key_tag(key, &tag)
                with cython.critical_section(self):
                    ids[known] = cxp_intern(&self.m, key, tag)
                    changed = self.epoch != epoch
                    if not changed:
                        cxp_markov_use(&self.m, ids[known])
                        known += 1
                if changed:
                    break
            with cython.critical_section(self):
                changed = self.epoch != epoch
                if not changed:
                    failed = load(&self.m, saved, ids, known, hits, tries)
        finally:
            with cython.critical_section(self):
                if self.epoch == epoch:
                    for i in range(known):
                        cxp_markov_release(&self.m, ids[i])
            PyMem_Free(ids)
            cxp_sweep(self, &self.m)
        if changed:
            raise support.invalid("it was cleared while it was loaded")
        if failed:
            self.clear()
            raise support.invalid("it is damaged")


cdef int load(cxp_markov *m, bytes saved, const uint32_t *ids, size_t known,
              bytes hits, bytes tries) noexcept:
    """Into a new model; 0, or -1: it holds a part."""
    cdef const double *hit = <const double *><const char *>hits
    cdef const double *tried = <const double *><const char *>tries
    cdef size_t i
    if len(saved) % 4 or <size_t>len(hits) // 16 != CXP_MARKOV_RATES * (m.order + 1):
        return -1
    for i in range(<size_t>len(hits) // 8):
        m.rates[i].hits = hit[i]
        m.rates[i].tries = tried[i]
    return cxp_markov_load(m, <const uint32_t *><const char *>saved, len(saved) // 4,
                           ids, known)


cdef MarkovModel specimen = MarkovModel()
cxp_take_model_slots(<PyTypeObject *>MarkovModel, specimen, &specimen.m)
specimen = None
