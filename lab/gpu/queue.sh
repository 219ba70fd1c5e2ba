#!/bin/bash
# On the GPU machine: run the lines of a file one after the other, detached from the call. A line is the arguments of
# measure.py, or a command after `!`. The folder of the file (launch files) is copied beside the kit.
# usage: queue.sh QUEUE    Results gather in /tmp/results; /tmp/results/QUEUE_DONE is written last.
kit=$(cd "$(dirname "$0")" && pwd)
mkdir -p /tmp/results /tmp/kit && rm -f /tmp/results/QUEUE_DONE
cp "$kit"/*.py "$kit"/*.sh /tmp/kit/ && cp "$(dirname "$1")"/* /tmp/kit/
# shellcheck disable=SC2016  # the inner shell expands its own words
setsid bash -c 'cd /tmp/kit; export PYTHONPATH=/tmp/site:/tmp/kit PYTHONDONTWRITEBYTECODE=1; while read -r line; do
  echo "== $(date +%T) $line"
  case $line in
    "!"*) time ${line#!} </dev/null ;;
    *) python3 measure.py $line </dev/null ;;
  esac
done < <(grep -v "^#" "$1"); touch /tmp/results/QUEUE_DONE' queue "/tmp/kit/$(basename "$1")" > /tmp/results/queue.txt 2>&1 < /dev/null &
