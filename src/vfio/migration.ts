// Migration of one device, version 2: its states, the way from one to another, and the sessions behind the data
// descriptors. What a stream is made of: migration-stream.ts. uapi linux/vfio.h, vfio_device_mig_state.
import { ErrnoError } from '../base/errno.js'
import type { Failures } from '../base/failures.js'
import type { PciFunction } from '../pci/function.js'
import { O_RDONLY, O_WRONLY } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import { encodeState, identity, LoadFile, SaveFile } from './migration-stream.js'
import {
  VFIO_DEVICE_STATE_ERROR as ERROR,
  VFIO_DEVICE_STATE_PRE_COPY as PRE_COPY,
  VFIO_DEVICE_STATE_PRE_COPY_P2P as PRE_COPY_P2P,
  VFIO_DEVICE_STATE_RESUMING as RESUMING,
  VFIO_DEVICE_STATE_RUNNING as RUNNING,
  VFIO_DEVICE_STATE_STOP as STOP,
  VFIO_DEVICE_STATE_STOP_COPY as STOP_COPY,
  VFIO_DEVICE_STATE_RUNNING_P2P,
  VFIO_MIGRATION_P2P,
  VFIO_MIGRATION_PRE_COPY,
  VFIO_MIGRATION_STOP_COPY,
} from './uapi/vfio.js'

/** What MIGRATION reports. */
export const MIGRATION_FLAGS =
  VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY

const P2P = VFIO_DEVICE_STATE_RUNNING_P2P
const CALL = 'VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE'

// The first step from a state (row) to another (column, by number); ERROR where there is no way.
// biome-ignore format: table
const STEP: readonly (readonly number[])[] = [
  //  ERROR  STOP     RUNNING  STOP_COPY     RESUMING  P2P      PRE_COPY  PRE_COPY_P2P
  /* ERROR */
  [   ERROR, ERROR,   ERROR,   ERROR,        ERROR,    ERROR,   ERROR,    ERROR        ],
  /* STOP */
  [   ERROR, STOP,    P2P,     STOP_COPY,    RESUMING, P2P,     ERROR,    ERROR        ],
  /* RUNNING */
  [   ERROR, P2P,     RUNNING, P2P,          P2P,      P2P,     PRE_COPY, PRE_COPY     ],
  /* STOP_COPY */
  [   ERROR, STOP,    STOP,    STOP_COPY,    STOP,     STOP,    ERROR,    ERROR        ],
  /* RESUMING */
  [   ERROR, STOP,    STOP,    STOP,         RESUMING, STOP,    ERROR,    ERROR        ],
  /* P2P */
  [   ERROR, STOP,    RUNNING, STOP,         STOP,     P2P,     RUNNING,  PRE_COPY_P2P ],
  /* PRE_COPY */
  [   ERROR, RUNNING, RUNNING, PRE_COPY_P2P, RUNNING,  RUNNING, PRE_COPY, PRE_COPY_P2P ],
  /* PRE_COPY_P2P */
  [   ERROR, P2P,     P2P,     STOP_COPY,    P2P,      P2P,     PRE_COPY, PRE_COPY_P2P ],
]

const runs = (state: number) => state === RUNNING || state === PRE_COPY
const precopies = (state: number) => state === PRE_COPY || state === PRE_COPY_P2P
const saves = (state: number) => state === STOP_COPY || precopies(state)

/** The migration of a device whose model can be saved. */
export class Migration {
  #state: number = RUNNING
  #saving: SaveFile | undefined
  #loading: LoadFile | undefined
  readonly #fn: PciFunction
  readonly #failures: Failures

  constructor(fn: PciFunction, failures: Failures) {
    this.#fn = fn
    this.#failures = failures
  }

  /** VFIO_DEVICE_STATE_… now. */
  get state(): number {
    return this.#state
  }

  /** Bytes that a stream taken now would have. */
  get size(): number {
    return identity(this.#fn).length + encodeState(this.#fn.model!.save()).length
  }

  /**
   * Goes to a state by every state on the way. Returns the descriptor of a session that began, else -1. EINVAL where
   * no way leads, and for a stream that is not whole: the device is then left in RESUMING. EMFILE changes nothing.
   */
  go(to: number, caller: Process): number {
    if (to >= STEP.length || STEP[this.#state]![to] === ERROR)
      throw new ErrnoError('EINVAL', `${CALL}: no way from state ${this.#state} to ${to}`)
    const streams = to !== this.#state && (to === RESUMING || saves(to))
    if (streams) {
      caller.fds.reserve()
      this.#failures.step('a migration stream')
    }
    const before = this.#saving
    while (this.#state !== to) this.#enter(STEP[this.#state]![to]!)
    if (!streams || (saves(to) && this.#saving === before)) return -1
    return to === RESUMING
      ? caller.fds.install(this.#loading!, O_WRONLY)
      : caller.fds.install(this.#saving!, O_RDONLY)
  }

  /** The device was reset, or nobody has it open any more: it runs, and sessions are over. */
  reset(): void {
    this.#endSessions()
    this.#state = RUNNING
    this.#fn.model!.hold(false)
  }

  #enter(next: number): void {
    const last = this.#state
    const model = this.#fn.model!
    if (last === RESUMING) this.#load()
    if (!saves(next)) this.#endSessions()
    if (saves(next) && !saves(last)) this.#saving = new SaveFile(identity(this.#fn))
    if (next === STOP_COPY) this.#saving!.finish(encodeState(model.save()))
    if (next === RESUMING) this.#loading = new LoadFile(identity(this.#fn))
    this.#state = next
    model.hold(!runs(next))
  }

  #load(): void {
    const loaded = this.#loading!.take()
    if (loaded === undefined)
      throw new ErrnoError('EINVAL', `${CALL}: the stream written is not whole`)
    try {
      this.#fn.model!.restore(loaded.state)
    } catch {
      // A checksum that holds over a state of another shape: no model can promise to find that before it starts.
      this.#fn.model!.reset()
      this.#endSessions()
      this.#state = ERROR
      throw new ErrnoError('EINVAL', `${CALL}: the model does not take the state written`)
    }
  }

  #endSessions(): void {
    this.#saving?.end()
    this.#loading?.end()
    this.#saving = this.#loading = undefined
  }
}
