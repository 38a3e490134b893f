#!/bin/sh
# Builds the fuzz targets and runs each for SECONDS. usage: [FUZZ_SEED=N] run.sh SECONDS [TARGET...]
# The same seed and an empty corpus give the same inputs in the same order; without one each run is another.
set -eu

seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
out=${CARGO_TARGET_DIR:-$here/../../target}/fuzz
mkdir -p "$out"
out=$(cd "$out" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
if [ $# -eq 0 ]; then
    set -- $(cd "$here/targets" && ls ./*.rs | sed 's|^\./||; s|\.rs$||')
fi

# The flags that cargo-fuzz gives, without a sanitizer: edge coverage, comparisons traced, counters that
# libFuzzer reads. One codegen unit keeps the counter sections whole. With --target they do not reach
# build scripts, which would not link.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
for target in "$@"; do
    RUSTFLAGS="$coverage" cargo build --quiet --release --manifest-path "$here/Cargo.toml" \
        --target-dir "$out" --target "$host" --bin "$target"
done
for target in "$@"; do
    mkdir -p "$out/corpus/$target" "$out/artifacts/$target"
    seeds=
    [ -d "$here/seeds/$target" ] && seeds="$here/seeds/$target"
    echo "== $target: $seconds s"
    "$out/$host/release/$target" -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$out/artifacts/$target/" "$out/corpus/$target" $seeds \
        > "$out/$target.log" 2>&1 || { tail -40 "$out/$target.log"; exit 1; }
    grep -E "^Done|cov:|stat::number_of_executed_units" "$out/$target.log" | tail -3
done
