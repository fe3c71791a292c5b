// The product under the fuzzer: a machine, the system calls of its processes, and a log of what was called, which
// reads like strace. Beside the calls it offers what an observer sees: memory, accounts, page requests.

import { ErrnoError } from '../src/base/errno.js'
import { createMachine, type Machine, type MachineDescription } from '../src/machine.js'
import type { DevicePort } from '../src/pci/device-model.js'
import type { IoctlArgument, Sys } from '../src/sys/sys.js'
import {
  IOMMU_FAULT_PAGE_REQ,
  iommu_fault,
  vfio_region_dma_fault,
  vfio_region_dma_fault_response,
} from '../src/uapi.js'
import { PLACES } from './devices.js'
import {
  CAPACITY,
  ENTRY_LIMIT,
  GUEST_PAGE,
  MEMLOCK,
  PAGES,
  type Page,
  QUOTA,
} from './model/state.js'

const MIB = 2 ** 20
/** Where a page's tag is; table entries are below. */
export const TAG_AT = 0x800
/** Present, user, accessed, dirty: all but the right to write. */
const ENTRY_BITS = 0x65
const REGION = 2n ** 40n

/** What answers a call: a number, or an errno by name. */
export type Result = number | string

/** How rigs differ. */
export interface RigOptions {
  readonly profile?: NonNullable<MachineDescription['profile']>
  /** Puts another driver in front of the IOMMU's, to see whether its faults are found. */
  readonly drivers?: NonNullable<MachineDescription['drivers']>
}

/** A page request as the device saw it answered. */
export interface DeviceRequest {
  readonly device: number
  code: number | undefined
  /** Group index, once the user has read the record. */
  group: number | undefined
}

/** One machine of the fuzzer. */
export class Rig {
  readonly machine: Machine
  readonly log: string[] = []
  readonly systems: Sys[] = []
  readonly memory: { vaddr: bigint; bytes: Uint8Array }[] = []
  readonly ports: (DevicePort | undefined)[] = []
  readonly requests = new Map<object, DeviceRequest>()
  readonly groups: readonly string[]
  /** Page requests reach the user. */
  readonly delivers: boolean
  readonly #bytes = new Map<number, DataView>()
  /** Page requests read from a device's ring and not matched yet. */
  readonly #read: { device: number; pasid: number; page: number; group: number }[] = []

  constructor(options: RigOptions = {}) {
    this.machine = createMachine({
      ramBytes: 8 * MIB,
      pasidCapacity: CAPACITY,
      parameters: { pasidQuota: QUOTA, dmaEntryLimit: ENTRY_LIMIT },
      devices: PLACES.map(({ name, make }, i) => ({
        at: name,
        model: make(port => {
          this.ports[i] = port
        }),
      })),
      ...(options.profile === undefined ? {} : { profile: options.profile }),
      ...(options.drivers === undefined ? {} : { drivers: options.drivers }),
    })
    this.groups = PLACES.map(p => this.machine.groupOf(p.name))
    this.delivers = this.machine.vfio.rules.faultRegions
  }

  /** A new process whose memory holds these pages. */
  spawn(pages: readonly Page[]): Result {
    const sys = this.machine.spawn({ memlock: MEMLOCK * 4096 })
    const memory = sys.mmap(PAGES * 4096)
    this.#adopt(sys, memory, pages)
    this.say(`process ${this.systems.length - 1} starts`)
    for (const page of pages) {
      this.#view(page).setUint32(TAG_AT, page.tag, true)
      for (const index of page.entries.keys()) this.writeEntry(page, index)
    }
    return 0
  }

  fork(parent: number, pages: readonly Page[]): Result {
    const sys = this.systems[parent]!.fork()
    const { vaddr } = this.memory[parent]!
    const bytes = sys.process.memory.bytesAt(vaddr, PAGES * 4096)
    this.#adopt(sys, { vaddr, bytes: bytes ?? new Uint8Array(PAGES * 4096) }, pages)
    this.say(`process ${parent}: fork() = process ${this.systems.length - 1}`)
    return 0
  }

  /** Makes a call and logs it as `what` of that process. */
  call(process: number, what: string, run: (sys: Sys) => unknown): Result {
    const result = attempt(() => run(this.systems[process]!))
    this.say(`process ${process}: ${what} = ${result}`)
    return result
  }

  ioctl(process: number, fd: number, name: string, cmd: number, arg?: IoctlArgument): Result {
    return this.call(process, `ioctl(${fd}, ${name})`, sys => sys.ioctl(fd, cmd, arg))
  }

  say(line: string): void {
    this.log.push(line)
  }

  /** The tag a page holds now. */
  tag(page: Page): number {
    return this.#view(page).getUint32(TAG_AT, true)
  }

  /** Writes an entry of a page as the model has it, as the process's own processor would. */
  writeEntry(page: Page, index: number): void {
    const entry = page.entries.get(index) ?? 0
    const bits = entry === 0 ? 0 : entry | ENTRY_BITS
    this.#view(page).setBigUint64(index * 8, BigInt(bits), true)
  }

  /** Bytes of a device's region. */
  region(process: number, fd: number, index: number, at: number, bytes: number): DataView {
    const data = this.systems[process]!.pread(fd, bytes, BigInt(index) * REGION + BigInt(at))
    return new DataView(data.buffer, data.byteOffset, data.length)
  }

  poke(process: number, fd: number, index: number, at: number, bytes: Uint8Array): void {
    this.systems[process]!.pwrite(fd, bytes, BigInt(index) * REGION + BigInt(at))
  }

  /** Reads the records of a device's fault ring. */
  readFaults(process: number, fd: number, device: number): void {
    const ring = vfio_region_dma_fault()
    this.systems[process]!.pread(fd, ring.bytes, 9n * REGION)
    let { tail } = ring
    while (tail !== ring.head) {
      const fault = iommu_fault()
      const at = BigInt(ring.offset + tail * ring.entry_size)
      this.systems[process]!.pread(fd, fault.bytes, 9n * REGION + at)
      const { pasid, addr, grpid } = fault.event.prm
      if (fault.type === IOMMU_FAULT_PAGE_REQ)
        this.#read.push({ device, pasid, page: Number(addr >> 12n) - GUEST_PAGE, group: grpid })
      tail = (tail + 1) % ring.nb_entries
    }
    this.poke(process, fd, 9, 0, new Uint8Array(Uint32Array.of(tail).buffer))
  }

  /** The group index of the oldest page request read that this describes. */
  takeRead(device: number, pasid: number, page: number): number | undefined {
    const at = this.#read.findIndex(
      r => r.device === device && r.pasid === pasid && r.page === page,
    )
    return at < 0 ? undefined : this.#read.splice(at, 1)[0]!.group
  }

  /** Puts a response into the ring of a device. */
  respond(process: number, fd: number, response: Uint8Array): void {
    const ring = vfio_region_dma_fault_response()
    this.systems[process]!.pread(fd, ring.bytes, 10n * REGION)
    this.poke(process, fd, 10, ring.offset + ring.head * ring.entry_size, response)
    const head = (ring.head + 1) % ring.nb_entries
    this.poke(process, fd, 10, 0, new Uint8Array(Uint32Array.of(head).buffer))
  }

  #adopt(sys: Sys, memory: { vaddr: bigint; bytes: Uint8Array }, pages: readonly Page[]): void {
    this.systems.push(sys)
    this.memory.push(memory)
    pages.forEach((page, i) => {
      const { buffer, byteOffset } = memory.bytes
      this.#bytes.set(page.id, new DataView(buffer, byteOffset + i * 4096, 4096))
    })
  }

  #view(page: Page): DataView {
    return this.#bytes.get(page.id)!
  }
}

/** Runs a call: what it answers, or the errno it refuses with. Anything else it throws is a defect. */
export function attempt(call: () => unknown): Result {
  try {
    const result = call()
    return typeof result === 'number' ? result : 0
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}

/** The model and the product disagree. */
export class Disagreement extends Error {
  override readonly name = 'Disagreement'
}
