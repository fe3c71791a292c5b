#!/usr/bin/env bash
# Rebuilds the guest images from their sources. Needs gcc and binutils for x86-64; the images in
# guests/built are committed, so nobody needs this to run the project.
#   guests/build.sh [OUTPUT FOLDER]      default: guests/built
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/built}
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)

cd "$here/x86_64"
flags=(-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fno-pic -fno-pie
  -mno-red-zone -mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables -fno-ident)
link=(-nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments)

"$cc" "${flags[@]}" -mcmodel=large "${link[@]}" -T process/process.ld process/start.S process/main.c -o "$work/process.elf"
objcopy -O binary --set-section-flags .data=alloc,load,contents "$work/process.elf" "$work/process.bin"
"$cc" "${flags[@]}" "${link[@]}" -DPROCESS_IMAGE="\"$work/process.bin\"" -T kernel/kernel.ld \
  kernel/boot.S kernel/*.c -o "$work/sva.elf"
strip -s "$work/sva.elf"
cp "$work/sva.elf" "$out/sva-x86_64.elf"
"$cc" --version | head -n 1 >"$out/toolchain.txt"
ls -l "$out/sva-x86_64.elf"
