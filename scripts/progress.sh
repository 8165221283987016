# Sourced by scripts/up and scripts/test: runs stages one after the other, each with its output in a log file and one line of progress.
# shellcheck shell=bash

export NINJA_STATUS="[%p %f/%t] "

stage_names=()
stage_seconds=()
stage_results=()
stage_child=
# How compilers, GoogleTest, ctest, our client tests and sanitizers announce a failure.
failure_lines='(error|FAILED):|^FAIL |\[  FAILED  \] .*\.|: Failure$|\*\*\*(Failed|Timeout|Exception|Not Run)|ERROR: |WARNING: ThreadSanitizer'

# Ends the running stage with everything it started: each stage is a process group of its own.
stop_stage() {
  [ -n "$stage_child" ] || return 0
  kill -TERM -- "-$stage_child" 2>/dev/null || true
  wait "$stage_child" 2>/dev/null || true
  stage_child=
}

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# The last progress a log shows: ninja's "[ 43% 120/280]", ctest's " 3/12 Test".
progress_of() {
  local text
  text=$(tail -c 4000 "$1" 2>/dev/null | tr '\r' '\n' | grep -aoE '^\[ *[0-9]+% [0-9]+/[0-9]+\]|^ *[0-9]+/[0-9]+ Test' | tail -n 1) || return 0
  case $text in
    *%*) [[ $text =~ ([0-9]+)%\ ([0-9]+/[0-9]+) ]] && printf '%s %s' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" ;;
    *) [[ $text =~ ([0-9]+)/([0-9]+) ]] && printf '%s %s/%s' $((100 * BASH_REMATCH[1] / BASH_REMATCH[2])) "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" ;;
  esac
}

show_progress() {  # name, seconds, log
  local percent counts bar=
  read -r percent counts <<<"$(progress_of "$3")" || true
  if [ -n "$percent" ]; then
    local filled=$((percent / 5)) i
    for ((i = 0; i < 20; i++)); do [ $i -lt $filled ] && bar+='█' || bar+='░'; done
    bar="$bar $(printf '%3d' "$percent") %  $counts"
  else
    bar='…'
  fi
  if [ -t 1 ]; then printf '\r\033[K%-22s %s  %s' "$1" "$bar" "$(clock "$2")"; else printf '%-22s %s  %s\n' "$1" "$bar" "$(clock "$2")"; fi
}

# stage NAME LOG COMMAND...: 0 when the command succeeds. On failure shows the end of the log and where it is.
stage() {
  local name=$1 log=$2 rc=0 began=$SECONDS shown=0 took
  shift 2
  mkdir -p "$(dirname "$log")"
  [ -t 1 ] || echo "$name …"
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  stage_child=$!
  set +m
  while kill -0 "$stage_child" 2>/dev/null; do
    sleep 0.3
    took=$((SECONDS - began))
    if [ -t 1 ]; then
      show_progress "$name" "$took" "$log"
    elif [ $((took - shown)) -ge 30 ]; then
      shown=$took
      show_progress "$name" "$took" "$log"
    fi
  done
  wait "$stage_child" || rc=$?
  stage_child=
  took=$((SECONDS - began))
  stage_names+=("$name")
  stage_seconds+=("$took")
  [ -t 1 ] && printf '\r\033[K'
  if [ $rc -eq 0 ]; then
    stage_results+=(ok)
    printf '%-22s done in %s\n' "$name" "$(clock "$took")"
    return 0
  fi
  stage_results+=(FAILED)
  printf '%-22s FAILED after %s (status %d); the end of %s:\n' "$name" "$(clock "$took")" "$rc" "$log"
  # What failed may stand far above the end.
  grep -anE "$failure_lines" "$log" | head -n 30 | cut -c -240 | sed 's/^/    line /' || true
  tail -n 30 "$log" | sed 's/^/    /'
  printf '%-22s the whole log: %s\n' "$name" "$log"
  return "$rc"
}

summary() {
  local i
  echo
  printf '%-22s %-8s %s\n' stage result time
  for i in "${!stage_names[@]}"; do printf '%-22s %-8s %s\n' "${stage_names[$i]}" "${stage_results[$i]}" "$(clock "${stage_seconds[$i]}")"; done
}

# Configures and builds a preset: build_preset NAME [NINJA TARGET...]. Configuring is skipped where ninja does it by itself.
build_preset() {
  local preset=$1
  shift
  if [ ! -f "build/$preset/build.ninja" ]; then
    stage "configure $preset" "build/logs/configure-$preset.log" cmake --preset "$preset" || return 1
  fi
  stage "build $preset" "build/logs/build-$preset.log" ninja -C "build/$preset" "$@"
}
