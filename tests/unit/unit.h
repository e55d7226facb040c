/*
 * unit.h: what all unit tests share: cmocka behind the headers it needs, a check that names the
 * row of a table, and random numbers that are the same on every run and machine.
 */
#ifndef WARMUP_TESTS_UNIT_H
#define WARMUP_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A block of its own: it includes nothing itself, so sorting must not move it up. */
#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Two initialisers: bytes that may hold NULs, and how many. */
#define BYTES(text) text, sizeof(text) - 1

/* As assert_true(), but tells which row or value it was: a format and its values. */
#define CHECK(condition, ...)                                                                      \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail_msg(__VA_ARGS__);                                                     \
	} while (0)

/* How much was tested, in the column of cmocka's own lines. */
#define TELL(...) printf("[          ] " __VA_ARGS__)

/* xorshift64*: any seed but 0. */
static inline uint64_t
unit_random(uint64_t *seed)
{
	*seed ^= *seed >> 12;
	*seed ^= *seed << 25;
	*seed ^= *seed >> 27;
	return *seed * UINT64_C(2685821657736338717);
}

/* A number from 0 to below - 1. */
static inline size_t
unit_random_below(uint64_t *seed, size_t below)
{
	return (size_t)((unit_random(seed) >> 16) % below);
}

#endif
