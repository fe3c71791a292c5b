// Random numbers and random bytes as calls, on every kind of descriptor: whatever comes, the answer is a result or a
// documented errno, and when the process ends nothing is left. A case is CALLS_PER_CASE calls on one machine.

import { ErrnoError } from '../../src/base/errno.js'
import {
  KVM_CREATE_IRQCHIP,
  KVM_CREATE_VCPU,
  KVM_CREATE_VM,
  KVM_GET_VCPU_MMAP_SIZE,
  KVM_RUN,
  KVM_SET_USER_MEMORY_REGION,
  kvm_run,
  kvm_userspace_memory_region,
} from '../../src/cpu/kvm/uapi.js'
import { createMachine, type Machine, type MachineDescription } from '../../src/machine.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { type Sys, s32 } from '../../src/sys/sys.js'
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../src/uapi.js'
import { rulesOf } from '../../src/vfio/index.js'
import type { CampaignFailure, Subject } from '../campaign.js'
import { Random } from '../random.js'
import { type Call, type Calls, callsOf, type Kind, type World } from './calls.js'

/** Calls of one case. */
export const CALLS_PER_CASE = 2000

const KINDS: readonly Kind[] = ['container', 'group', 'device', 'kvm', 'vm', 'vcpu']
/** A descriptor that is never open. */
const CLOSED = 1000
const NAME = '0000:01:00.0'
const MIB = 2 ** 20
/** Bytes that arguments are put into: what follows is not mapped. */
const BUFFER = 0x4000
/** Bytes of an argument that a report shows. */
const SHOWN = 96
/** Guest RAM. */
const GUEST = 0x8000
/** Instructions after which an entered guest is called back. */
const PATIENCE_NS = 2000

interface Target {
  readonly machine: Machine
  readonly sys: Sys
  readonly world: World & { readonly fds: Record<Kind, number> }
  /** IOMMU type of the container. */
  readonly type: number
  readonly bytes: Uint8Array
  readonly run: ReturnType<typeof kvm_run>
  /** Addresses that are no good, or strange. */
  readonly pointers: readonly bigint[]
}

/** A process with one descriptor of each kind, ready for use. */
function target(type: number, description: MachineDescription): Target {
  const machine = createMachine({
    ramBytes: 8 * MIB,
    parameters: { dmaEntryLimit: 16, pasidQuota: 8 },
    devices: [{ at: NAME, model: dmaCopy }],
    ...description,
  })
  const sys = machine.spawn({ memlock: MIB, nofile: 64 })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(machine.groupOf(NAME))
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, VFIO_SET_IOMMU, type)
  const device = sys.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, NAME)
  const kvm = sys.open('/dev/kvm')
  const vm = sys.ioctl(kvm, KVM_CREATE_VM, 0)
  sys.ioctl(vm, KVM_CREATE_IRQCHIP)
  const vcpu = sys.ioctl(vm, KVM_CREATE_VCPU, 0)
  const length = sys.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE)
  const page = sys.mmap({ fd: vcpu, offset: 0, length })
  const guest = sys.mmap(GUEST)
  const userspace_addr = guest.vaddr
  const memory_size = BigInt(GUEST)
  const slot = { slot: 0, flags: 1, guest_phys_addr: 0n, memory_size, userspace_addr }
  sys.ioctl(vm, KVM_SET_USER_MEMORY_REGION, kvm_userspace_memory_region(slot))
  const { vaddr, bytes } = sys.mmap(BUFFER)
  const readOnly = sys.mmap(0x1000)
  sys.process.memory.mprotect(readOnly.vaddr, 0x1000, 1)
  const window = sys.mmap({ fd: device, offset: 0, length: 0x1000 })
  const world = {
    vaddr,
    fds: { container, group, device, kvm, vm, vcpu },
    eventfd: sys.eventfd(),
    deviceName: NAME,
  }
  const far = [0n, 1n, 0xfffn, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 0x1000n, 2n ** 47n - 4n]
  const near = [readOnly.vaddr, window.vaddr, vaddr + BigInt(BUFFER), page.vaddr, vaddr - 3n]
  const run = kvm_run.at(page.bytes)
  return { machine, sys, world, type, bytes, run, pointers: [...far, ...near] }
}

/** One call as it was made, for the report. */
interface Made {
  readonly fd: number
  readonly kind: Kind
  readonly name: string
  readonly number: number
  readonly argument: bigint
  readonly allowed: string
}

/** Words that mean something to some call. */
const WORDS = [0, 0, 1, 2, 3, 4, 6, 8, 16, 0x20, 0x24, 64, 0x1000, 0x2000, 0xffff_ffff, 0x8000_0000]

/** Draws calls. */
class Draw {
  readonly #r: Random
  readonly #t: Target
  readonly #calls: Calls
  readonly #view: DataView

  constructor(r: Random, t: Target, calls: Calls) {
    this.#calls = calls
    this.#r = r
    this.#t = t
    this.#view = new DataView(t.bytes.buffer, t.bytes.byteOffset, t.bytes.length)
  }

  next(): Made {
    const r = this.#r
    const { fds } = this.#t.world
    const kind = r.pick(KINDS)
    const { calls, unknown } = this.#calls[kind]
    // Now and then a call of another kind, or any number at all.
    const fd = fds[kind]
    if (!r.oneIn(16)) {
      const call = r.pick(calls)
      return this.#made(fd, kind, call, this.#argument(call))
    }
    const other = r.pick(this.#calls[r.pick(KINDS)].calls)
    const number = r.pick([other.number, r.next(), 0x3b64 + r.below(24), 0xae00 + r.below(256)])
    const known = calls.filter(c => c.number === number)
    const name = known[0]?.name ?? 'unknown'
    const allowed = known.length > 0 ? known.map(c => c.errnos).join(' ') : unknown
    return this.#made(fd, kind, { name, number, errnos: allowed }, this.#argument(other))
  }

  #made(fd: number, kind: Kind, { name, number, errnos }: Call, argument: bigint): Made {
    return { fd, kind, name, number, argument, allowed: errnos }
  }

  #argument(call: Call): bigint {
    const r = this.#r
    const { world, pointers, bytes } = this.#t
    const made = call.argument?.(world)
    if (made === undefined || typeof made === 'bigint')
      return r.oneIn(3) ? BigInt(r.pick(WORDS)) : (made ?? 0n)
    if (r.oneIn(16)) return r.pick(pointers)
    const image = made instanceof Uint8Array ? made : made.bytes
    // Mostly whole, sometimes over the end of what is mapped.
    const room = BUFFER - image.length
    const at = r.oneIn(12)
      ? BUFFER - r.below(image.length + 1)
      : r.below(room) & ~(r.oneIn(4) ? 0 : 7)
    bytes.set(image.subarray(0, Math.min(image.length, BUFFER - at)), at)
    for (let n = r.below(4); n > 0; n--) this.#change(at, Math.min(image.length, BUFFER - at))
    return world.vaddr + BigInt(at)
  }

  /** Puts something else in place of a byte, a word or two of the argument. */
  #change(at: number, length: number): void {
    const r = this.#r
    const { vaddr } = this.#t.world
    // The first words say most: sizes, flags, operations.
    const offset = r.oneIn(2) ? r.below(Math.min(length, 24) + 1) : r.below(length + 1)
    const word = at + (offset & ~3)
    if (word + 8 > BUFFER) return
    const pick = r.below(8)
    if (pick === 0) this.#view.setUint32(word, r.next(), true)
    else if (pick === 1) this.#view.setUint8(at + Math.min(offset, length - 1), r.next())
    else if (pick === 2) this.#view.setBigUint64(word, vaddr + BigInt(r.below(8) * 0x800), true)
    else if (pick === 3) this.#view.setBigUint64(word, BigInt(r.below(32)) << 12n, true)
    else if (pick === 4) this.#view.setBigUint64(word, (1n << BigInt(r.below(64))) - 1n, true)
    else if (pick === 5) this.#view.setUint32(word, length, true)
    else this.#view.setUint32(word, r.pick(WORDS), true)
  }
}

/** Makes one call; what is wrong with its answer, if anything. */
function make({ machine, sys, run }: Target, c: Made): string | undefined {
  const alarm =
    c.number === KVM_RUN && c.kind === 'vcpu'
      ? machine.clock.later(() => {
          run.immediate_exit = 1
        }, PATIENCE_NS)
      : undefined
  try {
    sys.ioctl(c.fd, c.number, c.argument)
    return undefined
  } catch (error) {
    if (!(error instanceof ErrnoError)) return String((error as Error).stack)
    const closed = error.code === 'EBADF' && c.fd === CLOSED
    return closed || c.allowed.split(' ').includes(error.code)
      ? undefined
      : `answered ${error.code} (${error.message}), documented: ${c.allowed || 'no refusal'}`
  } finally {
    if (alarm) {
      alarm.cancel()
      run.immediate_exit = 0
    }
  }
}

/** Reads, writes and mappings of the device's file: the other ways in. */
function transfer({ sys, world }: Target, r: Random): string | undefined {
  const { device } = world.fds
  if (device === CLOSED) return undefined
  const at = (BigInt(r.below(13)) << 40n) + BigInt(r.oneIn(4) ? r.next() : r.below(0x1100))
  const length = r.below(70)
  try {
    if (r.oneIn(3)) sys.pread(device, length, at)
    // The Command register stays as it is: a bus master may write anywhere.
    else if (r.oneIn(2)) sys.pwrite(device, new Uint8Array(length).fill(r.next()), at)
    else {
      const made = sys.mmap({ fd: device, offset: at & ~0xfffn, length: 1 + r.below(0x3000) })
      sys.munmap(made.vaddr, made.length)
    }
    return undefined
  } catch (error) {
    if (!(error instanceof ErrnoError)) return String((error as Error).stack)
    return ['EINVAL', 'EFAULT', 'EIO', 'ENOMEM'].includes(error.code)
      ? undefined
      : `device file at ${at}: answered ${error.code}`
  }
}

/** What nobody should hold when nobody is there. */
const leftovers = ({ machine }: Target) =>
  JSON.stringify({
    ...machine.holdings(),
    bindings: machine.iommu.bindingCount,
    vectors: machine.interrupts.used,
    frames: machine.kernel.frames.used,
  })

/** Raw calls in one profile. */
export function ioctlSubject(description: MachineDescription = {}): Subject {
  const profile = description.profile ?? 'V7R'
  return {
    name: `ioctl ${profile}`,
    run: seed => {
      const { steps, failure } = runCalls(seed, description)
      return { steps, failure: failure && withReport(failure, profile) }
    },
  }
}

function runCalls(
  seed: number,
  description: MachineDescription,
): { readonly steps: number; readonly failure: CampaignFailure | undefined } {
  const r = new Random(seed)
  const nests = rulesOf(description.profile ?? 'V7R').nestingType
  const type = r.pick(nests ? [6, 6, 3, 1] : [3, 1])
  const t = target(type, description)
  const shown = new Uint8Array(SHOWN)
  const draw = new Draw(r, t, callsOf(description.profile ?? 'V7R'))
  const fail = (steps: number, message: string, report: string) => ({
    steps,
    failure: { seed, message, report },
  })
  for (let i = 0; i < CALLS_PER_CASE; i++) {
    const made = r.oneIn(32) ? undefined : draw.next()
    const at = made ? Number(made.argument - t.world.vaddr) : -1
    const pointed = at >= 0 && at < BUFFER
    if (pointed) shown.set(t.bytes.subarray(at, Math.min(at + SHOWN, BUFFER)))
    const wrong = made ? make(t, made) : transfer(t, r)
    if (wrong !== undefined) {
      const what = made
        ? `${made.kind} ${made.name} (0x${made.number.toString(16)}), argument 0x${made.argument.toString(16)}`
        : 'a transfer'
      return fail(i + 1, `${what}: ${wrong}`, pointed ? hexdump(shown) : '')
    }
    if (r.oneIn(64)) t.machine.settle()
    if (r.oneIn(200)) tidy(t, r.oneIn(3))
  }
  const after = leftovers(emptied(t))
  const before = empty(description)
  return after === before
    ? { steps: CALLS_PER_CASE, failure: undefined }
    : fail(CALLS_PER_CASE, `left over: ${after}, where nothing is ${before}`, '')
}

/** Closes what calls opened; the device too, or puts all together again. */
function tidy({ sys, world, type }: Target, apart: boolean): void {
  const { fds } = world
  const keep = new Set([...Object.values(fds), world.eventfd])
  if (apart) keep.delete(fds.device)
  for (const { fd } of [...sys.process.fds.entries()]) if (!keep.has(fd)) sys.close(fd)
  if (apart) {
    fds.device = CLOSED
    return
  }
  const again = (call: () => void) => {
    try {
      call()
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error
    }
  }
  again(() => sys.ioctl(fds.group, VFIO_GROUP_SET_CONTAINER, s32(fds.container)))
  again(() => sys.ioctl(fds.container, VFIO_SET_IOMMU, type))
  if (fds.device !== CLOSED) return
  again(() => {
    fds.device = sys.ioctl(fds.group, VFIO_GROUP_GET_DEVICE_FD, NAME)
  })
}

function emptied(t: Target): Target {
  for (const p of t.machine.kernel.processes) p.exit()
  t.machine.settle()
  return t
}

const known = new Map<string, string>()

/** What a machine holds that had a user and has none any more. */
function empty(description: MachineDescription): string {
  const key = description.profile ?? 'V7R'
  const before = known.get(key) ?? leftovers(emptied(target(VFIO_TYPE1v2_IOMMU, description)))
  known.set(key, before)
  return before
}

const hexdump = (bytes: Uint8Array): string =>
  [...bytes].map(b => b.toString(16).padStart(2, '0')).join(' ')

const withReport = (f: CampaignFailure, profile: string): CampaignFailure => ({
  ...f,
  report: [
    `seed ${f.seed}: ${f.message}`,
    ...(f.report ? [`  argument bytes: ${f.report}`] : []),
    `  again: npm run fuzz -- --ioctl --profile ${profile} --seed ${f.seed} --runs ${CALLS_PER_CASE}`,
  ].join('\n'),
})
