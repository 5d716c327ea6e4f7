/* What memory belongs to, by its address: one entry for each 2 MiB of address space.
 *
 * Two levels over 47 bits of address, as user space has on 64-bit systems (more only
 * where a program asks for it). The root lies in .bss and costs nothing untouched; a
 * leaf of 64 KiB is made when something in its 16 GiB is first set, and stays: a few
 * of them serve a whole process.
 *
 * Thread-safe: an entry is read and written atomically; who sets one sees to it that
 * nobody else has memory of its chunk in use meanwhile.
 */
#ifndef CTXPOOL_PAGE_MAP_H
#define CTXPOOL_PAGE_MAP_H

#include <stddef.h>

#define CXP_PAGE_MAP_CHUNK ((size_t)1 << 21)

/* The entry for an address, NULL where none was set. Two loads. */
void *cxp_page_map_get(const void *p);

/* 0, or -1 for an address beyond 47 bits or where there is no memory for a leaf. */
int cxp_page_map_set(const void *p, void *entry);

#endif /* CTXPOOL_PAGE_MAP_H */
