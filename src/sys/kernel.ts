/**
 * The emulated kernel as drivers see it: device nodes by path, processes, and the machine's clock,
 * memory and frames. It holds no policy of any driver. Next: process.ts, sys.ts.
 */
import type { VirtualClock } from '../base/clock.js'
import { ErrnoError } from '../base/errno.js'
import type { Failures } from '../base/failures.js'
import type { TraceBus } from '../base/trace.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { FrameAllocator } from '../mem/frames.js'
import type { OpenFile } from './open-file.js'
import { Process, type ProcessOptions } from './process.js'

/** Opens a node for a process; refuses with `ErrnoError`. `path` is the whole path. */
export type OpenNode = (caller: Process, path: string, flags: number) => OpenFile

/** Device nodes by path. */
export class NodeTable {
  readonly #nodes = new Map<string, OpenNode>()

  /**
   * Registers a node, or with a path that ends in `/` everything below it that has no node of its own.
   * A path taken already is an Error. Returns what removes it.
   */
  register(path: string, open: OpenNode): () => void {
    if (!path.startsWith('/')) throw new Error(`${path} is not an absolute path`)
    if (this.#nodes.has(path)) throw new Error(`${path} is registered already`)
    this.#nodes.set(path, open)
    return () => {
      if (this.#nodes.get(path) === open) this.#nodes.delete(path)
    }
  }

  /** Opens a path: ENOENT where there is no node, ENOTDIR below something that is none. */
  open(caller: Process, path: string, flags: number): OpenFile {
    const exact = path.endsWith('/') ? undefined : this.#nodes.get(path)
    if (exact !== undefined) return exact(caller, path, flags)
    for (let end = path.length - 1; end >= 0; end--) {
      if (path[end] !== '/') continue
      if (this.#nodes.has(path.slice(0, end))) {
        throw new ErrnoError('ENOTDIR', `open ${path}: ${path.slice(0, end)} is a device`, 'open')
      }
      const below = end < path.length - 1 ? this.#nodes.get(path.slice(0, end + 1)) : undefined
      if (below !== undefined) return below(caller, path, flags)
    }
    throw new ErrnoError('ENOENT', `open ${path}: no such device`, 'open')
  }

  /** Registered paths, sorted. */
  get paths(): string[] {
    return [...this.#nodes.keys()].sort()
  }
}

/** The machine's kernel. */
export class Kernel {
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** Host physical addresses. */
  readonly memory: AddressSpace
  readonly frames: FrameAllocator
  readonly nodes = new NodeTable()
  /** Steps of system calls that can be made to fail. */
  readonly failures: Failures
  readonly #processes = new Map<number, Process>()
  #nextPid = 1
  #nextInode = 1

  constructor(parts: {
    clock: VirtualClock
    trace: TraceBus
    memory: AddressSpace
    frames: FrameAllocator
  }) {
    this.clock = parts.clock
    this.trace = parts.trace
    this.memory = parts.memory
    this.frames = parts.frames
    this.failures = parts.frames.failures
  }

  /** Living processes, by pid. */
  get processes(): readonly Process[] {
    return [...this.#processes.values()]
  }

  /** Starts a process with empty memory and no descriptors. */
  spawn(options: ProcessOptions = {}): Process {
    return this.adopt(pid => new Process(this, pid, options))
  }

  /** Gives a new process its pid. For `Process.fork`. */
  adopt(make: (pid: number) => Process): Process {
    const process = make(this.#nextPid)
    this.#nextPid++
    this.#processes.set(process.pid, process)
    return process
  }

  /** The number of a new file without a name. */
  nextInode(): number {
    return this.#nextInode++
  }

  /** Drops an exited process. For `Process.exit`. */
  forget(process: Process): void {
    this.#processes.delete(process.pid)
  }
}
