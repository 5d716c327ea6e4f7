#include "ctxpool/alloc_sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SAMPLES = 1 << 10 };

/* ---- Drawing ---- */

static uint64_t
drawn(uint64_t *random)
{
    uint64_t x = *random; /* xorshift64*: Vigna, 2016 */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *random = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

static int64_t
distance(uint64_t *random, double mean)
{
    double u = (double)((drawn(random) >> 11) + 1) * 0x1p-53; /* in (0, 1] */
    double far = -log(u) * mean;
    return far < 0x1p62 ? (int64_t)far : INT64_MAX / 2;
}

/* The next point lies so far on. A thread looks up more often than that, to see that
 * another beginning has come. */
static void
set_out(cxp_alloc_thread *mine, int64_t far)
{
    enum { LOOK_UP = 1 << 18 };
    mine->left = far < LOOK_UP ? far : LOOK_UP;
    mine->more = far - mine->left;
}

int
cxp_alloc_due_(cxp_alloc_sampler *s, cxp_alloc_thread *mine, size_t n)
{
    if (!__atomic_load_n(&s->on, __ATOMIC_ACQUIRE)) {
        set_out(mine, 0);
        mine->era = 0;
        return 0;
    }
    uint32_t era = __atomic_load_n(&s->era, __ATOMIC_RELAXED);
    int64_t far = mine->left + mine->more;
    if (mine->era != era) { /* it has no point yet */
        if (!mine->random)
            mine->random = (uint64_t)(uintptr_t)mine * UINT64_C(0x9E3779B97F4A7C15) | 1;
        mine->era = era;
        far = distance(&mine->random, s->mean) - (int64_t)n;
    }
    int due = far < 0;
    set_out(mine, due ? distance(&mine->random, s->mean) : far);
    return due;
}

/* ---- Beginning and end ---- */

void
cxp_alloc_init(cxp_alloc_sampler *s)
{
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
}

int
cxp_alloc_begin(cxp_alloc_sampler *s, double mean, uint32_t most)
{
    uint32_t slots = 2;
    while (slots < 2 * most)
        slots *= 2;
    cxp_alloc_place *places = calloc(most, sizeof *places);
    uint32_t *index = calloc(slots, sizeof *index);
    cxp_alloc_sample *samples = calloc(FIRST_SAMPLES, sizeof *samples);
    if (!places || !index || !samples) {
        free(places);
        free(index);
        free(samples);
        return -1;
    }
    cxp_alloc_lock(s);
    s->places = places;
    s->index = index;
    s->samples = samples;
    s->used = 1; /* the root */
    s->most = most;
    s->index_mask = slots - 1;
    s->live = 0;
    s->mask = FIRST_SAMPLES - 1;
    s->sampled = s->dropped = s->merged = 0;
    s->mean = mean;
    memset(s->filter, 0, sizeof s->filter);
    __atomic_store_n(&s->era, s->era + 1 ? s->era + 1 : 1, __ATOMIC_RELAXED);
    __atomic_store_n(&s->on, 1, __ATOMIC_RELEASE);
    cxp_alloc_unlock(s);
    return 0;
}

void
cxp_alloc_end(cxp_alloc_sampler *s, cxp_alloc_place **places, uint32_t *used)
{
    cxp_alloc_lock(s);
    __atomic_store_n(&s->on, 0, __ATOMIC_RELEASE);
    *places = s->places;
    *used = s->places ? s->used : 0;
    free(s->index);
    free(s->samples);
    s->places = NULL;
    s->index = NULL;
    s->samples = NULL;
    s->live = 0;
    for (size_t i = 0; i < sizeof s->filter; i++)
        __atomic_store_n(&s->filter[i], 0, __ATOMIC_RELAXED);
    cxp_alloc_unlock(s);
}

/* ---- Places ---- */

static uint32_t
place_hash(uint32_t parent, const void *where, int32_t at)
{
    uint64_t x = (uint64_t)(uintptr_t)where ^ (uint64_t)parent << 40 ^
                 (uint64_t)(uint32_t)at << 17;
    x *= UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(x >> 32);
}

uint32_t
cxp_alloc_node(cxp_alloc_sampler *s, uint32_t parent, const void *where, int32_t at,
               int *made)
{
    *made = 0;
    uint32_t i = place_hash(parent, where, at) & s->index_mask;
    for (; s->index[i]; i = (i + 1) & s->index_mask) {
        const cxp_alloc_place *known = &s->places[s->index[i] - 1];
        if (known->where == where && known->at == at && known->parent == parent)
            return s->index[i] - 1;
    }
    if (s->used == s->most) {
        s->merged++;
        return parent;
    }
    uint32_t node = s->used++;
    s->places[node].where = where;
    s->places[node].at = at;
    s->places[node].parent = parent;
    s->index[i] = node + 1;
    *made = 1;
    return node;
}

/* ---- Samples: open addressing by address, at most half full ---- */

static size_t
home(const cxp_alloc_sampler *s, uintptr_t p)
{
    return (size_t)((uint64_t)(p >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 24) & s->mask;
}

static size_t
slot_of(const cxp_alloc_sampler *s, uintptr_t p)
{
    size_t i = home(s, p);
    while (s->samples[i].p && s->samples[i].p != p)
        i = (i + 1) & s->mask;
    return i;
}

static int
grown(cxp_alloc_sampler *s)
{
    size_t old = s->mask + 1;
    cxp_alloc_sample *before = s->samples, *more = calloc(2 * old, sizeof *more);
    if (!more)
        return 0;
    s->samples = more;
    s->mask = 2 * old - 1;
    for (size_t i = 0; i < old; i++)
        if (before[i].p)
            more[slot_of(s, before[i].p)] = before[i];
    free(before);
    return 1;
}

static void
count_cell(cxp_alloc_sampler *s, uintptr_t p, int by)
{
    uint8_t *cell = &s->filter[cxp_alloc_cell_(p)];
    uint8_t now = __atomic_load_n(cell, __ATOMIC_RELAXED);
    if (now != 255)
        __atomic_store_n(cell, (uint8_t)(now + by), __ATOMIC_RELAXED);
}

static void
taken_out(cxp_alloc_sampler *s, size_t hole)
{
    const cxp_alloc_sample *was = &s->samples[hole];
    s->places[was->node].live_bytes -= was->bytes;
    s->places[was->node].live_count -= (double)was->count;
    count_cell(s, was->p, -1);
    s->live--;
    for (size_t i = (hole + 1) & s->mask; s->samples[i].p; i = (i + 1) & s->mask)
        if (((i - home(s, s->samples[i].p)) & s->mask) >= ((i - hole) & s->mask)) {
            s->samples[hole] = s->samples[i];
            hole = i;
        }
    s->samples[hole].p = 0;
}

static void
put_in(cxp_alloc_sampler *s, const cxp_alloc_sample *sample)
{
    if (2 * (s->live + 1) > s->mask && !grown(s) && s->live + 1 > s->mask) {
        s->dropped++;
        return;
    }
    size_t i = slot_of(s, sample->p);
    if (s->samples[i].p) { /* freed where nobody saw it */
        taken_out(s, i);
        i = slot_of(s, sample->p);
    }
    s->samples[i] = *sample;
    s->live++;
    s->places[sample->node].live_bytes += sample->bytes;
    s->places[sample->node].live_count += (double)sample->count;
    count_cell(s, sample->p, 1);
}

void
cxp_alloc_note(cxp_alloc_sampler *s, void *p, size_t n, uint32_t node)
{
    double size = n ? (double)n : 1, chance = -expm1(-size / s->mean);
    cxp_alloc_sample sample = {(uintptr_t)p, size / chance, (float)(1 / chance), node};
    s->places[node].bytes += sample.bytes;
    s->places[node].count += (double)sample.count;
    s->sampled++;
    put_in(s, &sample);
}

int
cxp_alloc_forget(cxp_alloc_sampler *s, void *p, cxp_alloc_sample *was)
{
    int found = 0;
    cxp_alloc_lock(s);
    if (s->on) {
        size_t i = slot_of(s, (uintptr_t)p);
        found = s->samples[i].p != 0;
        if (found) {
            *was = s->samples[i];
            taken_out(s, i);
        }
    }
    cxp_alloc_unlock(s);
    return found;
}

void
cxp_alloc_again(cxp_alloc_sampler *s, const cxp_alloc_sample *was)
{
    cxp_alloc_lock(s);
    if (s->on && was->node < s->used)
        put_in(s, was);
    cxp_alloc_unlock(s);
}

cxp_alloc_place *
cxp_alloc_copy(cxp_alloc_sampler *s, uint32_t *used)
{
    cxp_alloc_place *copy = s->on ? malloc(s->used * sizeof *copy) : NULL;
    *used = copy ? s->used : 0;
    if (copy)
        memcpy(copy, s->places, s->used * sizeof *copy);
    return copy;
}
