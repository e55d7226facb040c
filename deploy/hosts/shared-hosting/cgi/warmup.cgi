#!/bin/sh
# What Apache starts for each request: the responder with its settings. Program and settings are outside the site, so
# that no one can download them.
WARMUP_CONFIG="/home/YOU/warmup.conf"
export WARMUP_CONFIG
exec "/home/YOU/warmup/warmup.fcgi"
