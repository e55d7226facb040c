/* config_line.c: see config_line.h. */
#include "config_line.h"

#include "err.h"

#include <string.h>

static const char name_characters[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";

/* What a backslash protects between double quotes; before anything else it stands for itself. */
static const char protected[] = "\"\\`$";

/* Takes the quotes off a value, in place: 'as it is', or "with \" and \\". */
static enum err
unquote(char *value)
{
	size_t len = strlen(value), from = 1, to = 0;
	char quote = value[0];

	if (quote != '\'' && quote != '"')
		return strchr(value, '\\') != NULL ? ERR_CONFIG : ERR_OK;
	for (; from < len && value[from] != quote; from++) {
		if (quote == '"' && value[from] == '\\' && value[from + 1] != '\0' &&
			strchr(protected, value[from + 1]) != NULL)
			from++;
		value[to++] = value[from];
	}
	if (from + 1 != len)
		return ERR_CONFIG;
	value[to] = '\0';
	return ERR_OK;
}

static char *
trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\r");
	len = strlen(text);
	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
		len--;
	text[len] = '\0';
	return text;
}

enum config_line
config_line_read(char *line, const char **name, const char **value)
{
	char *start = trim(line), *equals = strchr(start, '='), *behind;

	*name = *value = "";
	if (start[0] == '\0')
		return CONFIG_LINE_EMPTY;
	/* A carriage return within is the end of a line to systemd. */
	if (strchr(start, '\r') != NULL)
		return CONFIG_LINE_NO_SETTING;
	/* Behind a backslash the next line is part of the comment, to systemd before version 254. */
	if (start[0] == '#' || start[0] == ';')
		return start[strlen(start) - 1] == '\\' ? CONFIG_LINE_UNCLEAR : CONFIG_LINE_EMPTY;
	if (equals == NULL)
		return CONFIG_LINE_NO_SETTING;
	*equals = '\0';
	behind = trim(equals + 1);
	start = trim(start);
	/* `export NAME=value` is refused, too: systemd would not read it either. */
	if (start[0] == '\0' || start[strspn(start, name_characters)] != '\0')
		return CONFIG_LINE_NO_SETTING;
	*name = start;
	if (unquote(behind) != ERR_OK)
		return CONFIG_LINE_UNCLEAR;
	*value = behind;
	return CONFIG_LINE_SETTING;
}
