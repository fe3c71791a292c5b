/**
 * A caller of the kernel: memory, descriptors, capabilities, and what fork and exit do to them.
 * One process is one thread. Next: kernel.ts makes processes, sys.ts is what the program holds.
 */
import { ErrnoError } from '../base/errno.js'
import { ProcessMemory } from '../mem/process-memory.js'
import { FdTable } from './fd-table.js'
import type { Kernel } from './kernel.js'

/** Capabilities that any driver here asks for. */
export type Capability = 'CAP_IPC_LOCK' | 'CAP_SYS_RAWIO' | 'CAP_SYS_RESOURCE'

/** How a process starts. */
export interface ProcessOptions {
  readonly capabilities?: Iterable<Capability>
  /** RLIMIT_MEMLOCK in bytes, `Infinity` for none; 8 MiB by default. */
  readonly memlock?: number
  /** RLIMIT_NOFILE; 1024 by default. */
  readonly nofile?: number
}

/** A process of the emulated kernel. Made by `Kernel.spawn` and `fork`. */
export class Process {
  readonly pid: number
  readonly kernel: Kernel
  readonly memory: ProcessMemory
  readonly fds: FdTable
  readonly capabilities: Set<Capability>
  readonly #exitHooks = new Set<() => void>()
  #exited = false

  constructor(kernel: Kernel, pid: number, options: ProcessOptions = {}, parent?: Process) {
    this.kernel = kernel
    this.pid = pid
    this.capabilities = new Set(options.capabilities)
    const capIpcLock = () => this.capabilities.has('CAP_IPC_LOCK')
    if (parent === undefined) {
      const memlockLimitPages = Math.floor((options.memlock ?? 8 * 2 ** 20) / 4096)
      this.memory = new ProcessMemory(kernel.frames, { memlockLimitPages, capIpcLock })
      this.fds = new FdTable(options.nofile, kernel.failures)
    } else {
      this.memory = parent.memory.fork({ capIpcLock })
      this.fds = parent.fds.fork()
    }
  }

  /** The identity of the address space: the key of everything the kernel keeps by mm. */
  get mm(): object {
    return this.memory
  }

  get exited(): boolean {
    return this.#exited
  }

  /** A child with a copy of the memory, the same descriptors and capabilities, and an mm of its own. */
  fork(): Process {
    if (this.#exited) throw new ErrnoError('ESRCH', `fork: process ${this.pid} has exited`, 'fork')
    return this.kernel.adopt(
      pid => new Process(this.kernel, pid, { capabilities: this.capabilities }, this),
    )
  }

  /** Calls `hook` when the process is gone: memory released and descriptors closed. Returns what cancels it. */
  onExit(hook: () => void): () => void {
    this.#exitHooks.add(hook)
    return () => this.#exitHooks.delete(hook)
  }

  /** Ends the process, as do_exit does: first its memory, then its descriptors, lowest first. */
  exit(): void {
    if (this.#exited) return
    this.#exited = true
    this.memory.release()
    this.fds.closeAll()
    for (const hook of [...this.#exitHooks]) hook()
    this.kernel.forget(this)
  }
}
