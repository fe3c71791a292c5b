// Keeps the history of a machine while it is made: whose turn it is (a caller's or the machine's), what callers
// wrote into memory meanwhile, and what their listeners did in the middle of a call.

import type { RamRegion } from '../mem/ram.js'
import type { RamWatcher } from '../mem/ram-watch.js'
import type { Sys } from '../sys/sys.js'
import { type Called, type Heard, HistoryError, type Input, type Ran } from './log.js'

/** Mappings up to this many bytes are compared at every input; larger ones are heard of through their regions. */
export const COMPARED_BYTES = 2 ** 24
const PAGE = 4096
/** Pages of physical memory by 32-bit words. */
const WORDS = PAGE / 4

/** Memory of a process that the caller can write past the system calls. */
interface Watched {
  readonly pid: number
  readonly at: number
  readonly bytes: Uint8Array
  /** The same in words. */
  readonly words: Int32Array
  /** What it held when the machine last let go of it. Empty for one that is compared only once. */
  readonly shadow: Int32Array
  /** A large mapping: compared with zeros at the first input after it was made, then no more. */
  readonly once: boolean
}

/** A recorder of one machine. */
export class Recorder implements RamWatcher {
  /** Processes that make recorded calls, by pid. */
  readonly processes = new Map<number, Sys>()
  readonly #inputs: Input[] = []
  readonly #ram: Uint8Array
  readonly #watched = new Set<Watched>()
  /** Pages of physical memory that a caller wrote through a region since the last input. */
  readonly #touched = new Set<number>()
  /** Where inputs go now: the history, or the list of the listener that runs. */
  #list = this.#inputs
  /** The call in progress; undefined while it is a caller's turn. */
  #running: Called | Ran | undefined
  #watches = 0
  #broken: string | undefined

  /** `ram` is physical memory from address 0. */
  constructor(ram: Uint8Array) {
    this.#ram = ram
  }

  /** What happened until now was the machine's own making: the history starts. */
  begin(): void {
    this.#inputs.length = 0
    this.#touched.clear()
  }

  /** The history up to now. HistoryError when something came in that could not be kept. */
  inputs(): readonly Input[] {
    if (this.#broken !== undefined) throw new HistoryError(this.#broken)
    if (this.#running === undefined) this.#flush()
    return this.#inputs
  }

  /** Whether the machine is at work on an input, and no listener of a caller runs. */
  get inside(): boolean {
    return this.#running !== undefined
  }

  /** Adds an input that is over at once. */
  add(input: Input): void {
    this.#flush()
    this.#list.push(input)
  }

  /** Keeps `input` and runs it: the machine's turn. */
  during<T>(input: Called | Ran, run: () => T): T {
    if (this.#running !== undefined) {
      this.#broken ??=
        'a system call was made from inside the machine, by a listener other than those of `Sys.onReadable`: such a run cannot be recorded'
      return run()
    }
    this.#flush()
    this.#list.push(input)
    this.#running = input
    try {
      return run()
    } finally {
      this.#running = undefined
      this.#refresh()
    }
  }

  /** A caller's listener as the machine may call it. Returns it with its number. */
  watch(listener: () => void): { readonly watch: number; readonly call: () => void } {
    const watch = this.#watches++
    const call = () => {
      const running = this.#running
      if (running === undefined) {
        listener()
        return
      }
      const heard: Heard = { watch, inputs: [] }
      running.during ??= []
      running.during.push(heard)
      const before = this.#list
      this.#list = heard.inputs
      this.#running = undefined
      this.#refresh()
      try {
        listener()
      } finally {
        this.#flush()
        this.#list = before
        this.#running = running
      }
    }
    return { watch, call }
  }

  /** Number that the next listener gets. */
  get watches(): number {
    return this.#watches
  }

  /** From now on, what a caller writes into `bytes`, at `at` of a process, is part of the history. */
  mapped(pid: number, at: number, bytes: Uint8Array): void {
    const once = bytes.length > COMPARED_BYTES
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
    const shadow = once ? new Int32Array(0) : words.slice()
    this.#watched.add({ pid, at, bytes, words, once, shadow })
  }

  /** A range of a process is no longer mapped. */
  unmapped(pid: number, at: number, length: number): void {
    const end = at + length
    for (const w of [...this.#watched]) {
      const last = w.at + w.bytes.length
      if (w.pid !== pid || w.at >= end || at >= last) continue
      this.#watched.delete(w)
      if (w.at < at) this.mapped(pid, w.at, w.bytes.subarray(0, at - w.at))
      if (end < last) this.mapped(pid, end, w.bytes.subarray(end - w.at))
    }
  }

  /** A process is gone. */
  exited(pid: number): void {
    this.processes.delete(pid)
    for (const w of this.#watched) if (w.pid === pid) this.#watched.delete(w)
  }

  wrote(region: RamRegion, offset: number, length: number): void {
    if (this.#running !== undefined || region.bytes.buffer !== this.#ram.buffer) return
    const at = region.bytes.byteOffset - this.#ram.byteOffset + offset
    for (let page = Math.floor(at / PAGE); page * PAGE < at + length; page++)
      this.#touched.add(page)
  }

  /** What callers wrote since the machine's last turn becomes part of the history. */
  #flush(): void {
    for (const page of [...this.#touched].sort((a, b) => a - b)) {
      const at = page * PAGE
      this.#list.push({ op: 'write', pid: 0, at, bytes: this.#ram.slice(at, at + PAGE) })
    }
    this.#touched.clear()
    for (const w of this.#watched) {
      if (w.once) {
        this.#flushFresh(w)
        this.#watched.delete(w)
      } else this.#flushChanges(w)
    }
  }

  #flushChanges({ pid, at, bytes, words, shadow }: Watched): void {
    for (let i = 0; i < words.length; i++) {
      if (words[i] === shadow[i]) continue
      let end = i + 1
      // A few equal words between two changes cost less than another entry.
      for (let same = 0, j = end; j < words.length && same < 4; j++) {
        same = words[j] === shadow[j] ? same + 1 : 0
        if (same === 0) end = j + 1
      }
      const changed = bytes.slice(4 * i, 4 * end)
      this.#list.push({ op: 'write', pid, at: at + 4 * i, bytes: changed })
      shadow.set(words.subarray(i, end), i)
      i = end
    }
  }

  #flushFresh({ pid, at, bytes, words }: Watched): void {
    for (let word = 0; word < words.length; word += WORDS) {
      const end = Math.min(words.length, word + WORDS)
      let i = word
      while (i < end && words[i] === 0) i++
      if (i < end)
        this.#list.push({
          op: 'write',
          pid,
          at: at + 4 * word,
          bytes: bytes.slice(4 * word, 4 * end),
        })
    }
  }

  #refresh(): void {
    this.#touched.clear()
    for (const w of this.#watched) if (!w.once) w.shadow.set(w.words)
  }
}
