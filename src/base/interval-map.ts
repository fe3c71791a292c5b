/**
 * Sorted disjoint ranges with a value each: IOVA maps, virtual memory areas, reserved regions. A
 * B+-tree whose leaves are chained; the leaf last used is tried first, so work at one place of a map
 * costs the same with one range in it or a million. Emptied leaves go (but the last), half-empty ones stay.
 */

/** Ranges a leaf holds, and children an inner node has. */
const ORDER = 32

// Never true of a start, and not an integer: keeps V8 storing these arrays as plain doubles.
const VACANT = 0.5

class Leaf<T> {
  count = 0
  readonly starts: number[] = new Array<number>(ORDER).fill(VACANT)
  readonly ends: number[] = new Array<number>(ORDER).fill(VACANT)
  readonly values: (T | undefined)[] = new Array<T | undefined>(ORDER).fill(undefined)
  /** Every start that belongs here is at least `low`, and below the next leaf's. */
  low = Number.NEGATIVE_INFINITY
  next: Leaf<T> | undefined = undefined
  previous: Leaf<T> | undefined = undefined
}

class Inner<T> {
  count = 0
  /** Child i holds starts from key i to below key i + 1; key 0 is not looked at. */
  readonly keys: number[] = new Array<number>(ORDER).fill(VACANT)
  readonly children: (Leaf<T> | Inner<T> | undefined)[] = new Array<Leaf<T> | Inner<T> | undefined>(
    ORDER,
  ).fill(undefined)
}

/** Walks the ranges of a map upwards. Made once, used often; a change of the map ends a walk (`seek` anew). */
export interface IntervalCursor<T> {
  /** The range the cursor is on, after a `seek` or `next` that answered true. */
  readonly start: number
  readonly end: number
  readonly value: T
  /** Goes to the first range that ends at or after `point`; false when there is none. */
  seek(point: number): boolean
  /** Goes to the following range; false when there is none. */
  next(): boolean
}

/** Disjoint ranges [start, end], both included, of integers below 2^53. */
export class IntervalMap<T> {
  #size = 0
  #root: Leaf<T> | Inner<T>
  #first: Leaf<T>
  #finger: Leaf<T>
  #spare: Leaf<T> | undefined = undefined
  // The way down of the last descent, for splits and removals.
  readonly #path: Inner<T>[] = []
  readonly #slots: number[] = []

  constructor() {
    this.#first = new Leaf()
    this.#root = this.#first
    this.#finger = this.#first
  }

  /** Number of ranges. */
  get size(): number {
    return this.#size
  }

  /** Adds a range; false, and nothing changed, when it overlaps one that is there. */
  insert(start: number, end: number, value: T): boolean {
    if (!(start <= end)) throw new Error(`a range cannot go from ${start} to ${end}`)
    let leaf = this.#leaf(start)
    let i = position(leaf, start)
    if (
      i > 0
        ? leaf.ends[i - 1]! >= start
        : (leaf.previous?.ends[leaf.previous.count - 1] ?? -1) >= start
    ) {
      return false
    }
    if (following(leaf, i) <= end) return false
    if (leaf.count === ORDER) {
      leaf = this.#split(leaf, start, i)
      i = position(leaf, start)
    }
    const { starts, ends, values } = leaf
    for (let j = leaf.count; j > i; j--) {
      starts[j] = starts[j - 1]!
      ends[j] = ends[j - 1]!
      values[j] = values[j - 1]
    }
    starts[i] = start
    ends[i] = end
    values[i] = value
    leaf.count++
    this.#size++
    return true
  }

  /** The value of the range that holds `point`. */
  find(point: number): T | undefined {
    const leaf = this.#leaf(point)
    const i = position(leaf, point + 1) - 1
    if (i >= 0) return leaf.ends[i]! >= point ? leaf.values[i] : undefined
    const before = leaf.previous
    if (before === undefined || before.ends[before.count - 1]! < point) return undefined
    return before.values[before.count - 1]
  }

  /** True when any range shares a point with [start, end]. */
  overlaps(start: number, end: number): boolean {
    const leaf = this.#leaf(start)
    const i = position(leaf, start)
    return following(leaf, i) <= end || this.find(start) !== undefined
  }

  /** Removes the range that begins exactly at `start` and returns its value; undefined when there is none. */
  remove(start: number): T | undefined {
    const leaf = this.#leaf(start)
    const i = position(leaf, start)
    if (i >= leaf.count || leaf.starts[i] !== start) return undefined
    const { starts, ends, values } = leaf
    const value = values[i]
    const last = leaf.count - 1
    for (let j = i; j < last; j++) {
      starts[j] = starts[j + 1]!
      ends[j] = ends[j + 1]!
      values[j] = values[j + 1]
    }
    values[last] = undefined
    leaf.count = last
    this.#size--
    // The last leaf stays: a range that comes and goes at the end should not cost a leaf each time.
    if (last === 0 && leaf.next !== undefined) this.#drop(leaf, start)
    return value
  }

  /** Removes everything. */
  clear(): void {
    this.#size = 0
    this.#first = new Leaf()
    this.#root = this.#first
    this.#finger = this.#first
  }

  /** A cursor over this map. */
  cursor(): IntervalCursor<T> {
    return new Cursor(
      point => this.#leaf(point),
      () => this.#first,
    )
  }

  /** The ranges that share a point with [from, to], ascending. The map must not change on the way. */
  *entries(
    from = Number.NEGATIVE_INFINITY,
    to = Number.POSITIVE_INFINITY,
  ): Generator<{ start: number; end: number; value: T }> {
    const cursor = this.cursor()
    for (let more = cursor.seek(from); more && cursor.start <= to; more = cursor.next()) {
      yield { start: cursor.start, end: cursor.end, value: cursor.value }
    }
  }

  // The leaf a start belongs to.
  #leaf(start: number): Leaf<T> {
    const finger = this.#finger
    if (start >= finger.low && (finger.next === undefined || start < finger.next.low)) return finger
    let node = this.#root
    while (node instanceof Inner) node = node.children[slot(node, start)]!
    this.#finger = node
    return node
  }

  // Descends to the leaf of `start`, leaving the way in #path and #slots.
  #descend(start: number): void {
    this.#path.length = 0
    this.#slots.length = 0
    let node = this.#root
    while (node instanceof Inner) {
      const at = slot(node, start)
      this.#path.push(node)
      this.#slots.push(at)
      node = node.children[at]!
    }
  }

  // Makes room in a full leaf; returns the half where `start` belongs, whose place in the full leaf was `i`.
  #split(leaf: Leaf<T>, start: number, i: number): Leaf<T> {
    this.#descend(start)
    const right = this.#spare ?? new Leaf<T>()
    this.#spare = undefined
    // Appending at the very end leaves full leaves behind, as maps are mostly filled upwards.
    const keep = i === ORDER && leaf.next === undefined ? ORDER : ORDER / 2
    for (let j = keep; j < ORDER; j++) {
      right.starts[j - keep] = leaf.starts[j]!
      right.ends[j - keep] = leaf.ends[j]!
      right.values[j - keep] = leaf.values[j]
      leaf.values[j] = undefined
    }
    right.count = ORDER - keep
    leaf.count = keep
    right.low = keep === ORDER ? start : right.starts[0]!
    right.next = leaf.next
    right.previous = leaf
    if (leaf.next !== undefined) leaf.next.previous = right
    leaf.next = right
    this.#adopt(right, right.low)
    const home = start >= right.low ? right : leaf
    this.#finger = home
    return home
  }

  // Enters a new node to the right of the way last descended.
  #adopt(node: Leaf<T> | Inner<T>, low: number): void {
    let child = node
    let key = low
    for (let level = this.#path.length - 1; level >= 0; level--) {
      const parent = this.#path[level]!
      let at = this.#slots[level]! + 1
      let into = parent
      let sibling: Inner<T> | undefined
      let siblingKey = 0
      if (parent.count === ORDER) {
        sibling = new Inner<T>()
        const keep = at === ORDER ? ORDER - 1 : ORDER / 2
        for (let j = keep; j < ORDER; j++) {
          sibling.keys[j - keep] = parent.keys[j]!
          sibling.children[j - keep] = parent.children[j]
          parent.children[j] = undefined
        }
        sibling.count = ORDER - keep
        parent.count = keep
        siblingKey = sibling.keys[0]!
        if (at > keep) {
          into = sibling
          at -= keep
        }
      }
      for (let j = into.count; j > at; j--) {
        into.keys[j] = into.keys[j - 1]!
        into.children[j] = into.children[j - 1]
      }
      into.keys[at] = key
      into.children[at] = child
      into.count++
      if (sibling === undefined) return
      child = sibling
      key = siblingKey
    }
    const root = new Inner<T>()
    root.children[0] = this.#root
    root.keys[1] = key
    root.children[1] = child
    root.count = 2
    this.#root = root
  }

  // Takes an emptied leaf out of the tree.
  #drop(leaf: Leaf<T>, start: number): void {
    this.#descend(start)
    let level = this.#path.length - 1
    while (level > 0 && this.#path[level]!.count === 1) level--
    const node = this.#path[level]!
    const at = this.#slots[level]!
    // Its starts now belong to the left neighbour, or to the right one where there is none below this node.
    if (at === 0) leaf.next!.low = leaf.low
    for (let j = at; j < node.count - 1; j++) {
      node.keys[j] = node.keys[j + 1]!
      node.children[j] = node.children[j + 1]
    }
    node.children[--node.count] = undefined
    while (this.#root instanceof Inner && this.#root.count === 1)
      this.#root = this.#root.children[0]!

    const next = leaf.next!
    if (leaf.previous !== undefined) leaf.previous.next = next
    else this.#first = next
    next.previous = leaf.previous
    this.#finger = leaf.previous ?? next
    leaf.previous = undefined
    leaf.next = undefined
    this.#spare = leaf
  }
}

class Cursor<T> implements IntervalCursor<T> {
  readonly #find: (point: number) => Leaf<T>
  readonly #first: () => Leaf<T>
  #leaf: Leaf<T>
  #at = 0

  constructor(find: (point: number) => Leaf<T>, first: () => Leaf<T>) {
    this.#find = find
    this.#first = first
    this.#leaf = first()
  }

  get start(): number {
    return this.#leaf.starts[this.#at]!
  }

  get end(): number {
    return this.#leaf.ends[this.#at]!
  }

  get value(): T {
    return this.#leaf.values[this.#at] as T
  }

  seek(point: number): boolean {
    let leaf = point === Number.NEGATIVE_INFINITY ? this.#first() : this.#find(point)
    let at = position(leaf, point + 1) - 1
    if (at < 0 && leaf.previous !== undefined) {
      leaf = leaf.previous
      at = leaf.count - 1
    }
    this.#leaf = leaf
    this.#at = at
    if (at >= 0 && leaf.ends[at]! >= point) return true
    return this.next()
  }

  next(): boolean {
    if (++this.#at < this.#leaf.count) return true
    if (this.#leaf.next === undefined) return false
    this.#leaf = this.#leaf.next
    this.#at = 0
    return this.#leaf.count > 0
  }
}

// Place of the first start not below `start`.
function position<T>(leaf: Leaf<T>, start: number): number {
  const starts = leaf.starts
  let low = 0
  let high = leaf.count
  while (low < high) {
    const middle = (low + high) >> 1
    if (starts[middle]! < start) low = middle + 1
    else high = middle
  }
  return low
}

// Start of the range at place `i`, counting on into the next leaf; infinite after the last range.
function following<T>(leaf: Leaf<T>, i: number): number {
  if (i < leaf.count) return leaf.starts[i]!
  const next = leaf.next
  return next === undefined || next.count === 0 ? Number.POSITIVE_INFINITY : next.starts[0]!
}

// Place of the child that `start` belongs to.
function slot<T>(node: Inner<T>, start: number): number {
  const keys = node.keys
  let low = 1
  let high = node.count
  while (low < high) {
    const middle = (low + high) >> 1
    if (keys[middle]! <= start) low = middle + 1
    else high = middle
  }
  return low - 1
}
