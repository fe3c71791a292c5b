/**
 * One row for each PASID in typed arrays: owner, references, set-private id, and the links of its set's list
 * of ids. The arrays grow with the ids in use. What the columns mean together is ioasid.ts's business.
 */
import type { IoasidSet } from './ioasid-set.js'

const FIRST_ROWS = 1024

/** The rows of one allocator. Id 0 is nobody's, so 0 ends a list. */
export class IoasidRows {
  /** Number of the set that holds the id; 0: it is in the pool, and the other columns do not count. */
  owner = new Int32Array(FIRST_ROWS)
  /** The allocator's own reference and its users'. */
  refs = new Int32Array(FIRST_ROWS)
  /** 1 after free, until it is reclaimed. */
  pending = new Uint8Array(FIRST_ROWS)
  /** Set-private id. */
  spid = new Uint32Array(FIRST_ROWS)
  /** How often the set-private id was attached. */
  spidUsers = new Int32Array(FIRST_ROWS)
  #next = new Int32Array(FIRST_ROWS)
  #previous = new Int32Array(FIRST_ROWS)

  /** Puts an id, whose row is made when missing, into a set's list. */
  link(id: number, set: IoasidSet): void {
    if (id >= this.owner.length) this.#grow(id)
    const head = set.first
    this.owner[id] = set.index
    this.#next[id] = head
    this.#previous[id] = 0
    if (head !== 0) this.#previous[head] = id
    set.first = id
    set.count++
  }

  /** Takes an id out of its set's list. */
  unlink(id: number, set: IoasidSet): void {
    const next = this.#next[id]!
    const previous = this.#previous[id]!
    if (previous === 0) set.first = next
    else this.#next[previous] = next
    if (next !== 0) this.#previous[next] = previous
    this.owner[id] = 0
    set.count--
  }

  /**
   * Ids of a set in [min, max], ascending, in an array of the caller's own. Costs in proportion to the smaller of
   * the ids held and the width of the range.
   */
  heldIn(set: IoasidSet, min: number, max: number): Int32Array {
    const low = Math.max(min, 1)
    const high = Math.min(max, this.owner.length - 1)
    const found = new Int32Array(Math.max(0, Math.min(set.count, high - low + 1)))
    let n = 0
    if (high - low < set.count) {
      for (let id = low; id <= high; id++) if (this.owner[id] === set.index) found[n++] = id
      return found.subarray(0, n)
    }
    for (let id = set.first; id !== 0; id = this.#next[id]!)
      if (id >= low && id <= high) found[n++] = id
    return found.subarray(0, n).sort()
  }

  #grow(id: number): void {
    let rows = this.owner.length
    while (rows <= id) rows *= 2
    this.owner = wider(this.owner, new Int32Array(rows))
    this.refs = wider(this.refs, new Int32Array(rows))
    this.pending = wider(this.pending, new Uint8Array(rows))
    this.spid = wider(this.spid, new Uint32Array(rows))
    this.spidUsers = wider(this.spidUsers, new Int32Array(rows))
    this.#next = wider(this.#next, new Int32Array(rows))
    this.#previous = wider(this.#previous, new Int32Array(rows))
  }
}

function wider<T extends Int32Array | Uint32Array | Uint8Array>(old: T, fresh: T): T {
  fresh.set(old)
  return fresh
}
