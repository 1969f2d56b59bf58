#!/bin/sh
# In place of apt-get: finds a lock held by somebody else in its first two calls, and then installs. With NEVER set it
# cannot install at all. Each call leaves a line in the file that CALLS names.
echo "$*" >>"$CALLS"
if [ -n "$NEVER" ]; then
    echo "E: Unable to locate package" >&2
    exit 100
fi
if [ "$(wc -l <"$CALLS")" -lt 3 ]; then
    echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)" >&2
    exit 100
fi
