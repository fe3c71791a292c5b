/**
 * What the opcodes do to memory, a stretch at a time, so that a page fault in the middle can be waited
 * for and the work resumed where it stopped.
 * Next: queue.ts (who calls this and answers faults).
 */
import { iova } from '../../../base/addr.js'
import type { DmaFailure, DmaPort, RequestTag } from '../../device-model.js'
import { type Descriptor, OPCODE } from './descriptors.js'

/** Bytes moved between two looks at the queue's registers. */
const STRETCH = 16_384

/** How far a descriptor has come: plain data. */
export interface Progress {
  /** Bytes done. */
  done: number
  /** CRC register, inverted, of what was done. */
  checksum: number
  /** COMPARE found a difference after `done` equal bytes. */
  differs: boolean
}

/** Where a stretch ended: at a fault, or with more to do, or with everything done. */
export type Stretch =
  | { readonly kind: 'more' }
  | { readonly kind: 'finished' }
  | { readonly kind: 'fault'; readonly failure: DmaFailure; readonly write: boolean }

const MORE: Stretch = { kind: 'more' }
const FINISHED: Stretch = { kind: 'finished' }

/** The progress of a descriptor that has not begun. */
export const begin = (d: Descriptor): Progress => ({
  done: 0,
  checksum: ~Number(d.operand & 0xffff_ffffn),
  differs: false,
})

/** The finished CRC. */
export const checksumOf = (p: Progress): number => ~p.checksum >>> 0

const TABLE = new Int32Array(256).map((_, i) => {
  let c = i
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb8_8320 : c >>> 1
  return c
})

function crc(register: number, bytes: Uint8Array, length: number): number {
  let c = register
  for (let i = 0; i < length; i++) c = TABLE[(c ^ bytes[i]!) & 0xff]! ^ (c >>> 8)
  return c
}

/** Moves data for one engine; its buffers are reused for every descriptor. */
export class Mover {
  readonly #dma: DmaPort
  readonly #one = new Uint8Array(STRETCH)
  readonly #two = new Uint8Array(STRETCH)

  constructor(dma: DmaPort) {
    this.#dma = dma
  }

  /** Does the next stretch of a descriptor that passed its checks. */
  advance(d: Descriptor, p: Progress, tag: RequestTag): Stretch {
    const n = Math.min(STRETCH, d.length - p.done)
    switch (d.opcode) {
      case OPCODE.COPY:
      case OPCODE.COPY_CHECKSUM:
        return this.#copy(d, p, tag, n)
      case OPCODE.FILL:
        return this.#fill(d, p, tag, n)
      case OPCODE.COMPARE:
        return this.#compare(d, p, tag, n)
      case OPCODE.CHECKSUM:
        return this.#checksum(d, p, tag, n)
      default:
        return FINISHED
    }
  }

  #copy(d: Descriptor, p: Progress, tag: RequestTag, n: number): Stretch {
    const read = this.#dma.read(at(d.source, p), this.#one.subarray(0, n), tag)
    const got = read.ok ? n : read.done
    const wrote = this.#dma.write(at(d.destination, p), this.#one.subarray(0, got), tag)
    const moved = got === 0 || wrote.ok ? got : wrote.done
    if (d.opcode === OPCODE.COPY_CHECKSUM) p.checksum = crc(p.checksum, this.#one, moved)
    p.done += moved
    if (moved < got && !wrote.ok) return { kind: 'fault', failure: wrote, write: true }
    return read.ok ? ended(d, p) : { kind: 'fault', failure: read, write: false }
  }

  #fill(d: Descriptor, p: Progress, tag: RequestTag, n: number): Stretch {
    for (let i = 0; i < 8; i++)
      this.#two[i] = Number((d.operand >> BigInt(8 * ((p.done + i) & 7))) & 0xffn)
    for (let filled = 8; filled < n; filled *= 2) this.#two.copyWithin(filled, 0, filled)
    const wrote = this.#dma.write(at(d.destination, p), this.#two.subarray(0, n), tag)
    p.done += wrote.ok ? n : wrote.done
    return wrote.ok ? ended(d, p) : { kind: 'fault', failure: wrote, write: true }
  }

  #compare(d: Descriptor, p: Progress, tag: RequestTag, n: number): Stretch {
    const one = this.#dma.read(at(d.source, p), this.#one.subarray(0, n), tag)
    const two = this.#dma.read(at(d.destination, p), this.#two.subarray(0, n), tag)
    const got = Math.min(one.ok ? n : one.done, two.ok ? n : two.done)
    for (let i = 0; i < got; i++)
      if (this.#one[i] !== this.#two[i]) {
        p.done += i
        p.differs = true
        return FINISHED
      }
    p.done += got
    if (!one.ok && one.done === got) return { kind: 'fault', failure: one, write: false }
    if (!two.ok) return { kind: 'fault', failure: two, write: false }
    return ended(d, p)
  }

  #checksum(d: Descriptor, p: Progress, tag: RequestTag, n: number): Stretch {
    const read = this.#dma.read(at(d.source, p), this.#one.subarray(0, n), tag)
    const got = read.ok ? n : read.done
    p.checksum = crc(p.checksum, this.#one, got)
    p.done += got
    return read.ok ? ended(d, p) : { kind: 'fault', failure: read, write: false }
  }
}

const at = (base: bigint, p: Progress) => iova(base + BigInt(p.done))
const ended = (d: Descriptor, p: Progress): Stretch => (p.done < d.length ? MORE : FINISHED)
