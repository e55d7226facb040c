/* version.h: the one place that states the version. */
#ifndef WARMUP_VERSION_H
#define WARMUP_VERSION_H

#define WARMUP_VERSION "1.0.0"

#endif
