// A machine with one function whose PASID is bound to a first-stage table in the caller's memory, all by
// ioctls: what the translation and DMA rows run on.

import { halves, split } from '../src/base/addr.js'
import { createMachine, type Machine, type MachineDescription } from '../src/machine.js'
import { dmaCopy } from '../src/pci/devices/dma-copy.js'
import type { PciFunction } from '../src/pci/function.js'
import type { Sys } from '../src/sys/sys.js'
import { NestingContainer } from '../src/vmm/container.js'

const MIB = 2 ** 20
/** First page of the first stage; 48-bit, so that all four levels are used. */
export const GVA = 0x7e00_0000_0000n
/** Pages that are mapped from GVA on. */
export const PAGES = 512

export interface NestedHost {
  readonly machine: Machine
  readonly sys: Sys
  readonly container: NestingContainer
  /** The container's descriptor. */
  readonly fd: number
  readonly function: PciFunction
  readonly pasid: number
  /** Guest physical address of the first-stage root. */
  readonly root: number
}

/** Bytes from the start of the memory that are for tables. */
const TABLES = 0x5000

const AT = '0000:01:00.0'

/**
 * Builds it: 4 MiB of caller memory from IOVA 0 on, as 4 KiB pages of the second stage, mapped page by page, with
 * tables for PAGES pages in it. The memory has been written, as memory in use has.
 */
export function nestedHost(description: MachineDescription = {}): NestedHost {
  const machine = createMachine({ devices: [{ at: AT, model: dmaCopy }], ...description })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const container = new NestingContainer(sys, machine.groupOf(AT))
  const memory = sys.mmap(4 * MIB)
  memory.bytes.fill(1)
  memory.bytes.fill(0, 0, TABLES)
  for (let page = 0; page < 1024; page++)
    container.map(memory.vaddr + BigInt(page * 4096), BigInt(page * 4096), 4096n)
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length)
  const index = (level: number) => Number((GVA >> BigInt(12 + 9 * level)) & 511n)
  const [root, pdpt, pd, pt] = [0x1000, 0x2000, 0x3000, 0x4000]
  view.setBigUint64(root + 8 * index(3), BigInt(pdpt) | 7n, true)
  view.setBigUint64(pdpt + 8 * index(2), BigInt(pd) | 7n, true)
  view.setBigUint64(pd + 8 * index(1), BigInt(pt) | 7n, true)
  for (let i = 0; i < PAGES; i++)
    view.setBigUint64(pt + 8 * i, BigInt(0x10_0000 + i * 4096) | 7n, true)

  const device = container.openDevice(AT)
  const fn = machine.function(AT)
  fn.config.write(0x04, 2, 0x0006)
  const pasid = container.allocPasid(1, 0xfffff)
  container.bind(pasid, root, { supervisor: false, addressWidth: 48 })
  void device
  return { machine, sys, container, fd: container.fd, function: fn, pasid, root }
}

split(GVA)
/** The halves of GVA. */
export const GVA_HI = halves[1]!
export const GVA_LO = halves[0]!
