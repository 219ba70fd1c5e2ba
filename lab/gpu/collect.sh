#!/bin/bash
# On the GPU machine: wait until the queue is done or LIMIT seconds are over, then hand back what is there.
# usage: collect.sh LIMIT
until [ -e /tmp/results/QUEUE_DONE ] || [ "$SECONDS" -ge "$1" ]; do sleep 1; done
tail -c 9000 /tmp/results/queue.txt
for log in /tmp/results/*.log; do [ -e "$log" ] && { echo "== $log"; tail -n 4 "$log" | cut -c1-300; }; done
tar czf "$OUT/results.tar.gz" -C /tmp/results . && ls -l "$OUT"
