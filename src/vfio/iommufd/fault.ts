// Fault queues: page requests of devices as records to read, groups whole, and answers to write by cookie. A file
// and an object in one; neither can go while the other is used. uapi linux/iommufd.h, IOMMU_FAULT_QUEUE_ALLOC.
import { ErrnoError } from '../../base/errno.js'
import { IdAllocator } from '../../base/ids.js'
import type { IommuCore } from '../../iommu/core.js'
import {
  IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_PASID_VALID,
  IOMMU_PAGE_RESP_VERSION_1,
  type IommuFault,
  iommu_page_response,
} from '../../iommu/uapi.js'
import { NO_PASID } from '../../pci/request.js'
import { O_RDWR, type OpenFile } from '../../sys/open-file.js'
import {
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMUFD_PAGE_RESP_INVALID,
  iommu_fault_alloc,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../uapi/iommufd.js'
import { command, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import type { BoundDevice } from './device.js'
import type { IommufdObject } from './objects.js'

/** The pages of one request group. */
export interface FaultGroup {
  readonly device: BoundDevice
  readonly pasid: number
  readonly faults: readonly IommuFault[]
}

const RECORD = iommu_hwpt_pgfault.size
const RESPONSE = iommu_hwpt_page_response.size
const LAST_COOKIE = 2 ** 20

/** A fault queue. */
export class FaultQueue implements IommufdObject {
  readonly kind = 'fault'
  id = 0
  users = 0
  readonly #core: IommuCore
  readonly #cookies = new IdAllocator(1, LAST_COOKIE)
  readonly #waiting = new Map<number, FaultGroup>()
  readonly #listeners = new Set<() => void>()
  #deliver: FaultGroup[] = []

  constructor(core: IommuCore) {
    this.#core = core
  }

  /** Groups to be read. */
  get length(): number {
    return this.#deliver.length
  }

  /** Queues a group. */
  push(group: FaultGroup): void {
    this.#deliver.push(group)
    for (const listener of this.#listeners) listener()
  }

  onReadable(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Answers INVALID to everything of a device, under one PASID (or none) if that is given, read or not. */
  cancel(device: BoundDevice, pasid: number | undefined): void {
    const leaves = (g: FaultGroup) =>
      g.device === device && (pasid === undefined || g.pasid === pasid)
    for (const group of this.#deliver.filter(leaves)) this.#answer(group, IOMMU_PAGE_RESP_INVALID)
    this.#deliver = this.#deliver.filter(g => !leaves(g))
    for (const [cookie, group] of this.#waiting) {
      if (!leaves(group)) continue
      this.#forget(cookie)
      this.#answer(group, IOMMU_PAGE_RESP_INVALID)
    }
  }

  /** Fills `into` with whole groups; EINVAL when the first does not fit. */
  read(into: Uint8Array): number {
    let done = 0
    while (this.#deliver.length > 0) {
      const group = this.#deliver[0]!
      const bytes = group.faults.length * RECORD
      if (done + bytes > into.length) {
        if (done > 0) break
        throw new ErrnoError('EINVAL', `read: the group needs ${bytes} bytes`, 'read')
      }
      const cookie = this.#cookies.alloc()
      if (cookie < 0) {
        if (done > 0) break
        throw new ErrnoError('EBUSY', 'read: too many groups wait for an answer', 'read')
      }
      this.#deliver.shift()
      this.#waiting.set(cookie, group)
      for (const fault of group.faults) {
        into.set(record(group, fault, cookie).bytes, done)
        done += RECORD
      }
    }
    return done
  }

  /** Answers groups; stops at the first that is refused: EINVAL when that is the first. */
  write(from: Uint8Array): number {
    for (let done = 0; done < from.length; done += RESPONSE) {
      const { cookie, code } = iommu_hwpt_page_response.at(from, done)
      const group = code > IOMMUFD_PAGE_RESP_INVALID ? undefined : this.#waiting.get(cookie)
      if (group === undefined) {
        if (done > 0) return done
        throw new ErrnoError('EINVAL', `write: cookie ${cookie}, code ${code}`, 'write')
      }
      this.#forget(cookie)
      this.#answer(group, code)
    }
    return from.length
  }

  destroy(): void {}

  #forget(cookie: number): void {
    this.#waiting.delete(cookie)
    this.#cookies.free(cookie)
  }

  #answer({ device, pasid, faults }: FaultGroup, code: number): void {
    const { grpid } = faults.at(-1)!.event.prm
    try {
      this.#core.pageResponse(
        device.bdf,
        iommu_page_response({
          version: IOMMU_PAGE_RESP_VERSION_1,
          flags: pasid === NO_PASID ? 0 : IOMMU_PAGE_RESP_PASID_VALID,
          pasid: pasid === NO_PASID ? 0 : pasid,
          grpid,
          code,
        }),
      )
    } catch (error) {
      // Answered meanwhile: it waited too long, or the device was reset.
      if (!(error instanceof ErrnoError)) throw error
    }
  }
}

function record({ device, pasid }: FaultGroup, { event: { prm } }: IommuFault, cookie: number) {
  return iommu_hwpt_pgfault({
    flags:
      (pasid === NO_PASID ? 0 : IOMMU_PGFAULT_FLAGS_PASID_VALID) |
      (prm.flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0),
    dev_id: device.id,
    pasid: prm.pasid,
    grpid: prm.grpid,
    perm: prm.perm,
    addr: prm.addr,
    cookie,
  })
}

/** The file of a fault queue: keeps queue and iommufd alive. */
export class FaultFile implements OpenFile {
  readonly kind = 'iommufd-fault'
  readonly #context: IommufdContext
  readonly #queue: FaultQueue

  constructor(context: IommufdContext, queue: FaultQueue) {
    this.#context = context.get()
    this.#queue = queue
    queue.users++
  }

  read(into: Uint8Array): number {
    if (into.length % RECORD !== 0)
      throw new ErrnoError('ESPIPE', `read: ${into.length} bytes are no whole records`, 'read')
    return this.#queue.read(into)
  }

  write(from: Uint8Array): number {
    if (from.length % RESPONSE !== 0)
      throw new ErrnoError('ESPIPE', `write: ${from.length} bytes are no whole answers`, 'write')
    return this.#queue.write(from)
  }

  readable(): boolean {
    return this.#queue.length > 0
  }

  onReadable(listener: () => void): () => void {
    return this.#queue.onReadable(listener)
  }

  release(): void {
    this.#queue.users--
    this.#context.put()
  }
}

export const faultQueueAlloc = command<IommufdContext, typeof iommu_fault_alloc.members>(
  'IOMMU_FAULT_QUEUE_ALLOC',
  iommu_fault_alloc,
  16,
  (context, call) => {
    const { cmd, name, caller } = call
    unsupported(name, { flags: cmd.flags })
    caller.fds.reserve()
    const queue = new FaultQueue(context.env.core)
    let fd = -1
    try {
      context.publish(queue, call, () => {
        cmd.out_fault_id = queue.id
        fd = caller.fds.install(new FaultFile(context, queue), O_RDWR)
        cmd.out_fault_fd = fd
      })
    } catch (error) {
      if (fd >= 0) caller.fds.close(fd)
      throw error
    }
  },
)
