// /dev/ioasid, from which user space takes PASIDs in vSVA v8 instead of from a container: one open file a process,
// ids in that process's set, at most as many as its control group may hold. A group is a number here: no hierarchy.
// "[RFC PATCH 18/18] ioasid: Add /dev/ioasid for userspace" and the ioasids controller. Ids: ../iommu/ioasid.ts.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { INVALID_IOASID, type IoasidAllocator } from '../iommu/ioasid.js'
import { IOASID_SET_TYPE, type IoasidSet } from '../iommu/ioasid-set.js'
import type { Kernel } from '../sys/kernel.js'
import type { OpenFile } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import {
  IOASID_API_VERSION,
  IOASID_GET_API_VERSION,
  IOASID_GET_INFO,
  IOASID_REQUEST_ALLOC,
  IOASID_REQUEST_FREE,
  ioasid_info,
  ioasid_request,
} from './uapi/ioasid.js'

/** Bits of ids that GET_INFO tells. */
const IOASID_BITS = 31
/** Ids are a signed result. */
const LIMIT = 2 ** IOASID_BITS
/** What a set reserves of the system's ids at first, and with each growth: the group decides how many there are. */
const SET_STEP = 64

/** What /dev/ioasid is made of. */
export interface IoasidDeviceOptions {
  readonly kernel: Kernel
  readonly ioasid: IoasidAllocator
  /** `ioasids.max` of a process's control group; asked at each allocation. Default: no limit. */
  readonly limit?: (caller: Process) => number
}

/** /dev/ioasid of one machine. */
export class IoasidDevice {
  readonly #options: IoasidDeviceOptions
  readonly #files = new Map<object, IoasidFile>()

  constructor(options: IoasidDeviceOptions) {
    this.#options = options
    options.kernel.nodes.register('/dev/ioasid', caller => this.#open(caller))
  }

  /** The set of a process that has the file open. */
  setOf(mm: object): IoasidSet | undefined {
    return this.#files.get(mm)?.set
  }

  /** Files open. */
  get size(): number {
    return this.#files.size
  }

  #open(caller: Process): OpenFile {
    const { mm } = caller
    if (this.#files.has(mm))
      throw new ErrnoError('EBUSY', 'open /dev/ioasid: the process has it open', 'open')
    const { ioasid, limit = () => Number.POSITIVE_INFINITY } = this.#options
    const set = ioasid.allocSet(IOASID_SET_TYPE.MM, mm, SET_STEP)
    const file = new IoasidFile(ioasid, set, limit, () => this.#files.delete(mm))
    this.#files.set(mm, file)
    return file
  }
}

/** One open /dev/ioasid. */
export class IoasidFile implements OpenFile {
  readonly kind = 'ioasid'
  readonly set: IoasidSet
  readonly #ioasid: IoasidAllocator
  readonly #limit: (caller: Process) => number
  readonly #closed: () => void

  constructor(
    ioasid: IoasidAllocator,
    set: IoasidSet,
    limit: (caller: Process) => number,
    closed: () => void,
  ) {
    this.#ioasid = ioasid
    this.set = set
    this.#limit = limit
    this.#closed = closed
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    switch (cmd) {
      case IOASID_GET_API_VERSION:
        return IOASID_API_VERSION
      case IOASID_GET_INFO:
        return this.#info(arg, caller)
      case IOASID_REQUEST_ALLOC:
        return this.#alloc(arg, caller)
      case IOASID_REQUEST_FREE:
        return this.#free(arg, caller)
      default:
        throw new ErrnoError('EINVAL', `/dev/ioasid knows no ioctl ${hex(cmd)}`)
    }
  }

  /** Every id goes, and with it what was bound to it. */
  release(): void {
    this.#closed()
    this.#ioasid.putSet(this.set)
  }

  #info(arg: number, { memory }: Process): number {
    const call = 'IOASID_GET_INFO'
    const info = ioasid_info({ argsz: 0 })
    if (!memory.copyIn(arg, info.bytes)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
    if (info.argsz < info.bytes.length || info.flags !== 0)
      throw new ErrnoError('EINVAL', `${call}: argsz ${info.argsz}, flags ${hex(info.flags)}`)
    info.ioasid_bits = IOASID_BITS
    if (!memory.copyOut(arg, info.bytes)) throw new ErrnoError('EFAULT', `${call}: not writable`)
    return 0
  }

  #alloc(arg: number, caller: Process): number {
    const call = 'IOASID_REQUEST_ALLOC'
    const invalid = (what: string) => new ErrnoError('EINVAL', `${call}: ${what}`)
    const request = ioasid_request({ argsz: 0 })
    if (!caller.memory.copyIn(arg, request.bytes))
      throw new ErrnoError('EFAULT', `${call}: unreadable`)
    const { argsz, flags } = request
    const { min, max } = request.range
    if (argsz < request.bytes.length || flags !== 0)
      throw invalid(`argsz ${argsz}, flags ${hex(flags)}`)
    if (min > max || min >= LIMIT || max >= LIMIT) throw invalid(`range [${min}, ${max}]`)
    if (this.set.count >= this.#limit(caller)) throw invalid('the control group holds no more')
    const { set } = this
    if (set.count >= set.quota && this.#ioasid.available >= SET_STEP)
      this.#ioasid.adjustSet(set, set.quota + SET_STEP)
    const id = this.#ioasid.alloc(set, min, max)
    if (id === INVALID_IOASID) throw invalid(`no id in [${min}, ${max}]`)
    return id
  }

  #free(arg: number, { memory }: Process): number {
    const call = 'IOASID_REQUEST_FREE'
    const cell = new Int32Array(1)
    if (!memory.copyIn(arg, new Uint8Array(cell.buffer)))
      throw new ErrnoError('EFAULT', `${call}: unreadable`)
    const id = cell[0]!
    if (id < 0) throw new ErrnoError('EINVAL', `${call}: id ${id}`)
    this.#ioasid.free(this.set, id)
    return 0
  }
}
