// A bare-metal program (translation.c, debug.c, registers.c) on the A64 core: RAM where QEMU's virt machine has it, a UART that only
// writes, and HVC ends it.

import { A64Core } from '../../src/cpu/a64/core.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { createRam } from '../../src/mem/ram.js'
import { symbolsOf } from '../../src/testing/kvm/elf-symbols.js'
import { ARM64_IMAGE, loadElf } from '../../src/vmm/elf.js'

const RAM_BYTES = 8 << 20
const UART = 0x0900_0000

/** What a run is made of. */
export interface Run {
  readonly seed: number
  readonly cases: number
  /** KB of the granules to use. */
  readonly granules: readonly (4 | 16 | 64)[]
}

/** The image with a run's numbers in it. */
export function patched(image: Uint8Array, run: Run): Uint8Array {
  const copy = image.slice()
  const view = new DataView(copy.buffer)
  const symbols = symbolsOf(image)
  const values = {
    seed: run.seed,
    cases: run.cases,
    granules: run.granules.reduce((bits, kb) => bits | (1 << (Math.log2(kb / 4) / 2)), 0),
  }
  for (const [name, value] of Object.entries(values))
    view.setBigUint64(fileOffset(view, symbols.get(name)!.address), BigInt(value), true)
  return copy
}

/** Where in the file the byte of an address is. */
function fileOffset(view: DataView, address: bigint): number {
  const headers = Number(view.getBigUint64(32, true))
  for (let n = 0; n < view.getUint16(56, true); n++) {
    const at = headers + n * view.getUint16(54, true)
    const into = address - view.getBigUint64(at + 16, true)
    if (into >= 0n && into < view.getBigUint64(at + 32, true))
      return Number(view.getBigUint64(at + 8, true) + into)
  }
  throw new Error(`0x${address.toString(16)} is not in the file`)
}

/** Runs an image; what it printed. */
export function printed(image: Uint8Array): string {
  const space = new AddressSpace()
  const ram = createRam(RAM_BYTES)
  space.addRam(ARM64_IMAGE.ramBase, ram)
  const bytes: number[] = []
  const write = (_offset: number, _size: number, value: bigint) =>
    void bytes.push(Number(value & 0xffn))
  space.addMmio(UART, 4096, { read: () => 0n, write }, 'uart')
  const core = new A64Core({ memory: space })
  core.state.pc = loadElf(image, ram, ARM64_IMAGE)
  for (;;) {
    const exit = core.run(1e6)
    if (exit.kind === 'hypercall') return new TextDecoder().decode(Uint8Array.from(bytes))
    if (exit.kind !== 'limit') throw new Error(`the program left with ${exit.kind}`)
  }
}
