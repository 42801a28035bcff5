#!/bin/sh
# Makes all tables and figures of this folder from the committed rows: sh leaderboards/tables.sh FOLDER
# A test runs the same lines and compares.
set -eu
cd "$1"
while read -r line; do
    case $line in "" | "#"*) continue ;; esac
    # shellcheck disable=SC2086
    mrbench $line
done < tables.txt
