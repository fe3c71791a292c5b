// Does a history again on a new machine, and checks every answer against the one that was recorded.

import { ErrnoError } from '../base/errno.js'
import type { TraceBus, TraceEvents } from '../base/trace.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { Mapping } from '../mem/vma.js'
import type { ProcessOptions } from '../sys/process.js'
import type { FileMapping, Sys, UserBuffer } from '../sys/sys.js'
import { type Called, type Heard, HistoryError, type Input, type Ran } from './log.js'
import { answerOf, refusalOf } from './recording-sys.js'
import { decode, type Json } from './values.js'

/** The machine that is led through a history. */
export interface Replayed {
  readonly memory: AddressSpace
  readonly clock: { step(): boolean; settle(): void; advance(ns: number): void }
  readonly trace: TraceBus
  spawn(options: ProcessOptions): Sys
  /** The system calls of a process there is from the start. */
  process(pid: number): Sys | undefined
}

/** The machine went another way than the history says. */
export class Diverged extends HistoryError {
  /** Place of the input in the history, from 0. */
  readonly input: number

  constructor(input: number, what: string) {
    super(
      `input ${input + 1} of the history went another way: ${what}. The machine, or a device model in it, is not the one that was recorded, or not deterministic`,
    )
    this.input = input
  }
}

/** A listener of the history, on the new machine. */
interface Watch {
  stop: () => void
}

/** Leads one machine through one history. */
export class Replay {
  readonly #machine: Replayed
  /** Processes that the history started, by pid. */
  readonly processes = new Map<number, Sys>()
  readonly #mappings = new Map<string, Mapping>()
  readonly #watches = new Map<number, Watch>()
  /** What listeners are expected to do while the present input runs. */
  #expected: Heard[] = []
  #at = 0

  constructor(machine: Replayed) {
    this.#machine = machine
  }

  /** Does the inputs one after another. Diverged at the first answer that is another one. */
  run(inputs: readonly Input[], progress?: (done: number) => void): void {
    for (const [i, input] of inputs.entries()) {
      this.#at = i
      try {
        this.#do(input)
      } catch (error) {
        if (error instanceof HistoryError) throw error
        throw new Diverged(i, `${input.op} cannot be done: ${(error as Error).message}`)
      }
      progress?.(i + 1)
    }
  }

  /** Takes away the listeners that are left: who comes now has not made them. */
  end(): void {
    for (const { stop } of this.#watches.values()) stop()
    this.#watches.clear()
  }

  #do(input: Input): void {
    switch (input.op) {
      case 'write':
        this.#write(input.pid, input.at, input.bytes)
        break
      case 'spawn': {
        const sys = this.#machine.spawn((input.options ?? {}) as ProcessOptions)
        this.#same(`pid ${sys.process.pid}`, `pid ${input.pid}`, 'spawn')
        this.processes.set(sys.process.pid, sys)
        break
      }
      case 'call':
        this.#call(input)
        break
      case 'unwatch':
        this.#watches.get(input.watch)?.stop()
        this.#watches.delete(input.watch)
        break
      case 'remark':
        this.#machine.trace
          .point(input.name as keyof TraceEvents)
          .emit(decode(input.event as Json) as never)
        break
      default:
        this.#let(input)
    }
  }

  #let(input: Ran): void {
    this.#while(input, () => {
      const { clock } = this.#machine
      if (input.op === 'step') clock.step()
      else if (input.op === 'settle') clock.settle()
      else clock.advance(input.ns ?? 0)
    })
  }

  #call(call: Called): void {
    const sys = this.#sys(call.pid)
    const args = call.args.map(arg => (arg instanceof Uint8Array ? arg.slice() : arg))
    let answer = ''
    this.#while(call, () => {
      try {
        answer = answerOf(this.#perform(sys, call.name, args), args)
      } catch (error) {
        if (error instanceof HistoryError) throw error
        answer = refusalOf(error)
      }
    })
    this.#same(answer, call.answer, call.name)
  }

  #perform(sys: Sys, name: string, args: readonly unknown[]): unknown {
    const { pid } = sys.process
    switch (name) {
      case 'mmap': {
        const mapping = sys.mmap(args[0] as FileMapping)
        this.#mappings.set(`${pid} ${mapping.vaddr}`, mapping)
        return mapping
      }
      case 'load':
      case 'store': {
        const [vaddr, offset, size, value] = args as [bigint, number, 1 | 2 | 4 | 8, bigint]
        const mapping = this.#mappings.get(`${pid} ${vaddr}`)
        if (mapping === undefined) throw new ErrnoError('EFAULT', `nothing is mapped at ${vaddr}`)
        return name === 'load' ? mapping.load(offset, size) : mapping.store(offset, size, value)
      }
      case 'onReadable': {
        const [fd, watch] = args as [number, number]
        const stop = sys.onReadable(fd, () => this.#heard(watch))
        this.#watches.set(watch, { stop })
        return stop
      }
      case 'fork': {
        const child = sys.fork()
        this.processes.set(child.process.pid, child)
        return child
      }
      default: {
        const call = CALLS[name]
        if (call === undefined)
          throw new HistoryError(`input ${this.#at + 1}: no system call is called ${name}`)
        return call(sys, args)
      }
    }
  }

  #heard(watch: number): void {
    const next = this.#expected.shift()
    const { stop } = this.#watches.get(watch) ?? {}
    if (stop === undefined && next === undefined) return
    this.#same(`listener ${watch}`, next ? `listener ${next.watch}` : 'no listener', 'a signal')
    const rest = this.#expected
    for (const input of next!.inputs) this.#do(input)
    this.#expected = rest
  }

  #while(input: Called | Ran, run: () => void): void {
    const before = this.#expected
    this.#expected = [...(input.during ?? [])]
    run()
    const left = this.#expected[0]
    if (left) throw new Diverged(this.#at, `listener ${left.watch} was not called`)
    this.#expected = before
  }

  #write(pid: number, at: number, bytes: Uint8Array): void {
    if (pid === 0) {
      if (!this.#machine.memory.write(at, bytes))
        throw new Diverged(this.#at, `there is no memory at 0x${at.toString(16)}`)
      return
    }
    const into = this.#sys(pid).process.memory.bytesAt(at, bytes.length)
    if (into === undefined)
      throw new Diverged(this.#at, `process ${pid} has no memory at 0x${at.toString(16)}`)
    into.set(bytes)
  }

  #sys(pid: number): Sys {
    const sys = this.processes.get(pid) ?? this.#machine.process(pid)
    if (sys === undefined) throw new Diverged(this.#at, `there is no process ${pid}`)
    return sys
  }

  #same(got: string, recorded: string, what: string): void {
    if (got !== recorded)
      throw new Diverged(this.#at, `${what} answered "${got}", recorded is "${recorded}"`)
  }
}

type Call = (sys: Sys, args: readonly unknown[]) => unknown

/** Calls that only need their arguments. */
// biome-ignore format: table
const CALLS: Readonly<Record<string, Call>> = {
  open:    (sys, [path, flags]) => sys.open(path as string, flags as number | undefined),
  close:   (sys, [fd]) => sys.close(fd as number),
  dup:     (sys, [fd]) => sys.dup(fd as number),
  ioctl:   (sys, [fd, cmd, arg]) => sys.ioctl(fd as number, cmd as number, arg as Uint8Array),
  pread:   (sys, [fd, what, offset]) => sys.pread(fd as number, what as Uint8Array, offset as number),
  pwrite:  (sys, [fd, from, offset]) => sys.pwrite(fd as number, from as UserBuffer, offset as number),
  read:    (sys, [fd, what]) => sys.read(fd as number, what as Uint8Array),
  write:   (sys, [fd, from]) => sys.write(fd as number, from as UserBuffer),
  munmap:  (sys, [vaddr, length]) => sys.munmap(vaddr as bigint, length as number),
  fallocate: (sys, [fd, mode, offset, length]) => sys.fallocate(fd as number, mode as number, offset as number, length as number),
  ftruncate: (sys, [fd, length]) => sys.ftruncate(fd as number, length as number),
  eventfd: (sys, [initial, flags]) => sys.eventfd(initial as number, flags as number),
  exit:    sys => sys.exit(),
}
