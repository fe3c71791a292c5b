// One digest of a machine's state: equal for machines that software cannot tell apart.

import { sha256 } from '@noble/hashes/sha2.js'
import type { OpenFile } from '../sys/open-file.js'
import { toHex } from './values.js'

/** What the digest is taken of. */
export interface Stated {
  readonly ram: Uint8Array
  readonly clock: {
    readonly now: number
    readonly pending: number
    readonly nextAt: number | undefined
  }
  /** Numbers that users hold, by name. */
  readonly holdings: object
  /** Files that are open anywhere, in order of process and descriptor. */
  readonly files: Iterable<{ readonly pid: number; readonly fd: number; readonly file: OpenFile }>
}

const PAGE = 4096
const text = new TextEncoder()

/** SHA-256 over time, holdings, what open files tell of themselves, and every page of RAM that is not zero. */
export function stateDigest({ ram, clock, holdings, files }: Stated): string {
  const hash = sha256.create()
  const say = (...what: unknown[]) => hash.update(text.encode(`${JSON.stringify(what)}\n`))
  say('clock', clock.now, clock.pending, clock.nextAt ?? null)
  say('holdings', holdings)
  for (const { pid, fd, file } of files) {
    say('file', pid, fd, file.kind)
    const own = file.digest?.()
    if (own) hash.update(own)
  }
  const words = new Int32Array(ram.buffer, ram.byteOffset, ram.length >> 2)
  for (let page = 0; page * PAGE < ram.length; page++) {
    const end = (page + 1) * (PAGE / 4)
    let i = page * (PAGE / 4)
    while (i < end && words[i] === 0) i++
    if (i === end) continue
    say('page', page)
    hash.update(ram.subarray(page * PAGE, (page + 1) * PAGE))
  }
  return toHex(hash.digest())
}
