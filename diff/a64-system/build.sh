#!/usr/bin/env bash
# Builds the translation program into FILE. Needs gcc and binutils for aarch64.
#   diff/a64-system/build.sh FILE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"${CROSS_COMPILE:-aarch64-linux-gnu-}gcc" -std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector \
  -fno-pic -fno-pie -mgeneral-regs-only -mstrict-align -mno-outline-atomics -fno-tree-loop-distribute-patterns \
  -fno-asynchronous-unwind-tables -nostdlib -static -no-pie -march=armv8-a -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096 \
  -Wl,--no-warn-rwx-segments -T "$here/translation.ld" "$here/access.S" "$here/translation.c" -o "$1"
