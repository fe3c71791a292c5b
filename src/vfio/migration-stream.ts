// The bytes of a migration and the files they pass through: who the device is (sent at once, so that the other side
// can refuse before anything stops), then the model's state as JSON behind its length and a CRC-32. Configuration
// space and interrupts are not in it: their owner is whoever drives the device. Next: migration.ts.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { PciFunction } from '../pci/function.js'
import type { OpenFile } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import { VFIO_MIG_GET_PRECOPY_INFO, vfio_precopy_info } from './uapi/vfio.js'

/** "vsva", then the version of the format. */
const MAGIC = 0x61767376
const VERSION = 1
const IDENTITY_BYTES = 16
const FRAME_BYTES = 8
/** Longest state taken, bytes. */
const MAX_STATE = 16 * 2 ** 20

const utf8 = new TextEncoder()
const text = new TextDecoder()

/** What a stream of a function begins with. */
export function identity({ identity: { vendorId, deviceId, revision = 0 } }: PciFunction) {
  const words = [MAGIC, VERSION, (deviceId << 16) | vendorId, revision]
  return pack(words, new Uint8Array(0))
}

/** A model's state, plain data, behind its length and checksum. */
export function encodeState(state: unknown): Uint8Array {
  const body = utf8.encode(JSON.stringify({ state }, outward))
  return pack([body.length, crc32(body)], body)
}

// JSON has neither bigints nor bytes; both go as objects of one member that no model uses.
function outward(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return { $bigint: value.toString(16) }
  if (value instanceof Uint8Array) return { $bytes: [...value] }
  return value
}

function inward(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if ('$bigint' in value) return BigInt(`0x${String(value.$bigint)}`)
  if ('$bytes' in value) return Uint8Array.from(value.$bytes as number[])
  return value
}

function pack(words: readonly number[], body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(words.length * 4 + body.length)
  const view = new DataView(bytes.buffer)
  for (const [i, word] of words.entries()) view.setUint32(i * 4, word, true)
  bytes.set(body, words.length * 4)
  return bytes
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb8_8320 : 0)
  }
  return ~crc >>> 0
}

const over = (syscall: string) =>
  new ErrnoError('ENODEV', `${syscall}: the migration is over`, syscall)

/** Where a device's state is read: begun by PRE_COPY or STOP_COPY, whole in STOP_COPY. */
export class SaveFile implements OpenFile {
  readonly kind = 'vfio-migration'
  #left: Uint8Array
  #phase: 'initial' | 'whole' | 'over' = 'initial'

  constructor(start: Uint8Array) {
    this.#left = start
  }

  /** Adds the state, after which the stream has an end. */
  finish(state: Uint8Array): void {
    const whole = new Uint8Array(this.#left.length + state.length)
    whole.set(this.#left)
    whole.set(state, this.#left.length)
    this.#left = whole
    this.#phase = 'whole'
  }

  /** The session is over: reads answer ENODEV. */
  end(): void {
    this.#phase = 'over'
    this.#left = this.#left.subarray(0, 0)
  }

  /** Takes bytes; at the end 0, or ENOMSG while there is more to come. */
  read(into: Uint8Array): number {
    if (this.#phase === 'over') throw over('read')
    const taken = this.#left.subarray(0, into.length)
    if (taken.length === 0 && into.length > 0 && this.#phase === 'initial')
      throw new ErrnoError('ENOMSG', 'read: the rest comes in STOP_COPY', 'read')
    into.set(taken)
    this.#left = this.#left.subarray(taken.length)
    return taken.length
  }

  readable(): boolean {
    return this.#phase !== 'initial' || this.#left.length > 0
  }

  ioctl(cmd: number, arg: number, { memory }: Process): number {
    const call = 'VFIO_MIG_GET_PRECOPY_INFO'
    if (cmd !== VFIO_MIG_GET_PRECOPY_INFO)
      throw new ErrnoError('ENOTTY', `a migration stream knows no ioctl ${hex(cmd)}`)
    const info = vfio_precopy_info()
    const { size } = vfio_precopy_info
    if (!memory.copyIn(arg, info.bytes)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
    if (info.argsz < size) throw new ErrnoError('EINVAL', `${call}: argsz ${info.argsz} < ${size}`)
    if (this.#phase !== 'initial')
      throw new ErrnoError('EINVAL', `${call}: the device is not in PRE_COPY`)
    info.flags = 0
    info.initial_bytes = BigInt(this.#left.length)
    info.dirty_bytes = 0n
    if (!memory.copyOut(arg, info.bytes)) throw new ErrnoError('EFAULT', `${call}: not writable`)
    return 0
  }

  release(): void {
    this.end()
  }
}

/** Where a device's state is written, in RESUMING. What was written outlives the descriptor. */
export class LoadFile implements OpenFile {
  readonly kind = 'vfio-migration'
  readonly #expected: Uint8Array
  #bytes = new Uint8Array(256)
  #length = 0
  #over = false

  /** `expected`: what the stream must begin with. */
  constructor(expected: Uint8Array) {
    this.#expected = expected
  }

  /** The state written; undefined when it is not whole. */
  take(): { readonly state: unknown } | undefined {
    const from = IDENTITY_BYTES + FRAME_BYTES
    if (this.#length < from || this.#length < from + this.#word(IDENTITY_BYTES)) return undefined
    const body = this.#bytes.subarray(from, this.#length)
    if (crc32(body) !== this.#word(IDENTITY_BYTES + 4)) return undefined
    try {
      return JSON.parse(text.decode(body), inward) as { state: unknown }
    } catch {
      return undefined
    }
  }

  /** The session is over: writes answer ENODEV. */
  end(): void {
    this.#over = true
    this.#bytes = new Uint8Array(0)
    this.#length = 0
  }

  /** Takes all bytes, or refuses all: EINVAL for another device's stream, one too long, and what follows its end. */
  write(from: Uint8Array): number {
    if (this.#over) throw over('write')
    const before = this.#length
    this.#append(from)
    const refusal = this.#check()
    if (refusal === undefined) return from.length
    this.#length = before
    throw new ErrnoError('EINVAL', `write: ${refusal}`, 'write')
  }

  #append(from: Uint8Array): void {
    const needed = this.#length + from.length
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, this.#length))
      this.#bytes = grown
    }
    this.#bytes.set(from, this.#length)
    this.#length = needed
  }

  #check(): string | undefined {
    const known = Math.min(this.#length, IDENTITY_BYTES)
    for (let i = 0; i < known; i++)
      if (this.#bytes[i] !== this.#expected[i]) return 'a stream of another device'
    if (this.#length < IDENTITY_BYTES + FRAME_BYTES) return undefined
    const length = this.#word(IDENTITY_BYTES)
    if (length > MAX_STATE) return `a state of ${length} bytes`
    if (this.#length > IDENTITY_BYTES + FRAME_BYTES + length) return 'bytes after the end'
    return undefined
  }

  #word(at: number): number {
    return new DataView(this.#bytes.buffer).getUint32(at, true)
  }
}
