// A virtual SMMUv3 in front of one device's container, played by hand: a guest's registers, tables and queues in its RAM.
import { expect } from 'vitest'
import { CMD } from '../../../src/iommu/smmu/commands.js'
import type { SmmuUnit } from '../../../src/iommu/smmu/unit.js'
import { createMachine, type Machine } from '../../../src/machine.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import type { PageGroupResponse, PageRequest } from '../../../src/pci/request.js'
import { TableContainer } from '../../../src/vmm/arm64/container.js'
import { VirtualSmmu } from '../../../src/vmm/arm64/vsmmu.js'
import { DESCRIPTION, PRI } from './support.js'

export const RAM = 0x4000_0000
const BYTES = 0x40_0000
export const STREAM = 0x18
export const STREAMS = RAM + 0x1_0000
export const CONTEXTS = RAM + 0x2_0000
const COMMANDS = RAM + 0x3_0000
export const EVENTS = RAM + 0x3_1000
export const REQUESTS = RAM + 0x3_2000
/** Registers. */
export const CR0 = 0x20
export const GBPA = 0x44
export const EVENTQ_PROD = 0x1_00a8
export const EVENTQ_CONS = 0x1_00ac
export const ON = 0xf

type Told = { stream: number; config: string; refused?: string }

/** A machine, a container with one device and a virtual unit in front of it. */
export function world() {
  const machine: Machine<SmmuUnit> = createMachine({
    ...DESCRIPTION,
    cpu: 'x86-64',
    ramBytes: 16 * 2 ** 20,
  })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const ram = sys.mmap(BYTES)
  const container = new TableContainer(sys, machine.groupOf(PRI))
  container.map(ram.vaddr, BigInt(RAM), BigInt(BYTES))
  const device = container.openDevice(PRI)
  const memory = new AddressSpace()
  memory.addRam(RAM, ram.bytes)
  const answers: PageGroupResponse[] = []
  const wires: string[] = []
  const smmu = new VirtualSmmu({
    memory,
    streams: [{ stream: STREAM, container, respond: r => answers.push({ ...r }) }],
    trace: machine.trace,
    wire: wire => wires.push(wire),
  })
  const tables: Told[] = []
  machine.trace.listen('vmm.table', ({ stream, config, refused }) =>
    tables.push({ stream, config, ...(refused === undefined ? {} : { refused }) }),
  )
  const host: string[] = []
  machine.trace.listen('smmu.command', e => host.push(e.command))
  const put = (at: number, ...words: bigint[]) =>
    words.forEach((w, i) => {
      memory.store(at + 8 * i, 8, w)
    })
  const set = (offset: number, value: number) => smmu.write(offset, 4, BigInt(value >>> 0))
  const set64 = (offset: number, value: number) => smmu.write(offset, 8, BigInt(value))
  let tail = 0
  const command = (low: bigint, high = 0n) => {
    put(COMMANDS + (tail & 63) * 16, low, high)
    tail = (tail + 1) & 127
    set(0x98, tail)
  }
  /** An entry that translates by 64 descriptors; changes are ORed in. */
  const entry = (zero = 0n, one = 0n, at = STREAMS + STREAM * 64) =>
    put(at, (6n << 59n) | BigInt(CONTEXTS) | (5n << 1n) | 1n | zero, 1n | one)
  /** Registers and queues, as a driver sets them. */
  const enable = (cr0 = ON) => {
    set64(0x80, STREAMS)
    set(0x88, 8)
    set64(0x90, COMMANDS + 6)
    set64(0xa0, EVENTS + 2)
    set64(0xc0, REQUESTS + 2)
    set(0x50, 7)
    set(CR0, cr0)
  }
  const end = () => {
    sys.close(device)
    container.close()
    sys.exit()
    machine.settle()
    expect(
      Object.values(machine.holdings()).every(n => n === 0),
      JSON.stringify(machine.holdings()),
    ).toBe(true)
    expect(machine.iommu.bindingCount).toBe(0)
  }
  return {
    machine,
    memory,
    smmu,
    answers,
    wires,
    tables,
    host,
    put,
    set,
    set64,
    command,
    entry,
    enable,
    end,
  }
}

export const cfgiSte = (stream = STREAM) => (BigInt(stream) << 32n) | BigInt(CMD.CFGI_STE)

export const request = (changes: Partial<PageRequest> = {}): PageRequest => ({
  requester: STREAM,
  pasid: 5,
  hi: 0x7e00,
  lo: 0x1000,
  read: true,
  write: true,
  execute: false,
  privileged: false,
  prgIndex: 9,
  last: true,
  ...changes,
})
