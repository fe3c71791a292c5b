/** A host for tests of this room: RAM, a root complex, interrupts, and a translator that a test scripts. */

import { joinNumber } from '../../src/base/addr.js'
import { VirtualClock } from '../../src/base/clock.js'
import { TraceBus } from '../../src/base/trace.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { createRam } from '../../src/mem/ram.js'
import { enumerate, type FoundFunction } from '../../src/pci/enumerate.js'
import { RootComplex } from '../../src/pci/fabric.js'
import type { DeviceModel, PciFunction } from '../../src/pci/function.js'
import { HostInterrupts } from '../../src/pci/host-interrupts.js'
import {
  AT,
  COMPLETION,
  type MemoryRequest,
  type PageRequest,
  type Translation,
} from '../../src/pci/request.js'
import type { UpstreamTranslator } from '../../src/pci/upstream.js'

const RAM_SIZE = 0x20_0000

/** A host whose devices sit one below each root port. */
export function host(...models: DeviceModel[]) {
  const memory = new AddressSpace()
  const ram = createRam(RAM_SIZE)
  memory.addRam(0, ram)
  const clock = new VirtualClock()
  const trace = new TraceBus(clock)
  const complex = new RootComplex({ memory, clock, trace })
  const interrupts = new HostInterrupts()
  complex.messages = interrupts
  const ports = models.map(() => complex.addRootPort())
  const functions = models.map((m, i) => ports[i]!.add(m))
  const { ecamBase, window32, window64 } = complex
  const scan = (): FoundFunction[] => enumerate({ memory, ecamBase, window32, window64 })
  const found = scan()
  return { memory, ram, clock, trace, complex, interrupts, ports, functions, found, scan }
}

export type Host = ReturnType<typeof host>

/** Reads a little-endian register of a BAR through host memory, as a driver would. */
export const peek = (h: Host, fn: PciFunction, offset: number, size: 1 | 2 | 4 | 8 = 4, bar = 0) =>
  h.memory.load(fn.bars[bar]!.address() + offset, size)

/** Writes one. */
export const poke = (
  h: Host,
  fn: PciFunction,
  offset: number,
  value: bigint,
  size: 1 | 2 | 4 | 8 = 4,
  bar = 0,
) => h.memory.store(fn.bars[bar]!.address() + offset, size, value)

/** Sets Memory Space Enable and Bus Master Enable, and every enable the function's capabilities have. */
export function enableAll(fn: PciFunction): void {
  fn.config.write(4, 2, 6)
  const at = (id: number) => fn.capabilityOffset(id, true)
  const [ats, pri, pasid] = [at(0x0f), at(0x13), at(0x1b)]
  if (pasid !== undefined) fn.config.write(pasid + 6, 2, 7)
  if (pri !== undefined) {
    fn.config.write(pri + 0x0c, 4, 32)
    fn.config.write(pri + 4, 2, 1)
  }
  if (ats !== undefined) fn.config.write(ats + 6, 2, 0x8000)
}

/** Programs an MSI-X vector to reach `handler` and enables MSI-X. */
export function connect(h: Host, fn: PciFunction, vector: number, handler: () => void): void {
  const { address, data } = h.interrupts.allocate(handler)
  const bar = fn.msix!.tableBar
  poke(h, fn, vector * 16, BigInt(address), 4, bar)
  poke(h, fn, vector * 16 + 4, 0n, 4, bar)
  poke(h, fn, vector * 16 + 8, BigInt(data), 4, bar)
  poke(h, fn, vector * 16 + 12, 0n, 4, bar)
  fn.config.write(fn.capabilityOffset(0x11, false)! + 2, 2, 0x8000)
}

/** A mapping of one page in a scripted translator. */
export interface Mapping {
  output: number
  write?: boolean
  execute?: boolean
  pageBits?: number
  untranslatedOnly?: boolean
}

/** A translator that is a table: `pasid:page` to a mapping. It records what it was asked. */
export class TableTranslator implements UpstreamTranslator {
  readonly pages = new Map<string, Mapping>()
  readonly pageRequests: PageRequest[] = []
  readonly asked: { at: number; pasid: number; address: number; length: number; write: boolean }[] =
    []
  /** What a page request does beside being recorded. */
  onPageRequest: (m: PageRequest) => void = () => {}

  map(pasid: number, address: number, mapping: Mapping): void {
    this.pages.set(`${pasid}:${address >>> 12}`, mapping)
  }

  unmap(pasid: number, address: number): void {
    this.pages.delete(`${pasid}:${address >>> 12}`)
  }

  translate(r: MemoryRequest, into: Translation): void {
    const address = joinNumber(r.hi, r.lo)
    this.#note(r, address)
    into.pageBits = 12
    if (r.at === AT.TRANSLATED) {
      into.status = COMPLETION.SC
      into.output = address
      into.pageBits = 52
      return
    }
    const m = this.pages.get(`${r.pasid}:${Math.floor(address / 4096)}`)
    const denied = !m || (r.write && m.write === false) || (r.execute && !m.execute)
    into.status = denied ? COMPLETION.UR : COMPLETION.SC
    if (m) into.output = m.output + (r.lo & 4095)
  }

  translateAts(r: MemoryRequest, into: Translation): void {
    const address = joinNumber(r.hi, r.lo)
    this.#note(r, address)
    const m = this.pages.get(`${r.pasid}:${Math.floor(address / 4096)}`)
    into.status = COMPLETION.SC
    into.read = m !== undefined
    into.write = m !== undefined && m.write !== false
    into.execute = m?.execute === true
    into.pageBits = m?.pageBits ?? 12
    into.untranslatedOnly = m?.untranslatedOnly === true
    if (m) into.output = m.output + (r.lo & 4095)
  }

  pageRequest(m: PageRequest): void {
    this.pageRequests.push(m)
    this.onPageRequest(m)
  }

  #note(r: MemoryRequest, address: number): void {
    this.asked.push({ at: r.at, pasid: r.pasid, address, length: r.length, write: r.write })
  }
}
