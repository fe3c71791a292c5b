// What firmware and loader leave to a guest kernel: identity page tables for the first 4 GiB, a flat
// descriptor table, and a page of boot information whose address is in RDI.

import { loadElf } from './elf.js'

/** Where the pieces lie in guest memory; all below 1 MiB, which images leave alone. */
const GDT = 0x1000
const INFO = 0x1800
const PML4 = 0x2000
const PDPT = 0x3000
const PD = 0x4000
const STACK = 0x9000

const MAGIC = new TextEncoder().encode('vfio-emu')

/** Addresses of the guest machine that its kernel is told (guests/x86_64/kernel/kernel.h). */
export interface BootInfo {
  readonly ramBytes: number
  readonly ecamBase: number
  readonly iommuBase: number
}

/** Register state to enter the guest with. */
export interface EntryState {
  readonly rip: bigint
  readonly rsp: bigint
  readonly rdi: bigint
  readonly cr3: bigint
  readonly gdtBase: bigint
  readonly gdtLimit: number
}

/** Writes tables and image into guest RAM; throws ImageError when the image is no good. */
export function prepareGuest(ram: Uint8Array, image: Uint8Array, info: BootInfo): EntryState {
  const rip = loadElf(image, ram)
  const view = new DataView(ram.buffer, ram.byteOffset, ram.length)
  const put = (at: number, v: bigint) => view.setBigUint64(at, v, true)

  put(GDT, 0n)
  put(GDT + 8, 0x00af_9b00_0000_ffffn)
  put(GDT + 16, 0x00cf_9300_0000_ffffn)
  put(PML4, BigInt(PDPT) | 3n)
  for (let gb = 0; gb < 4; gb++) {
    put(PDPT + 8 * gb, BigInt(PD + 4096 * gb) | 3n)
    for (let i = 0; i < 512; i++) put(PD + 4096 * gb + 8 * i, (BigInt(gb * 512 + i) << 21n) | 0x83n)
  }
  ram.set(MAGIC, INFO)
  put(INFO + 8, BigInt(info.ramBytes))
  put(INFO + 16, BigInt(info.ecamBase))
  put(INFO + 24, BigInt(info.iommuBase))
  return {
    rip,
    rsp: BigInt(STACK),
    rdi: BigInt(INFO),
    cr3: BigInt(PML4),
    gdtBase: BigInt(GDT),
    gdtLimit: 23,
  }
}
