#!/usr/bin/env bash
# Builds one of the programs, translation, debug or registers, into FILE. Needs gcc and binutils for aarch64.
#   diff/a64-system/build.sh NAME FILE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case $1 in
  translation) entry=access.S ;;
  debug | registers) entry=debug-entry.S ;;
esac
"${CROSS_COMPILE:-aarch64-linux-gnu-}gcc" -std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector \
  -fno-pic -fno-pie -mgeneral-regs-only -mstrict-align -mno-outline-atomics -fno-tree-loop-distribute-patterns \
  -fno-asynchronous-unwind-tables -nostdlib -static -no-pie -march=armv8-a -Wl,--build-id=none -Wl,-z,noexecstack \
  -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -T "$here/bare.ld" "$here/$entry" "$here/$1.c" -o "$2"
