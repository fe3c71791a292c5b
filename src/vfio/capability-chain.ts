// The chain of capabilities behind an info structure, and the two-call protocol that goes with it: a caller
// whose argsz is too small learns the size and calls again. uapi linux/vfio.h, vfio_info_cap_header.
import type { Failures } from '../base/failures.js'
import type { UserMemory } from '../mem/user-memory.js'

/** Capabilities in the order they are added, each a complete structure starting with its header. */
export class CapabilityChain {
  readonly #align: number
  readonly #failures: Failures | undefined
  readonly #parts: Uint8Array[] = []
  #size = 0

  /** Each capability starts at a multiple of `align` bytes. */
  constructor(align: number, failures?: Failures) {
    this.#align = align
    this.#failures = failures
  }

  /** Adds a capability; `next` of its header is filled in by `bytes`. ENOMEM. */
  add(capability: { readonly bytes: Uint8Array }, id: number, version = 1): void {
    this.#failures?.step('a capability')
    const bytes = capability.bytes
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    view.setUint16(0, id, true)
    view.setUint16(2, version, true)
    this.#parts.push(bytes)
    this.#size = this.#aligned(this.#size) + bytes.length
  }

  /** Bytes of the whole chain; 0 when it is empty. */
  get size(): number {
    return this.#aligned(this.#size)
  }

  /** The chain as it stands `base` bytes into the info structure; the last `next` is 0. */
  bytes(base: number): Uint8Array {
    const out = new Uint8Array(this.size)
    const view = new DataView(out.buffer)
    let at = 0
    this.#parts.forEach((part, i) => {
      const start = this.#aligned(at)
      out.set(part, start)
      at = start + part.length
      const last = i === this.#parts.length - 1
      view.setUint32(start + 4, last ? 0 : base + this.#aligned(at), true)
    })
    return out
  }

  #aligned(n: number): number {
    return Math.ceil(n / this.#align) * this.#align
  }
}

/**
 * Answers one info call: puts the chain behind `info` (whose members after `argsz` are filled) when the
 * caller's argsz holds it, otherwise raises `argsz` and leaves `cap_offset` 0. Returns false for EFAULT.
 * `written` is how much of the fixed part this caller gets back.
 */
export function answerInfo(
  mem: UserMemory,
  addr: number,
  info: { argsz: number; flags: number; cap_offset: number; readonly bytes: Uint8Array },
  chain: CapabilityChain,
  capsFlag: number,
  written: number,
): boolean {
  const base = info.bytes.length
  if (chain.size > 0) {
    info.flags |= capsFlag
    if (info.argsz < base + chain.size) {
      info.argsz = base + chain.size
      info.cap_offset = 0
    } else {
      if (!mem.copyOut(addr + base, chain.bytes(base))) return false
      info.cap_offset = base
    }
  }
  return mem.copyOut(addr, info.bytes, written)
}
