#!/bin/sh
# Everything that a machine with an NVIDIA card is needed for, in one command and under ten minutes:
# builds Heed for its card, checks every kernel there, and times kernels and peers.
#     bench/gpu.sh [--only check|bench|tune] [--device N] [--build DIR] [--output DIR]
#                  [--deps DIR] [--fetch-deps DIR] [--dry-run]
#
#     --only     check: heed-check on the card, compute-sanitizer on a few problems
#                bench: Heed, PyTorch's SDPA backends, copy and product limits, in turns
#                tune:  variants of Heed's kernels by themselves; on Hopper those of a build of
#                       its own (HEED_CUDA_TUNE=ON, in DIR/tune), checked first
#                all of them, in this order, where it is not given
#     --device   number of the card (0)
#     --build    build folder (build/gpu)
#     --output   folder of the JSON files (bench/results)
#     --deps     folder with libjansson*.deb, and cmake-*.whl where CMake is older than 3.25, for a
#                machine without network. Without jansson the heed command is left out: nothing else
#     --fetch-deps  fills such a folder, on a Debian or Ubuntu machine with network, and ends
#     --dry-run  prints the steps
#
# Needed: nvcc, CMake, a C compiler; for peers Python with PyTorch. hwloc, jansson, OpenMP, ninja
# and pkg-config are used where they are there. CMocka is not. The card's settings are left alone.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

only=all device=0 build=$root/build/gpu output=$root/bench/results deps='' dry_run=''
status=0 problems=''

say() { printf '%s\n' "gpu.sh: $*" >&2; }

stop() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^set -eu/p' "$0" | sed -n 's/^# \{0,1\}//p'
    exit "$1"
}

# Steps that fail are told again at the end; those after them still run.
failed() {
    say "FAILED: $*"
    problems="$problems
    $*"
    status=1
}

# run SECONDS command...: the command, or its text in a dry run.
run() {
    limit=$1
    shift
    if [ -n "$dry_run" ]; then
        echo "[$limit s] $*"
    elif command -v timeout >/dev/null; then
        timeout -k 10 "$limit" "$@"
    else
        "$@"
    fi
}

fetch_deps() {
    mkdir -p "$1"
    cd "$1"
    apt-get download libjansson4 libjansson-dev || stop "apt-get cannot download the packages"
    python3 -m pip download -q --no-deps --only-binary=:all: 'cmake>=3.25' ||
        say "cmake could not be downloaded: the other machine needs 3.25 or later"
    say "take this folder along, and give it as --deps: $(pwd)"
    exit 0
}

while [ $# -gt 0 ]; do
    case $1 in
    --only | --device | --build | --output | --deps | --fetch-deps)
        [ $# -gt 1 ] || stop "$1 needs a value"
        case $1 in
        --only) only=$2 ;;
        --device) device=$2 ;;
        --build) build=$2 ;;
        --output) output=$2 ;;
        --deps) deps=$2 ;;
        --fetch-deps) fetch_deps "$2" ;;
        esac
        shift
        ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
    shift
done
case $only in
all | check | bench | tune) ;;
*) stop "--only takes check, bench or tune, not $only" ;;
esac
case $device in '' | *[!0-9]*) stop "--device takes the number of a card, not $device" ;; esac
[ -z "$deps" ] || [ -d "$deps" ] || stop "--deps: $deps is no folder"

# ---- the machine ---------------------------------------------------------------------------------

# query FIELD: what nvidia-smi tells of the card, nothing where it does not.
query() {
    told=$(nvidia-smi --id="$device" --query-gpu="$1" --format=csv,noheader 2>/dev/null) || return 1
    case $told in *'No devices'*) return 1 ;; esac
    printf '%s\n' "$told" | head -n 1
}

find_card() {
    card=$(query name) || card=''
    capability=$(query compute_cap) || capability=''
    if [ -z "$card" ] && [ ! -e "/dev/nvidia$device" ] && [ -z "$dry_run" ]; then
        stop "there is no NVIDIA card number $device here: nvidia-smi tells of none, and" \
            "/dev/nvidia$device is not there. Nothing was done"
    fi
    # Only this card's code is built; all of them where it is not known.
    case $capability in
    8.0) architectures=80 ;;
    8.6) architectures=86 ;;
    8.9) architectures=89 ;;
    9.0) architectures=90a ;;
    10.0) architectures=100 ;;
    12.0) architectures=120 ;;
    *) architectures='80;86;89;90a;100;120' ;;
    esac
    slug=$(printf '%s' "${card:-card}" | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9-')
}

find_nvcc() {
    for folder in "${CUDA_HOME:-}/bin" "${CUDA_PATH:-}/bin" /usr/local/cuda/bin; do
        command -v nvcc >/dev/null && break
        [ -x "$folder/nvcc" ] && PATH=$folder:$PATH
    done
    export PATH
    command -v nvcc >/dev/null || [ -n "$dry_run" ] ||
        stop "nvcc is not there: the CUDA toolkit, 12.4 or later, is needed"
}

unpack_deps() {
    [ -n "$deps" ] || return 0
    mkdir -p "$build/deps"
    for file in "$deps"/*.deb; do
        [ -e "$file" ] || continue
        run 60 dpkg-deb -x "$file" "$build/deps" || failed "$file cannot be unpacked"
    done
    for file in "$deps"/cmake-*.whl; do
        [ -e "$file" ] || continue
        run 60 python3 -m zipfile -e "$file" "$build/deps/wheel" ||
            failed "$file cannot be unpacked"
    done
}

cmake_is_new() {
    cmake --version 2>/dev/null | awk '
        NR == 1 { split($3, v, "."); new = v[1] > 3 || v[1] == 3 && v[2] >= 25 }
        END { exit !new }'
}

find_cmake() {
    cmake_is_new && return
    found=$(find "$build/deps/wheel" -path '*/bin/cmake' 2>/dev/null | head -n 1)
    if [ -n "$found" ]; then
        chmod +x "$(dirname "$found")"/*
        PATH=$(dirname "$found"):$PATH
        export PATH
    fi
    cmake_is_new || [ -n "$dry_run" ] ||
        stop "CMake 3.25 or later is needed, here is: $(cmake --version 2>/dev/null | head -n 1)." \
            "A cmake-*.whl in --deps DIR would do"
}

# has HEADER [FLAG...]: whether the compiler finds it.
has() {
    header=$1
    shift
    echo "#include <$header>" | "${CC:-cc}" "$@" -x c -fsyntax-only - >/dev/null 2>&1
}

# choose_options FOLDER FLAG...: configures a build. What can be left out is left out where what it
# needs is missing.
choose_options() {
    folder=$1
    shift
    command -v "${CC:-cc}" >/dev/null || stop "there is no C compiler: ${CC:-cc}"
    has hwloc.h || set -- "$@" -DHEED_HWLOC=OFF
    has omp.h -fopenmp || set -- "$@" -DHEED_OPENMP=OFF
    tools=ON
    has jansson.h || has jansson.h "-I$build/deps/usr/include" || tools=OFF
    [ $tools = ON ] || say "without jansson the heed command is left out (--deps)"
    [ ! -d "$build/deps/usr" ] || set -- "$@" "-DCMAKE_PREFIX_PATH=$build/deps/usr"
    ! command -v ninja >/dev/null || set -- "$@" -G Ninja
    run 120 cmake -S "$root" -B "$folder" "$@" -DCMAKE_BUILD_TYPE=Release -DHEED_CUDA=ON \
        "-DHEED_CUDA_ARCHITECTURES=$architectures" -DHEED_BUILD_TESTS=OFF -DHEED_BUILD_CHECK=ON \
        -DHEED_BUILD_TOOLS=$tools -DHEED_INSTALL=OFF >&2
}

# build_heed FOLDER FLAG...
build_heed() {
    cores=$(nproc 2>/dev/null || echo 4)
    if ! choose_options "$@"; then
        failed "Heed cannot be configured in $1"
        return 1
    fi
    if ! run 400 cmake --build "$1" -j "$cores" >&2; then
        failed "Heed cannot be built in $1"
        return 1
    fi
}

# ---- parts ---------------------------------------------------------------------------------------

check_card() {
    run 280 "$build/tests/heed-check" --device "cuda:$device" --seconds 60 ||
        failed "heed-check on cuda:$device"
    command -v compute-sanitizer >/dev/null || {
        say "compute-sanitizer is not there: left out"
        return 0
    }
    # Refusals are fine here; 99 is the sanitizer's own.
    for prob in 'attention sq=150 sk=200 hq=4 hk=2 d=128 dtype=bf16 causal=1 lse=1' \
        'attention sq=2 sk=600 hq=8 hk=2 d=64 dtype=f16'; do
        code=0
        run 60 compute-sanitizer --tool memcheck --error-exitcode 99 "$build/tests/heed-check" \
            --device "cuda:$device" --prob "$prob" >"$build/sanitizer.log" 2>&1 || code=$?
        [ -n "$dry_run" ] && cat "$build/sanitizer.log"
        if [ $code -eq 99 ] && grep -q 'Device not supported' "$build/sanitizer.log"; then
            say "compute-sanitizer does not work on this machine: left out"
            return 0
        fi
        [ $code -ne 124 ] || say "compute-sanitizer was too slow and was stopped: $prob"
        grep -h 'ERROR SUMMARY' "$build/sanitizer.log" || true
        [ $code -ne 99 ] || failed "compute-sanitizer: $prob (see $build/sanitizer.log)"
    done
}

# Variants are built for Hopper only, beside the library that is checked and benched.
tune_card() {
    case $architectures in
    *90a*)
        build_heed "$build/tune" -DHEED_CUDA_TUNE=ON || return 0
        run 150 "$build/tune/tests/heed-check" --device "cuda:$device" --op attention \
            --impl 'cuda:flash_sm90_tune_*' --seconds 60 || failed "heed-check of the variants"
        library=$build/tune
        ;;
    esac
    time_card tune 90 --tune
}

# time_card PART SECONDS FLAG...: peers through PyTorch, without it Heed alone.
time_card() {
    part=$1
    seconds=$2
    shift 2
    file=$output/$slug-$part-$version.json
    mkdir -p "$output"
    if [ -n "$dry_run" ] || python3 -c 'import torch; torch.cuda.init()' 2>/dev/null; then
        run $((seconds + 90)) python3 "$root/bench/gpu_peers.py" --library "$library/libheed.so" \
            --device "$device" --seconds "$seconds" --output "$file" "$@" >"$build/$part.txt" ||
            failed "$part (gpu_peers.py)"
        [ -z "$dry_run" ] || cat "$build/$part.txt"
    elif [ -x "$library/bin/heed" ]; then
        say "PyTorch does not work here: no peers"
        run $((seconds + 90)) "$library/bin/heed" bench attention --device "cuda:$device" \
            --impl 'auto,cuda:*' --seconds 0.5 --no-check -o json \
            --shapes "$root/bench/shapes/gpu.txt" >"$file" || failed "$part (heed bench)"
        echo "results are in $file" >"$build/$part.txt"
    else
        failed "$part: there is neither PyTorch nor the heed command"
    fi
    [ ! -s "$file" ] || say "wrote $file"
}

wants() { [ "$only" = all ] || [ "$only" = "$1" ]; }

# ---- all of it -----------------------------------------------------------------------------------

find_card
find_nvcc
mkdir -p "$build"
rm -f "$build/bench.txt" "$build/tune.txt"
version=$(awk '/^#define HEED_VERSION_[A-Z]+ +[0-9]+$/ { v = v (v ? "." : "") $3 }
    END { print v }' "$root/include/heed/version.h")
say "card: ${card:-unknown}, compute capability ${capability:-unknown}," \
    "driver $(query driver_version || true)"
unpack_deps
find_cmake
library=$build
if [ "$only" != tune ] || [ "${architectures#*90a}" = "$architectures" ]; then
    build_heed "$build" || exit 1
fi
if wants check; then check_card; fi
if wants bench; then time_card bench 150; fi
if wants tune; then tune_card; fi
if [ -z "$dry_run" ]; then
    for part in tune bench; do
        [ ! -s "$build/$part.txt" ] || { echo "== $part" && cat "$build/$part.txt"; }
    done
fi
[ -z "$problems" ] || say "what failed:$problems"
exit $status
