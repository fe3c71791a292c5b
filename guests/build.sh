#!/usr/bin/env bash
# Rebuilds the guest images from their sources. Needs gcc and binutils for x86-64 and for aarch64; the images in
# guests/built are committed, so nobody needs this to run the project.
#   guests/build.sh [OUTPUT FOLDER]      default: guests/built
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/built}
cc=${CC:-gcc}
arm=${CROSS_COMPILE:-aarch64-linux-gnu-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)

common=(-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fno-pic -fno-pie
  -mgeneral-regs-only -fno-asynchronous-unwind-tables -fno-ident)
cd "$here/x86_64"
flags=("${common[@]}" -mno-red-zone -fcf-protection=none)
link=(-nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments)

"$cc" "${flags[@]}" -mcmodel=large "${link[@]}" -T process/process.ld process/start.S process/main.c -o "$work/process.elf"
objcopy -O binary --set-section-flags .data=alloc,load,contents "$work/process.elf" "$work/process.bin"
"$cc" "${flags[@]}" "${link[@]}" -DPROCESS_IMAGE="\"$work/process.bin\"" -T kernel/kernel.ld \
  kernel/boot.S kernel/*.c -o "$work/sva.elf"
strip -s "$work/sva.elf"
cp "$work/sva.elf" "$out/sva-x86_64.elf"
"$cc" "${flags[@]}" "${link[@]}" -T sev/sev.ld sev/boot.S sev/main.c -o "$work/sev.elf"
strip -s "$work/sev.elf"
cp "$work/sev.elf" "$out/sev-x86_64.elf"
"$cc" "${flags[@]}" "${link[@]}" -T private/private.ld private/boot.S private/main.c -o "$work/private.elf"
strip -s "$work/private.elf"
cp "$work/private.elf" "$out/private-x86_64.elf"

cd "$here/arm64"
flags=("${common[@]}" -march=armv8-a -mstrict-align -mno-outline-atomics -fno-tree-loop-distribute-patterns)
"${arm}gcc" "${flags[@]}" -mcmodel=tiny "${link[@]}" -T process/process.ld process/start.S process/main.c -o "$work/process.elf"
"${arm}objcopy" -O binary --set-section-flags .data=alloc,load,contents "$work/process.elf" "$work/process.bin"
"${arm}gcc" "${flags[@]}" "${link[@]}" -DPROCESS_IMAGE="\"$work/process.bin\"" -T kernel/kernel.ld \
  kernel/boot.S kernel/*.c -o "$work/sva.elf"
"${arm}strip" -s "$work/sva.elf"
cp "$work/sva.elf" "$out/sva-arm64.elf"

{
  "$cc" --version | head -n 1
  "${arm}gcc" --version | head -n 1
} >"$out/toolchain.txt"
ls -l "$out"/sva-*.elf
