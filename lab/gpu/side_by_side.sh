#!/bin/bash
# On the GPU machine, called from a queue: one measure.py for each line of a file, the n-th on the n-th GPU and port 8000 + n, all at once.
# usage: side_by_side.sh FILE
gpu=0
while read -r line; do
  # shellcheck disable=SC2086  # a line is several arguments
  PYTHONPATH=/tmp/site:/tmp/kit PYTHONDONTWRITEBYTECODE=1 python3 measure.py $line \
    --env CUDA_VISIBLE_DEVICES=$gpu --set port=$((8000 + gpu)) </dev/null &
  gpu=$((gpu + 1))
done < "$1"
wait
