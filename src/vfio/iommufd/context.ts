// One iommufd: its objects, whom pinned pages count for, and who keeps it alive: its file, devices bound to it, and
// the files of its fault queues. With the last of them everything goes. Next: dispatch.ts (the calls).
import { ErrnoError } from '../../base/errno.js'
import type { Failures } from '../../base/failures.js'
import type { Members } from '../../base/struct.js'
import type { TraceEvents, TracePoint } from '../../base/trace.js'
import type { IommuCore } from '../../iommu/core.js'
import type { Call } from './commands.js'
import type { Ioas } from './ioas.js'
import { type IommufdObject, ObjectTable } from './objects.js'
import type { AccountMode, UserAccount } from './pages.js'
import './trace.js'

/** What an iommufd asks of the machine. */
export interface IommufdEnvironment {
  readonly core: IommuCore
  /** Assign devices whose interrupts are not remapped. */
  readonly allowUnsafeInterrupts: boolean
  /** Locked pages of the user that all processes have. */
  readonly account: UserAccount
  /** All that are alive, for whoever counts what is held. */
  readonly contexts: Set<IommufdContext>
  readonly ioctls: TracePoint<TraceEvents['iommufd.ioctl']>
  /** Steps of calls that can be made to fail. */
  readonly failures: Failures
  /** Whether a group's devices are free of other drivers that do DMA. */
  viable(group: number): boolean
}

/** One iommufd. */
export class IommufdContext {
  readonly env: IommufdEnvironment
  readonly objects: ObjectTable
  accountMode: AccountMode = 'user'
  /** The address space of VFIO's own calls. */
  compat: Ioas | undefined = undefined
  #holders = 1

  constructor(env: IommufdEnvironment) {
    this.env = env
    this.objects = new ObjectTable(env.failures)
    env.contexts.add(this)
  }

  get(): this {
    this.#holders++
    return this
  }

  put(): void {
    if (--this.#holders > 0) return
    this.objects.clear()
    this.env.contexts.delete(this)
  }

  /** The object of a class with an id. ENOENT for another kind too. */
  object<T extends IommufdObject>(
    // biome-ignore lint/suspicious/noExplicitAny: only instanceof is asked of it
    type: abstract new (...args: any[]) => T,
    id: number,
    name: string,
  ): T {
    const object = this.objects.find(id)
    if (object instanceof type) return object
    throw new ErrnoError('ENOENT', `${name}: object ${id} is ${object?.kind ?? 'not there'}`)
  }

  /** Gives a new object its id and tells the caller; when that fails the object is destroyed again. */
  publish<M extends Members>(object: IommufdObject, call: Call<M>, tell: () => void): void {
    try {
      this.objects.add(object)
    } catch (error) {
      object.destroy()
      throw error
    }
    try {
      tell()
      call.respond()
    } catch (error) {
      this.objects.remove(object)
      throw error
    }
  }
}
