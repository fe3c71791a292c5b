// A GIC with memory, seen as software sees it: words at offsets, system registers by name.

import { Gic } from '../../../src/cpu/gic/gic.js'
import { ITS_COMMAND } from '../../../src/cpu/gic/its-commands.js'
import { ICC } from '../../../src/cpu/gic/system-registers.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { createRam } from '../../../src/mem/ram.js'

/** Offset of SGI_base. */
export const SGI = 0x1_0000
export const QUEUE = 0x1_0000
export const DEVICES = 0x2_0000
export const COLLECTIONS = 0x3_0000
export const ITT = 0x4_0000
export const PROPERTIES = 0x5_0000
/** Of processor n: PENDING + n * 0x10000. */
export const PENDING = 0x6_0000

const VALID = 1n << 63n

export type Icc = keyof typeof ICC

/** A GIC of some processors; groups are enabled and the priority mask is open. */
export function gicWorld({ processors = 1, interrupts = 96, its = true } = {}) {
  const memory = new AddressSpace()
  memory.addRam(0, createRam(0x20_0000))
  const gic = new Gic({ memory, interrupts, its })
  for (let i = 0; i < processors; i++) gic.addProcessor(i)
  const dist = (offset: number, value?: number) =>
    value === undefined ? gic.distributor.read32(offset) : gic.distributor.write32(offset, value)
  const redist = (offset: number, value?: number, cpu = 0) => {
    const { redistributor } = gic.processors[cpu]!
    return value === undefined ? redistributor.read32(offset) : redistributor.write32(offset, value)
  }
  const icc = (name: Icc, cpu = 0) => Number(gic.processors[cpu]!.registers.get(ICC[name])!.read!())
  const setIcc = (name: Icc, value: number | bigint, cpu = 0) =>
    gic.processors[cpu]!.registers.get(ICC[name])!.write!(BigInt(value))
  const inputs = (cpu = 0) => {
    const { irq, fiq } = gic.processors[cpu]!.cpuInterface
    return `${irq ? 'irq' : ''}${fiq ? 'fiq' : ''}`
  }
  dist(0, 3)
  for (let cpu = 0; cpu < processors; cpu++) {
    redist(SGI + 0x80, -1, cpu)
    setIcc('PMR', 0xff, cpu)
    setIcc('IGRPEN0', 1, cpu)
    setIcc('IGRPEN1', 1, cpu)
  }

  /** Enables an SPI of group 1 with a priority, to processor 0, edge-triggered if asked. */
  function spi(intid: number, priority: number, { edge = false, group = 1 } = {}) {
    const word = intid >> 5
    const bit = 1 << (intid & 31)
    dist(0x80 + 4 * word, group ? dist(0x80 + 4 * word)! | bit : dist(0x80 + 4 * word)! & ~bit)
    gic.distributor.write(0x400 + intid, 1, BigInt(priority))
    const config = 0xc00 + 4 * (intid >> 4)
    const two = 2 << (2 * (intid & 15))
    dist(config, edge ? dist(config)! | two : dist(config)! & ~two)
    dist(0x100 + 4 * word, bit)
  }

  /** Sets LPI tables up, every LPI enabled with priority 0xa0, and enables LPIs. */
  function lpis(cpu = 0) {
    const { redistributor } = gic.processors[cpu]!
    if (cpu === 0) memory.write(PROPERTIES, new Uint8Array(0x1_0000 - 8192).fill(0xa1))
    redistributor.write(0x70, 8, BigInt(PROPERTIES | 15))
    redistributor.write(0x78, 8, BigInt(PENDING + cpu * 0x1_0000))
    redistributor.write32(0, 1)
  }

  let tail = 0
  const its64 = (offset: number, value?: bigint) =>
    value === undefined ? gic.its!.read(offset, 8) : gic.its!.write(offset, 8, value)
  /** Sets the ITS's tables and queue up. */
  function itsOn() {
    its64(0x80, VALID | BigInt(QUEUE))
    its64(0x100, VALID | BigInt(DEVICES))
    its64(0x108, VALID | BigInt(COLLECTIONS))
    gic.its!.write(0, 4, 1n)
    tail = 0
  }
  /** Gives the ITS one command, as four doublewords. */
  function command(name: keyof typeof ITS_COMMAND | number, ...dwords: bigint[]) {
    const number = typeof name === 'number' ? name : ITS_COMMAND[name]
    const [zero = 0n, ...rest] = dwords
    ;[zero | BigInt(number), ...rest, 0n, 0n, 0n].slice(0, 4).forEach((d, i) => {
      memory.store(QUEUE + tail * 32 + i * 8, 8, d)
    })
    tail = (tail + 1) % 128
    its64(0x88, BigInt(tail * 32))
  }
  const device = (id: number) => BigInt(id) << 32n
  const mapd = (id: number, bits = 5, itt = ITT) =>
    command('MAPD', device(id), BigInt(bits - 1), VALID | BigInt(itt))
  const mapc = (icid: number, cpu: number) =>
    command('MAPC', 0n, 0n, VALID | (BigInt(cpu) << 16n) | BigInt(icid))
  const mapti = (id: number, event: number, intid: number, icid: number) =>
    command('MAPTI', device(id), (BigInt(intid) << 32n) | BigInt(event), BigInt(icid))
  return {
    gic,
    memory,
    dist,
    redist,
    icc,
    setIcc,
    inputs,
    spi,
    lpis,
    its64,
    itsOn,
    command,
    device,
    mapd,
    mapc,
    mapti,
  }
}
