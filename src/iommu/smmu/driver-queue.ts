/**
 * The driver's end of the command queue: commands in host memory, one producer write a batch, completion by the
 * message of a CMD_SYNC in memory, or by the consumer index where the unit sends no messages. Nothing is
 * allocated on this path. Next: commands.ts (layouts), driver-commands.ts (which commands when).
 */
import type { VirtualClock } from '../../base/clock.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { FrameAllocator } from '../../mem/frames.js'
import { CMD, COMMAND_SIZE, SYNC_COMMAND, SYNC_CS } from './commands.js'
import type { SmmuRegisters } from './driver-registers.js'
import { CERROR, SMMU } from './registers.js'

/** log2 of the commands in one page. */
const PAGE_BITS = 8

/** A command of one of the 16-byte layouts. */
export interface Command {
  readonly words: Uint32Array
}

/** What went wrong with a batch; a time-out is a device that did not answer an invalidation. */
export type Completion = 'done' | 'time-out'

/** One unit's command queue. */
export class CommandQueue {
  readonly #memory: AddressSpace
  readonly #frames: FrameAllocator
  readonly #registers: SmmuRegisters
  readonly #clock: VirtualClock
  readonly #queue: number
  readonly #status: number
  readonly #entries: number
  readonly #sync: Command
  readonly #fence = SYNC_COMMAND.create({ OPCODE: CMD.SYNC, CS: SYNC_CS.NONE })
  readonly #byMessage: boolean
  readonly #producer: number
  readonly #consumer: number
  /** Index of the next command, the wrap bit above it. */
  #tail = 0
  #waiting = 0
  #sequence = 0

  /** Programs the queue's registers; commands are taken once CR0.CMDQEN is set. */
  constructor(
    memory: AddressSpace,
    frames: FrameAllocator,
    registers: SmmuRegisters,
    clock: VirtualClock,
    { commandBits, msi }: { readonly commandBits: number; readonly msi: boolean },
  ) {
    this.#memory = memory
    this.#frames = frames
    this.#registers = registers
    this.#clock = clock
    this.#queue = frames.alloc()
    this.#status = frames.alloc()
    this.#byMessage = msi
    const bits = Math.min(PAGE_BITS, commandBits)
    this.#entries = 2 ** bits
    this.#producer = registers.base + SMMU.CMDQ_PROD.offset
    this.#consumer = registers.base + SMMU.CMDQ_CONS.offset
    this.#sync = msi
      ? SYNC_COMMAND.create({ OPCODE: CMD.SYNC, CS: SYNC_CS.IRQ, MSIAddress: this.#status })
      : this.#fence
    registers.write('CMDQ_BASE', { ADDR: this.#queue, LOG2SIZE: bits })
    registers.write('CMDQ_PROD', {})
    registers.write('CMDQ_CONS', {})
  }

  /** Adds a command to the batch. */
  submit(c: Command): void {
    if (this.#waiting >= this.#entries - 1) this.complete()
    this.#put(c.words)
  }

  /** Commands that follow wait until those before them are done. */
  fence(): void {
    this.submit(this.#fence)
  }

  /** Hands the batch to the unit and waits until all of it is done. */
  complete(): Completion {
    const sequence = (this.#sequence + 1) | 0
    this.#sequence = sequence
    if (this.#byMessage) this.#sync.words[1] = sequence
    this.#put(this.#sync.words)
    this.#waiting = 0
    this.#memory.writeU32(this.#producer, this.#tail)
    return this.#reached(sequence) ? 'done' : this.#slowly(sequence)
  }

  /** Gives the queue's memory back; the unit must not use it any more. */
  free(): void {
    this.#frames.free(this.#queue)
    this.#frames.free(this.#status)
  }

  #put(words: Uint32Array): void {
    const { ram } = this.#frames
    const index = this.#tail & (this.#entries - 1)
    const offset = this.#queue - ram.base + index * COMMAND_SIZE
    for (let i = 0; i < 4; i++) ram.words[(offset >>> 2) + i] = words[i]!
    if (ram.dirty !== undefined) ram.wrote(offset, COMMAND_SIZE)
    this.#tail = (this.#tail + 1) & (2 * this.#entries - 1)
    this.#waiting++
  }

  #reached(sequence: number): boolean {
    if (this.#byMessage) return (((this.#memory.readU32(this.#status) | 0) - sequence) | 0) >= 0
    const consumed = this.#memory.readU32(this.#consumer) & (2 * this.#entries - 1)
    return consumed === this.#tail
  }

  /** The unit works later, or stopped. */
  #slowly(sequence: number): Completion {
    const registers = this.#registers
    let result: Completion = 'done'
    for (;;) {
      const raised = registers.read('GERROR').CMDQ_ERR
      const { $value: seen, CMDQ_ERR: known } = registers.read('GERRORN')
      if (raised !== known) {
        const { ERR, RD } = registers.read('CMDQ_CONS')
        if (ERR !== CERROR.ATC_INV_SYNC)
          throw new Error(`SMMUv3: the command queue stopped at command ${RD}, error ${ERR}`)
        // The unit goes on with the CMD_SYNC; what timed out is the device's loss.
        result = 'time-out'
        registers.write('GERRORN', { $value: seen ^ 1n })
      }
      if (this.#reached(sequence)) return result
      if (raised === known && !this.#clock.step())
        throw new Error('SMMUv3: the command queue does not move')
    }
  }
}
