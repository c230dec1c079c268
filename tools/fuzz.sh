#!/usr/bin/env bash
# Runs every fuzz target of crates/core/fuzz for some seconds: `tools/fuzz.sh SECONDS [TARGET ...]` (make fuzz).
#
# Stable Rust suffices: coverage is a pass of LLVM, asked for by codegen flags; only the sanitizers would need a nightly,
# and the core has next to no unsafe code for them to watch. libFuzzer is compiled from the libfuzzer-sys crate (needs a
# C++ compiler). What a run learns stays in crates/core/fuzz/corpus, what broke in crates/core/fuzz/artifacts.
# Rejected: cargo-fuzz here. It would be one more thing to install, and adds the address sanitizer, which needs nightly.

set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:?usage: tools/fuzz.sh SECONDS [TARGET ...]}"
shift
# The bound on one input: longer ones take time and find nothing that shorter ones do not.
input_bytes_max="${FUZZ_INPUT_BYTES_MAX:-4096}"
fuzz=crates/core/fuzz
host="$(rustc -vV | sed -n 's/^host: //p')"

command -v c++ >/dev/null || { echo "fuzz: a C++ compiler is missing (Debian: apt-get install g++)" >&2; exit 1; }

# The flags of cargo-fuzz, without the sanitizer. With --target they do not reach build scripts.
flags="-Cpasses=sancov-module
 -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
 -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares
 --cfg=fuzzing"
RUSTFLAGS="$(echo $flags)" cargo build --quiet --release --locked \
    --manifest-path "$fuzz/Cargo.toml" --target "$host" --target-dir "$fuzz/target" --bins

if [ $# -eq 0 ]; then
    # Names in [[bin]] sections; the package itself is named in [package].
    mapfile -t targets < <(awk '/^\[/ { bin = ($0 == "[[bin]]") } bin && /^name *=/ { gsub(/.*= *"|".*/, ""); print }' "$fuzz/Cargo.toml")
    set -- "${targets[@]}"
fi

for target in "$@"; do
    corpus="$fuzz/corpus/$target"
    artifacts="$fuzz/artifacts/$target"
    mkdir -p "$corpus" "$artifacts"
    seeds=()
    [ -d "$fuzz/seeds/$target" ] && seeds=("$fuzz/seeds/$target")
    log="$fuzz/target/$target.log"
    if "$fuzz/target/$host/release/$target" "$corpus" "${seeds[@]}" -max_total_time="$seconds" \
        -max_len="$input_bytes_max" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$artifacts/" >"$log" 2>&1; then
        runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        echo "fuzz: $target: ${runs} inputs in $seconds s, nothing found"
    else
        tail -n 40 "$log" >&2
        echo "fuzz: $target: FAILED; the input is in $artifacts" >&2
        exit 1
    fi
done
