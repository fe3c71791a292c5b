// Event queues of virtual IOMMUs: what a guest's SMMUv3 would have put into its event queue, as records behind headers
// that number them; what a full queue lost is told by the numbers, and at the end by a header without a record.
// uapi linux/iommufd.h, IOMMU_VEVENTQ_ALLOC.
import { ErrnoError } from '../../base/errno.js'
import { O_RDWR, type OpenFile } from '../../sys/open-file.js'
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  iommu_veventq_alloc,
  iommufd_vevent_header,
} from '../uapi/iommufd.js'
import { command, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import type { IommufdObject } from './objects.js'
import { Viommu } from './viommu.js'

const HEADER = iommufd_vevent_header.size
const LAST_SEQUENCE = 0x7fff_ffff
const DEEPEST = 2 ** 19

/** A header, and the record behind it; none: events were lost. */
interface Vevent {
  readonly sequence: number
  readonly record: Uint8Array | undefined
}

/** An event queue of one type. */
export class VeventQueue implements IommufdObject {
  readonly kind = 'veventq'
  id = 0
  users = 0
  readonly type: number
  readonly #viommu: Viommu
  readonly #depth: number
  readonly #listeners = new Set<() => void>()
  #deliver: Vevent[] = []
  #sequence = 0

  constructor(viommu: Viommu, type: number, depth: number) {
    this.#viommu = viommu
    this.type = type
    this.#depth = depth
    viommu.queues.set(type, this)
    viommu.users++
  }

  get readable(): boolean {
    return this.#deliver.length > 0
  }

  /** Queues an event, or notes that it is lost. */
  push(record: Uint8Array): void {
    const queue = this.#deliver
    const lost = queue.filter(e => e.record).length >= this.#depth
    if (queue.at(-1)?.record === undefined) queue.pop()
    queue.push({ sequence: this.#sequence, record: lost ? undefined : record })
    this.#sequence = this.#sequence === LAST_SEQUENCE ? 0 : this.#sequence + 1
    for (const listener of this.#listeners) listener()
  }

  onReadable(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Fills `into` with headers and their records; EINVAL when the first does not fit. */
  read(into: Uint8Array): number {
    if (into.length < HEADER)
      throw new ErrnoError('EINVAL', `read: ${into.length} bytes hold no header`, 'read')
    let done = 0
    while (this.#deliver.length > 0) {
      const { sequence, record } = this.#deliver[0]!
      const bytes = HEADER + (record?.length ?? 0)
      if (done + bytes > into.length) {
        if (done > 0 || into.length < HEADER) break
        throw new ErrnoError('EINVAL', `read: the event needs ${bytes} bytes`, 'read')
      }
      const flags = record ? 0 : IOMMU_VEVENTQ_FLAG_LOST_EVENTS
      into.set(iommufd_vevent_header({ flags, sequence }).bytes, done)
      if (record) into.set(record, done + HEADER)
      this.#deliver.shift()
      done += bytes
    }
    return done
  }

  destroy(): void {
    this.#viommu.queues.delete(this.type)
    this.#viommu.users--
  }
}

/** The file of an event queue: keeps queue and iommufd alive. */
class VeventFile implements OpenFile {
  readonly kind = 'iommufd-vevent'
  readonly #context: IommufdContext
  readonly #queue: VeventQueue

  constructor(context: IommufdContext, queue: VeventQueue) {
    this.#context = context.get()
    this.#queue = queue
    queue.users++
  }

  read(into: Uint8Array): number {
    return this.#queue.read(into)
  }

  readable(): boolean {
    return this.#queue.readable
  }

  onReadable(listener: () => void): () => void {
    return this.#queue.onReadable(listener)
  }

  release(): void {
    this.#queue.users--
    this.#context.put()
  }
}

export const veventqAlloc = command<IommufdContext, typeof iommu_veventq_alloc.members>(
  'IOMMU_VEVENTQ_ALLOC',
  iommu_veventq_alloc,
  28,
  (context, call) => {
    const { cmd, name, caller } = call
    unsupported(name, { flags: cmd.flags, __reserved: cmd.__reserved })
    const { type, veventq_depth: depth } = cmd
    if (type === IOMMU_VEVENTQ_TYPE_DEFAULT) throw new ErrnoError('EOPNOTSUPP', `${name}: type 0`)
    if (depth === 0 || depth > DEEPEST) throw new ErrnoError('EINVAL', `${name}: depth ${depth}`)
    const viommu = context.object(Viommu, cmd.viommu_id, name)
    if (viommu.queues.has(type))
      throw new ErrnoError('EEXIST', `${name}: vIOMMU ${viommu.id} has a queue of type ${type}`)
    caller.fds.reserve()
    const queue = new VeventQueue(viommu, type, depth)
    let fd = -1
    try {
      context.publish(queue, call, () => {
        cmd.out_veventq_id = queue.id
        fd = caller.fds.install(new VeventFile(context, queue), O_RDWR)
        cmd.out_veventq_fd = fd
      })
    } catch (error) {
      if (fd >= 0) caller.fds.close(fd)
      throw error
    }
  },
)
