/**
 * Allocators other than our own: a guest's VT-d driver gets its ids from the host by virtual command. The
 * first one registered serves; objects that share both functions share one id space.
 */
import { ErrnoError } from '../base/errno.js'

/** An outside source of ids. */
export interface IoasidAllocatorOps {
  /** An id in [min, max], or INVALID_IOASID. */
  alloc(min: number, max: number, data: unknown): number
  /** Takes an id back. */
  free(id: number, data: unknown): void
}

interface Space {
  readonly alloc: IoasidAllocatorOps['alloc']
  readonly free: IoasidAllocatorOps['free']
  readonly registered: IoasidAllocatorOps[]
}

/** The registered allocators, in order of registration. */
export class CustomAllocators {
  readonly #spaces: Space[] = []
  // Which space an id came from, so that it goes back there.
  readonly #origin = new Map<number, Space>()

  /** The one that serves; undefined while the default allocator does. */
  get active(): IoasidAllocatorOps | undefined {
    return this.#spaces[0]?.registered[0]
  }

  /** Whether any id came from outside. */
  get inUse(): boolean {
    return this.#origin.size > 0
  }

  /** EAGAIN while the default allocator has ids out, EEXIST for an object registered already. */
  register(ops: IoasidAllocatorOps, defaultHasIds: boolean): void {
    if (this.#spaces.length === 0 && defaultHasIds)
      throw new ErrnoError('EAGAIN', 'ioasid: the default allocator has ids in use')
    if (this.#spaces.some(s => s.registered.includes(ops)))
      throw new ErrnoError('EEXIST', 'ioasid: this allocator is registered')
    const shared = this.#spaces.find(s => s.alloc === ops.alloc && s.free === ops.free)
    if (shared) shared.registered.push(ops)
    else this.#spaces.push({ alloc: ops.alloc, free: ops.free, registered: [ops] })
  }

  /** The next one serves, else the default; harmless for an object that is not registered. */
  unregister(ops: IoasidAllocatorOps): void {
    const at = this.#spaces.findIndex(s => s.registered.includes(ops))
    const space = this.#spaces[at]
    if (space === undefined) return
    space.registered.splice(space.registered.indexOf(ops), 1)
    if (space.registered.length === 0) this.#spaces.splice(at, 1)
  }

  /** Asks the active allocator; -1 when it has none, or names one that `accept` refuses. */
  alloc(min: number, max: number, data: unknown, accept: (id: number) => boolean): number {
    const space = this.#spaces[0]!
    const ops = space.registered[0]!
    const id = ops.alloc(min, max, data)
    if (id >= min && id <= max && accept(id)) {
      this.#origin.set(id, space)
      return id
    }
    return -1
  }

  /** Gives an id back to where it came from, if it came from outside. */
  free(id: number, data: unknown): void {
    const space = this.#origin.get(id)
    this.#origin.delete(id)
    space?.registered[0]?.free(id, data)
  }
}
