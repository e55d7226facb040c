/* clock.c: see clock.h. */
#include "clock.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#define US_PER_S   INT64_C(1000000)
#define US_PER_DAY (86400 * US_PER_S)

int64_t
clock_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * US_PER_S + now.tv_nsec / 1000;
}

int64_t
clock_deadline_us(int limit_ms)
{
	return clock_now_us() + limit_ms * CLOCK_US_PER_MS;
}

int
clock_left_ms(int64_t deadline_us)
{
	int64_t now = clock_now_us(), left_ms;

	if (deadline_us <= now)
		return 0;
	left_ms = (deadline_us - now - 1) / CLOCK_US_PER_MS + 1;
	return left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

void
clock_sleep_us(int64_t pause_us, int64_t deadline_us)
{
	int64_t until = clock_now_us() + pause_us;
	struct timespec at;

	if (until > deadline_us)
		until = deadline_us;
	at.tv_sec = (time_t)(until / US_PER_S);
	at.tv_nsec = (long)(until % US_PER_S) * 1000;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		;
}

int64_t
clock_share_us(int64_t deadline_us, int limit_ms)
{
	int64_t share_us = clock_deadline_us(limit_ms);

	return share_us < deadline_us ? share_us : deadline_us;
}

/*
 * Days since 1970 to a date of the proleptic Gregorian calendar.  gmtime() would do for most of
 * it, but its range and its errors differ between systems; this is exact for every int64.
 * Eras of 400 years, each year starting in March so that the leap day comes last.
 */
static void
civil_from_days(int64_t days, int64_t *year, int *month, int *day)
{
	int64_t shifted = days + 719468;
	int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	int64_t of_era = shifted - era * 146097;
	int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t march_month = (5 * of_year + 2) / 153;

	*day = (int)(of_year - (153 * march_month + 2) / 5 + 1);
	*month = (int)(march_month < 10 ? march_month + 3 : march_month - 9);
	*year = year_of_era + era * 400 + (*month <= 2);
}

const char *
clock_format(int64_t unix_us, char text[CLOCK_TEXT_MAX])
{
	int64_t days = unix_us / US_PER_DAY, of_day = unix_us % US_PER_DAY, year;
	int month, day, seconds, micros, used;

	if (of_day < 0) {
		of_day += US_PER_DAY;
		days--;
	}
	civil_from_days(days, &year, &month, &day);
	if (year < 1 || year > 9999)
		return NULL;
	seconds = (int)(of_day / US_PER_S);
	micros = (int)(of_day % US_PER_S);
	used = snprintf(text, CLOCK_TEXT_MAX, "%04d-%02d-%02dT%02d:%02d:%02d", (int)year, month,
		day, seconds / 3600, seconds / 60 % 60, seconds % 60);
	if (micros != 0) {
		used += snprintf(text + used, CLOCK_TEXT_MAX - (size_t)used, ".%06d", micros);
		while (text[used - 1] == '0')
			used--;
	}
	text[used++] = 'Z';
	text[used] = '\0';
	return text;
}
