/** Drives an sva-engine in tests: queues, descriptors, records, and a translator with ATS and PRI. */
import { pasid } from '../../src/base/addr.js'
import type { FieldValues } from '../../src/base/fields.js'
import {
  DESCRIPTOR,
  MODE,
  PORTAL_BAR,
  queueOffset,
  RECORD,
  svaEngine,
} from '../../src/pci/devices/sva-engine.js'
import { NO_PASID, type PageRequest, type PrgResponseCode } from '../../src/pci/request.js'
import { connect, enableAll, host, peek, poke, TableTranslator } from './host.js'

export type DescriptorInit = Partial<FieldValues<typeof DESCRIPTOR.fields>>

export const SPACE = pasid(7)
/** Where the process's pages start, in its own addresses and in host memory. */
export const VA = 0x5000_0000
export const PA = 0x10_0000
export const RECORDS = VA + 0xf000

/** A host with one engine, every enable set, 16 pages of PASID 7 mapped unless `lazy`. */
export function engine(options: { lazy?: boolean } = {}) {
  const h = host(svaEngine)
  const fn = h.functions[0]!
  const t = new TableTranslator()
  h.complex.translator = t
  enableAll(fn)
  const interrupts: number[] = []
  for (let v = 0; v < 3; v++) connect(h, fn, v, () => interrupts.push(v))
  const page = (n: number) => t.map(SPACE, VA + n * 4096, { output: PA + n * 4096 })
  for (let n = options.lazy ? 15 : 0; n < 16; n++) page(n)
  const reg = (queue: number, name: Parameters<typeof queueOffset>[1]) => queueOffset(queue, name)
  const write = (queue: number, name: Parameters<typeof queueOffset>[1], v: bigint) =>
    poke(h, fn, reg(queue, name), v, name === 'BASE' ? 8 : 4)
  const read = (queue: number, name: Parameters<typeof queueOffset>[1]) =>
    peek(h, fn, reg(queue, name), name === 'BASE' ? 8 : 4)
  const enable = (queue: number, mode: number, bits = 0x40n) =>
    write(queue, 'CONFIG', 0x8000_0000n | (1n << 8n) | bits | BigInt(mode))
  const bytesOf = (init: DescriptorInit) =>
    DESCRIPTOR.create({ PASID: SPACE, RECORD: true, COMPLETION: BigInt(RECORDS), ...init }).bytes
  const portal = (queue: number) => fn.bars[PORTAL_BAR]!.address() + queue * 4096
  /** ENQCMD: true when accepted. */
  const enqueue = (queue: number, init: DescriptorInit) =>
    h.memory.writeDeferrable(portal(queue), bytesOf(init))
  /** MOVDIR64B. */
  const move = (queue: number, init: DescriptorInit) => h.memory.write(portal(queue), bytesOf(init))
  const record = (n = 0) => RECORD.at(h.ram, PA + (RECORDS - VA) + n * 32)
  const bytes = (at: number, length: number) => h.ram.subarray(PA + at - VA, PA + at - VA + length)
  const respond = (m: PageRequest, code: PrgResponseCode) =>
    h.complex.downstream.respond({
      requester: m.requester,
      pasid: m.pasid,
      prgIndex: m.prgIndex,
      code,
    })
  return {
    h,
    fn,
    t,
    page,
    interrupts,
    write,
    read,
    enable,
    enqueue,
    move,
    record,
    bytes,
    bytesOf,
    respond,
    portal,
  }
}

/** A shared queue 0, ready. */
export function shared(options: { lazy?: boolean } = {}) {
  const e = engine(options)
  e.enable(0, MODE.SHARED)
  /** Submits and runs to the end. */
  const run = (init: DescriptorInit) => {
    const accepted = e.enqueue(0, init)
    e.h.clock.settle()
    return accepted
  }
  return { ...e, run }
}

export { NO_PASID }
