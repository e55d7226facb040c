/*
 * clock.h: time.  Every limit of this program is a deadline on the monotonic clock, so that a
 * step of the wall clock can neither cut a request short nor hold it.
 */
#ifndef WARMUP_CLOCK_H
#define WARMUP_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define CLOCK_US_PER_MS INT64_C(1000)
#define CLOCK_TEXT_MAX  28 /* "2026-04-20T15:00:00.123456Z" and its NUL */

/* Microseconds on the monotonic clock. */
int64_t clock_now_us(void);

/* The deadline that lies limit_ms from now. */
int64_t clock_deadline_us(int limit_ms);

/* Milliseconds until a deadline, rounded up, 0 when it has passed, INT_MAX at most: what poll()
   takes. */
int clock_left_ms(int64_t deadline_us);

/* Sleeps for pause_us, but never past the deadline. */
void clock_sleep_us(int64_t pause_us, int64_t deadline_us);

/* The earlier of a deadline and limit_ms from now: the share of one try, so that a try which hangs
   leaves time for another one. */
int64_t clock_share_us(int64_t deadline_us, int limit_ms);

/* Writes a wall clock time, in microseconds since 1970, as RFC 3339 in UTC; a fraction only if it
   is not zero.  Gives NULL for a year that RFC 3339 cannot write (before 0001, after 9999). */
const char *clock_format(int64_t unix_us, char text[CLOCK_TEXT_MAX]);

#endif
