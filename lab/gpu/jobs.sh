#!/bin/bash
# On the GPU machine: run /tmp/jobs/*.job in the background, one after another, in the order of their names.
# Jobs may be added or removed meanwhile, so that no card waits for the next call.
# A line of a job is `SITE arguments of measure.py`. The lines of a job run side by side: line n on GPU n and port 8000 + n.
# A job with `all` in its name has one line, which uses every GPU. A line that starts with `!` is a command.
# usage: jobs.sh FOLDER            copy FOLDER (launch files, jobs) and start
#        jobs.sh --wait JOB LIMIT  wait until JOB is done, LIMIT seconds at most; then pack everything but traces into $OUT
kit=$(cd "$(dirname "$0")" && pwd)
if [ "$1" = --wait ]; then
  until [ -e "/tmp/jobs/$2.done" ] || [ "$SECONDS" -ge "$3" ]; do sleep 1; done
  ls /tmp/jobs
  for log in /tmp/results/*.log; do [ -e "$log" ] && { echo "== $log"; tail -n 4 "$log" | cut -c1-300; }; done
  tail -c "${4:-6000}" /tmp/results/jobs.txt
  tar czf "$OUT/results.tar.gz" -C /tmp/results --exclude='*.traces' . && ls -l "$OUT"
  exit
fi
mkdir -p /tmp/results /tmp/kit /tmp/jobs
cp "$kit"/*.py "$kit"/*.sh /tmp/kit/ && cp "$1"/*.json /tmp/kit/ && cp "$1"/*.job /tmp/jobs/
[ -e /tmp/jobs/runner ] && exit
touch /tmp/jobs/runner
# shellcheck disable=SC2016  # the inner shell expands its own words
setsid bash -c 'cd /tmp/kit; export PYTHONDONTWRITEBYTECODE=1; while sleep 1; do
  job=$(ls /tmp/jobs/*.job 2>/dev/null | head -n 1); [ -n "$job" ] || continue
  mv "$job" "${job%.job}.running"; gpu=0
  while read -r site line; do
    echo "== $(date +%T) $(basename "$job") $site $line"
    place="--env CUDA_VISIBLE_DEVICES=$gpu --set port=$((8000 + gpu))"; case $job in *all*) place= ;; esac
    case $site in
      "!"*) bash -c "${site#!} $line" </dev/null & ;;
      *) SITE=$site PYTHONPATH=$site:/tmp/kit python3 measure.py $line $place </dev/null & ;;
    esac
    gpu=$((gpu + 1))
  done < "${job%.job}.running"
  wait; mv "${job%.job}.running" "${job%.job}.done"
done' jobs > /tmp/results/jobs.txt 2>&1 < /dev/null &
