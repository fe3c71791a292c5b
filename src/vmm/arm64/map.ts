// The guest machine's addresses and interrupts: what its kernel finds in its boot information, and where the VMM answers.

import { ARM64_IMAGE } from '../elf.js'

/** Guest physical addresses. Interrupt numbers are INTIDs of SPIs, edge-triggered. */
export const ARM64_MAP = {
  GIC_DISTRIBUTOR: 0x0800_0000,
  GIC_ITS: 0x0808_0000,
  GIC_REDISTRIBUTOR: 0x080a_0000,
  /** A byte written here is text; a word at EXIT ends the guest. */
  CONSOLE: 0x0900_0000,
  EXIT: 0x0900_0008,
  SMMU: 0x0905_0000,
  SMMU_SIZE: 0x2_0000,
  BARS: 0x1000_0000,
  /** From one function's BARs to the next one's. */
  BAR_WINDOW: 0x100_0000,
  ECAM: 0x3f00_0000,
  RAM: ARM64_IMAGE.ramBase,
  SPI_EVENTQ: 74,
  SPI_PRIQ: 75,
  SPI_SYNC: 76,
  SPI_GERROR: 77,
} as const

/** The page of GITS_TRANSLATER, where devices' interrupt messages go. */
export const ITS_MESSAGE_PAGE = ARM64_MAP.GIC_ITS + 0x1_0000

/** Requester id of the passed-through function number `n` in the guest: bus 0, device 3 and up. */
export const guestBdf = (n: number): number => (3 + n) << 3
