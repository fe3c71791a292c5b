#!/usr/bin/env bash
# Rebuilds the guest tests from their sources and the guest library in ../lib. Needs gcc and binutils for x86-64 and for
# aarch64; the programs in ../built/tests are committed, so nobody needs this to run the project. They keep their symbols.
#   guests/tests/build.sh [OUTPUT FOLDER]      default: guests/built/tests
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-$here/../built/tests}"
out=$(cd "${1:-$here/../built/tests}" && pwd)
arm=${CROSS_COMPILE:-aarch64-linux-gnu-}

cd "$here"
common=(-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fno-pic -fno-pie
  -mgeneral-regs-only -fno-asynchronous-unwind-tables -fno-ident -ffile-prefix-map="$here"=. -nostdlib -static -no-pie
  -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments)
arm_flags=("${common[@]}" -march=armv8-a -mstrict-align -mno-outline-atomics)
arm_library=(../lib/ucall.c ../lib/memory.c ../lib/arm64/exceptions.c ../lib/arm64/handlers.S ../lib/arm64/start.S -T ../lib/arm64/guest.ld)

"${arm}gcc" "${arm_flags[@]}" arm64/debug.c "${arm_library[@]}" -o "$out/debug-arm64.elf"
"${arm}gcc" "${arm_flags[@]}" arm64/exceptions.c arm64/probe.S "${arm_library[@]}" -o "$out/exceptions-arm64.elf"
"${arm}gcc" "${arm_flags[@]}" -DEXCEPTION_FRAME_V2 arm64/exceptions.c arm64/probe.S "${arm_library[@]}" \
  -o "$out/exceptions-v2-arm64.elf"

"${CC:-gcc}" "${common[@]}" -mno-red-zone -fcf-protection=none x86_64/exceptions.c ../lib/ucall.c ../lib/memory.c \
  ../lib/x86_64/exceptions.c ../lib/x86_64/handlers.S -T ../lib/x86_64/guest.ld -o "$out/exceptions-x86_64.elf"
{
  "${CC:-gcc}" --version | head -n 1
  "${arm}gcc" --version | head -n 1
} >"$out/toolchain.txt"
