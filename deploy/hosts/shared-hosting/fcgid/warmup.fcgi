#!/bin/sh
# What mod_fcgid starts: the responder with its settings. Program and settings are outside the site, so that no one can
# download them. mod_fcgid hands a process one request at a time, so more than one worker would be idle.
WARMUP_CONFIG="/home/YOU/warmup.conf" WARMUP_WORKERS=1 WARMUP_DB_CONNECTIONS=1
export WARMUP_CONFIG WARMUP_WORKERS WARMUP_DB_CONNECTIONS
exec "/home/YOU/warmup/warmup.fcgi"
