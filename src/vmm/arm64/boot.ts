// What the VMM leaves to an arm64 guest kernel: its image, and a page of boot information whose address is in X0. The
// processor starts at EL1 with its MMU off (guests/arm64/kernel/boot.S).

import { ARM64_IMAGE, loadElf } from '../elf.js'
import { ARM64_MAP } from './map.js'

/** Boot information lies in the first page of RAM, which images leave alone. */
const INFO = 0
const MAGIC = new TextEncoder().encode('vfio-emu')

/** Where to enter the guest. */
export interface Arm64Entry {
  readonly pc: bigint
  readonly x0: bigint
}

/**
 * Writes image and boot information (struct boot_info of guests/arm64/kernel/kernel.h) into guest RAM; throws
 * ImageError when the image is no good. `stalling`: requester id in the guest of the function whose accesses may stall.
 */
export function prepareArm64Guest(
  ram: Uint8Array,
  image: Uint8Array,
  stalling: number,
): Arm64Entry {
  const pc = loadElf(image, ram, ARM64_IMAGE)
  const view = new DataView(ram.buffer, ram.byteOffset, ram.length)
  const { RAM, ECAM, SMMU, GIC_DISTRIBUTOR, GIC_REDISTRIBUTOR, GIC_ITS, CONSOLE } = ARM64_MAP
  const words = [
    RAM,
    ram.length,
    ECAM,
    SMMU,
    GIC_DISTRIBUTOR,
    GIC_REDISTRIBUTOR,
    GIC_ITS,
    CONSOLE,
    stalling,
  ]
  ram.set(MAGIC, INFO)
  for (const [i, word] of words.entries())
    view.setBigUint64(INFO + 8 + 8 * i, BigInt.asUintN(64, BigInt(word)), true)
  return { pc, x0: BigInt(RAM + INFO) }
}
