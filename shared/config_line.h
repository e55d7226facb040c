/*
 * config_line.h: one line of the settings file.  Pure.  Read as systemd's EnvironmentFile reads it,
 * because the same file may be given to both; a line that needs more of its rules than these (one
 * that the next line continues, text behind a quote, a backslash outside quotes) is refused rather
 * than guessed, and so is one that its versions read differently.
 */
#ifndef WARMUP_CONFIG_LINE_H
#define WARMUP_CONFIG_LINE_H

enum config_line {
	CONFIG_LINE_EMPTY,      /* or a comment */
	CONFIG_LINE_SETTING,    /* NAME=value, whether there is such a setting or not */
	CONFIG_LINE_NO_SETTING, /* not of that form: then it may be part of a value */
	CONFIG_LINE_UNCLEAR     /* its quotes or backslashes: of a name, or of a comment ("") */
};

/* Takes a line apart, in place. Name and value point into it; "" if it has none. */
enum config_line config_line_read(char *line, const char **name, const char **value);

#endif
