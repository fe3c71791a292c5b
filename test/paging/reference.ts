// A deliberately plain walker in bigint, written from the specifications and not from src/paging: what the
// real one is compared with. It knows x86-64, VT-d first stage and VT-d second stage, alone and nested.

export interface RefFormat {
  readonly kind: 'x86' | 'second'
  readonly levels: number
  readonly physicalBits: number
  readonly gigabytePages: boolean
  /** second: input width */
  readonly inputBits?: number
  readonly snoopControl?: boolean
  readonly transientMapping?: boolean
  readonly execute?: boolean
}

export interface RefAccess {
  readonly read?: boolean
  readonly write?: boolean
  readonly fetch?: boolean
  readonly user?: boolean
  readonly wp?: boolean
  readonly smep?: boolean
  readonly smap?: boolean
  readonly ac?: boolean
  readonly nxe?: boolean
  readonly extended?: boolean
  readonly flags2?: boolean
  readonly probe?: boolean
}

export interface RefResult {
  failure: string
  stage: 1 | 2
  during: 'page' | 'entry' | 'flags'
  /** Of the entry that failed. */
  level: number
  entryAt: bigint
  output: bigint
  pageBits: number
  /** r w x for supervisor, then user; g. */
  rights: string
  dirty: boolean
}

export interface RefMemory {
  read(at: bigint): bigint | undefined
  write(at: bigint, value: bigint): void
}

const has = (v: bigint, n: number): boolean => ((v >> BigInt(n)) & 1n) === 1n
const field = (v: bigint, hi: number, lo: number): bigint =>
  (v >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n)

const failed = (failure: string, stage: 1 | 2, level: number, entryAt: bigint): RefResult => ({
  failure,
  stage,
  during: 'page',
  level,
  entryAt,
  output: 0n,
  pageBits: 0,
  rights: '',
  dirty: false,
})

interface Steps {
  readonly result: RefResult
  readonly entries: { at: bigint; value: bigint }[]
}

/** One stage without flags; `read` may answer another stage's failure. */
function descend(
  f: RefFormat,
  read: (at: bigint) => bigint | undefined | RefResult,
  root: bigint,
  input: bigint,
  a: RefAccess,
): Steps {
  const stage = f.kind === 'second' ? 2 : 1
  const entries: { at: bigint; value: bigint }[] = []
  const stop = (failure: string, level: number, at: bigint): Steps => ({
    result: failed(failure, stage, level, at),
    entries,
  })
  const width = 12 + 9 * f.levels
  if (f.kind === 'x86') {
    const top = input >> BigInt(width - 1)
    if (top !== 0n && top !== (1n << BigInt(65 - width)) - 1n)
      return stop('nonCanonical', f.levels, -1n)
  } else if (input >> BigInt(f.inputBits ?? width) !== 0n) return stop('addressSize', f.levels, -1n)

  let table = root
  for (let level = f.levels; ; level--) {
    const at = table + field(input, 11 + 9 * level, 3 + 9 * level) * 8n
    const e = read(at)
    if (e === undefined) return stop('unreadable', level, at)
    if (typeof e !== 'bigint') return { result: e, entries }
    entries.push({ at, value: e })
    const present =
      f.kind === 'x86' ? has(e, 0) : has(e, 0) || has(e, 1) || (f.execute === true && has(e, 2))
    if (!present) return stop('notPresent', level, at)
    const large = level > 1 && has(e, 7)
    if (large && (level > 3 || (level === 3 && !f.gigabytePages)))
      return stop('reserved', level, at)
    if (f.physicalBits < 52 && field(e, 51, f.physicalBits) !== 0n)
      return stop('reserved', level, at)
    const leaf = large || level === 1
    if (f.kind === 'x86') {
      if (has(e, 63) && !a.nxe) return stop('reserved', level, at)
      if (large && field(e, level === 3 ? 29 : 20, 13) !== 0n) return stop('reserved', level, at)
    } else {
      if (has(e, 11) && (!leaf || f.snoopControl === false)) return stop('reserved', level, at)
      if (leaf && has(e, 62) && !f.transientMapping) return stop('reserved', level, at)
      if (large && field(e, level === 3 ? 29 : 20, 12) !== 0n) return stop('reserved', level, at)
    }
    if (!leaf) {
      table = field(e, 51, 12) << 12n
      continue
    }
    const pageBits = 12 + 9 * (level - 1)
    const output =
      (field(e, 51, pageBits) << BigInt(pageBits)) | (input & ((1n << BigInt(pageBits)) - 1n))
    const all = (n: number): boolean => entries.every(x => has(x.value, n))
    const any = (n: number): boolean => entries.some(x => has(x.value, n))
    let [r, w, x] = [true, true, true]
    let [ur, uw, ux] = [true, true, true]
    if (f.kind === 'x86') {
      const [writable, user, noFetch] = [all(1), all(2), any(63)]
      ur = user
      uw = user && writable
      ux = user && !noFetch
      w = writable || !a.wp
      x = !noFetch && !(a.smep && user)
      if (user && a.smap && !a.ac) [r, w] = [false, false]
    } else {
      r = ur = all(0)
      w = uw = all(1)
      x = ux = f.execute ? all(2) : all(0)
    }
    const global = f.kind === 'x86' && has(e, 8)
    const rights = [r && 'r', w && 'w', x && 'x', ur && 'R', uw && 'W', ux && 'X', global && 'g']
    const keeps = f.kind === 'x86' || a.flags2 === true
    const result: RefResult = {
      failure: 'none',
      stage,
      during: 'page',
      level,
      entryAt: at,
      output,
      pageBits,
      rights: rights.filter(Boolean).join(''),
      dirty: !keeps || has(e, f.kind === 'x86' ? 6 : 9),
    }
    const refuse = (failure: string): Steps => stop(failure, level, at)
    const [pr, pw, px] = a.user ? [ur, uw, ux] : [r, w, x]
    const lacksX = a.fetch === true && !px
    const lacksW = a.write === true && !pw
    const lacksR = a.read === true && !pr
    if (lacksX || lacksW || lacksR) {
      if (a.user && !ur && !uw && !ux) return refuse('user')
      if (lacksX) return refuse(!a.user && f.kind === 'x86' && !any(63) ? 'smep' : 'execute')
      if (!a.user && f.kind === 'x86') {
        // What SMAP alone forbids: every read, and writes that the tables allow.
        if (lacksR || (lacksW && (all(1) || !a.wp))) return refuse('smap')
        return refuse('write')
      }
      return refuse(lacksW ? 'write' : 'read')
    }
    return { result, entries }
  }
}

const wantedFlags = (f: RefFormat, a: RefAccess, leaf: boolean): bigint => {
  if (f.kind === 'second') return a.flags2 ? (1n << 8n) | (leaf && a.write ? 1n << 9n : 0n) : 0n
  return (1n << 5n) | (leaf && a.write ? 1n << 6n : 0n) | (a.extended ? 1n << 10n : 0n)
}

/** One stage, with accessed and dirty flags. */
export function refWalk(
  f: RefFormat,
  memory: RefMemory,
  root: bigint,
  input: bigint,
  a: RefAccess,
): RefResult {
  const { result, entries } = descend(f, at => memory.read(at), root, input, a)
  if (result.failure !== 'none') return result
  if (a.probe) return result
  entries.forEach(({ at }, i) => {
    const value = memory.read(at)!
    const flags = wantedFlags(f, a, i === entries.length - 1)
    if ((value & flags) !== flags) memory.write(at, value | flags)
  })
  return { ...result, dirty: result.dirty || a.write === true }
}

/** Two stages. */
export function refNested(
  first: RefFormat,
  second: RefFormat,
  memory: RefMemory,
  firstRoot: bigint,
  secondRoot: bigint,
  input: bigint,
  a: RefAccess,
): RefResult {
  const mode: RefAccess = { flags2: a.flags2 === true, probe: a.probe === true }
  const through = (at: bigint, during: 'entry' | 'flags', write: boolean): bigint | RefResult => {
    const s = refWalk(second, memory, secondRoot, at, { ...mode, read: true, write })
    return s.failure === 'none' ? s.output : { ...s, during }
  }
  const { result: one, entries } = descend(
    first,
    at => {
      const where = through(at, 'entry', false)
      return typeof where === 'bigint' ? memory.read(where) : where
    },
    firstRoot,
    input,
    a,
  )
  if (one.failure !== 'none') return one
  const { read = false, write = false, fetch = false } = a
  const two = refWalk(second, memory, secondRoot, one.output, { ...mode, read, write, fetch })
  if (two.failure !== 'none') return two
  if (!a.probe) {
    for (const [i, { at }] of entries.entries()) {
      const flags = wantedFlags(first, a, i === entries.length - 1)
      const where = through(at, 'flags', false)
      if (typeof where !== 'bigint') return where
      const value = memory.read(where)!
      if ((value & flags) === flags) continue
      const there = through(at, 'flags', true)
      if (typeof there !== 'bigint') return there
      memory.write(there, value | flags)
    }
  }
  const rights = [...one.rights].filter(c => c === 'g' || two.rights.includes(c)).join('')
  return {
    ...two,
    rights,
    pageBits: Math.min(one.pageBits, two.pageBits),
    dirty: (one.dirty || (write && !a.probe)) && two.dirty,
  }
}
