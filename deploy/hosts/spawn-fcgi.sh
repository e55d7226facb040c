#!/bin/sh
# Starts the responder on a Unix socket with spawn-fcgi, for a web server of the account www-data, where there is no
# systemd. It stays in the foreground, its log on standard error: so start it from whatever supervises processes
# (runit, s6, daemontools, supervisord, a line of inittab) and let that start it again should it end. Run it as root.
set -eu

WARMUP_CONFIG=/etc/warmup/warmup.conf
export WARMUP_CONFIG

# The socket belongs to the web server's group and is mode 0660: whoever can write to it gets past the web server.
# -b: the queue for requests that come while all workers are busy. -n: no fork, and the log is not thrown away.
exec spawn-fcgi -n -s /run/warmup.sock -M 0660 -u www-data -g www-data -b 512 -- /usr/local/lib/warmup/warmup.fcgi
