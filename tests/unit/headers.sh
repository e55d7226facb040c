#!/bin/sh
# Compiles every header alone, twice in one unit: none may need another one first, or lack a guard.
# Takes CC and CPPFLAGS as make does; says nothing if all is well.
set -u
cd "$(dirname "$0")/../.." || exit 2

: "${CC:=cc}"
: "${CPPFLAGS:=-D_GNU_SOURCE -Ishared -Ifcgi -Ideploy $(pkg-config --cflags libpq libcurl libcjson libcrypto)}"
failed=0

for header in shared/*.h fcgi/*.h deploy/*.h; do
    # CC and CPPFLAGS are lists of words.
    # shellcheck disable=SC2086
    if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
        $CC -std=c11 $CPPFLAGS -I. -Wall -Wextra -Werror -fsyntax-only -x c -; then
        echo "$header does not compile alone" >&2
        failed=$((failed + 1))
    fi
done

test "$failed" -eq 0
