/**
 * RAM: bytes in a WebAssembly memory, so that generated code and models see the same bytes, and a
 * region of them at a physical address. The memories never grow, so views stay valid.
 * Next: address-space.ts puts regions side by side.
 */
import { DirtyLog } from './dirty-log.js'
import { type RamWatcher, type Writer, watcherOf } from './ram-watch.js'

// The ES library declares no WebAssembly; this is the part we use.
declare const WebAssembly: {
  Memory: new (descriptor: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
}

const WASM_PAGE = 0x1_0000

if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error(
    'vfio-emu keeps little-endian memory in typed arrays: the processor must be little-endian',
  )
}

/** Zeroed RAM of that many bytes, at most 4 GiB, backed by a WebAssembly memory. */
export function createRam(bytes: number): Uint8Array {
  if (!Number.isInteger(bytes) || bytes <= 0 || bytes > 2 ** 32) {
    throw new Error(`RAM of ${bytes} bytes: it must be 1 byte to 4 GiB`)
  }
  const pages = Math.ceil(bytes / WASM_PAGE)
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
  return new Uint8Array(memory.buffer, 0, bytes)
}

/** RAM at a physical address. Base and size are multiples of 8, the size at most 4 GiB. */
export class RamRegion {
  readonly kind = 'ram'
  readonly base: number
  readonly size: number
  readonly bytes: Uint8Array
  /** The same memory in little-endian words. */
  readonly words: Int32Array
  /** Marked by every write through an address space while set. */
  dirty: DirtyLog | undefined = undefined
  readonly #watcher: RamWatcher | undefined

  constructor(base: number, bytes: Uint8Array) {
    if (base % 8 !== 0 || bytes.length % 8 !== 0 || bytes.byteOffset % 8 !== 0) {
      throw new Error(`RAM at ${base} of ${bytes.length} bytes is not made of aligned 8-byte units`)
    }
    this.base = base
    this.size = bytes.length
    this.bytes = bytes
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)
    this.#watcher = watcherOf(bytes)
    // Whoever finds a dirty log calls `wrote`.
    if (this.#watcher) this.dirty = new DirtyLog(Math.ceil(bytes.length / 4096))
  }

  /** To be called by whoever writes through `bytes` or `words` past the address space, dirty log or not. */
  wrote(offset: number, length: number, by?: Writer): void {
    this.dirty?.mark(offset, length)
    this.#watcher?.wrote(this, offset, length, by)
  }
}

/** Up to this many bytes a loop, four at a time, is cheaper than a view and a call. */
const LOOP_LIMIT = 40

/** Moves `length` bytes from one array to another; the two must not overlap. */
export function copy(
  from: Uint8Array,
  at: number,
  into: Uint8Array,
  start: number,
  length: number,
): void {
  if (length > LOOP_LIMIT) {
    into.set(at === 0 && length === from.length ? from : from.subarray(at, at + length), start)
    return
  }
  let i = 0
  for (; i + 4 <= length; i += 4) {
    const a = from[at + i]!
    const b = from[at + i + 1]!
    const c = from[at + i + 2]!
    const d = from[at + i + 3]!
    into[start + i] = a
    into[start + i + 1] = b
    into[start + i + 2] = c
    into[start + i + 3] = d
  }
  for (; i < length; i++) into[start + i] = from[at + i]!
}
