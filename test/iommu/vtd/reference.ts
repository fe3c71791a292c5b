// A second reading of the VT-d specification: a deliberately plain walker in bigint that shares no code with
// src/. It knows legacy mode, and scalable mode: root, context, PASID directory and PASID table entries, first
// stage (4- and 5-level), second stage (3- to 5-level), nested and pass-through, accessed and dirty flags. Faults
// are the numbers of 7.1.3. Nothing is cached. Left out: ATS, page requests.

/** What the unit can do. */
export interface Unit {
  readonly haw: number
  readonly mgaw: number
  readonly scalable: boolean
  readonly fiveLevel: boolean
  readonly gigabyteFirst: boolean
  readonly passThrough: boolean
  readonly first: boolean
  readonly second: boolean
  readonly nested: boolean
  readonly deviceTlb: boolean
  readonly pageRequests: boolean
  readonly snoopControl: boolean
  /** SSADS, EAFS, SRS, ERS, MTS, SMPWCS, RPS, RPRIVS. */
  readonly secondFlags: boolean
  readonly extendedAccessed: boolean
  readonly supervisor: boolean
  readonly execute: boolean
  readonly memoryTypes: boolean
  readonly walkSnoop: boolean
  readonly ridPasid: boolean
  readonly ridPriv: boolean
  /** PSS + 1, 0 without PASID. */
  readonly pasidBits: number
  readonly domainBits: number
  /** SSLPS. */
  readonly megabytePages: boolean
  readonly gigabytePages: boolean
}

/** CAP_REG and ECAP_REG (11.4.2, 11.4.3) as software reads them; the host address width is firmware's to tell. */
export function unitOf(cap: bigint, ecap: bigint, haw: number): Unit {
  const pasid = bit(ecap, 40)
  return {
    haw,
    mgaw: Number(bits(cap, 21, 16)) + 1,
    scalable: bit(ecap, 43),
    fiveLevel: bit(cap, 60),
    gigabyteFirst: bit(cap, 56),
    passThrough: bit(ecap, 6),
    first: bit(ecap, 47),
    second: bit(ecap, 46),
    nested: bit(ecap, 26),
    deviceTlb: bit(ecap, 2),
    pageRequests: bit(ecap, 29),
    snoopControl: bit(ecap, 7),
    secondFlags: bit(ecap, 45),
    extendedAccessed: bit(ecap, 34),
    supervisor: bit(ecap, 31),
    execute: bit(ecap, 30),
    memoryTypes: bit(ecap, 25),
    walkSnoop: bit(ecap, 48),
    ridPasid: bit(ecap, 49),
    ridPriv: bit(ecap, 53),
    pasidBits: pasid ? Number(bits(ecap, 39, 35)) + 1 : 0,
    domainBits: 4 + 2 * Number(bits(cap, 2, 0)),
    megabytePages: bit(cap, 34),
    gigabytePages: bit(cap, 35),
  }
}

export interface Request {
  readonly requester: number
  /** -1: none. */
  readonly pasid: number
  readonly address: bigint
  readonly write: boolean
  readonly execute: boolean
  readonly privileged: boolean
}

/** An address, or the number of a fault. */
export type Outcome = { readonly output: bigint } | { readonly fault: number }

/** Memory by 8-byte words; undefined where there is none. */
export interface Words {
  read(at: bigint): bigint | undefined
  write(at: bigint, value: bigint): void
}

const bit = (v: bigint, n: number): boolean => ((v >> BigInt(n)) & 1n) === 1n
const bits = (v: bigint, hi: number, lo: number): bigint =>
  (v >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n)
const low = (v: bigint, n: number): bigint => v & ((1n << BigInt(n)) - 1n)
const fault = (code: number) => ({ fault: code })
const FEE = (address: bigint): boolean => address >> 20n === 0xfeen

/** What second-stage tables are read by. */
interface SecondStage {
  readonly second: bigint
  readonly secondLevels: number
  readonly secondWidth: number
  readonly ssee: boolean
  readonly ssade: boolean
}

/** One PASID table entry, 9.6: what its fields say. */
interface Entry extends SecondStage {
  readonly pgtt: number
  readonly first: bigint
  readonly firstLevels: number
  readonly sre: boolean
  readonly ere: boolean
  readonly wpe: boolean
  readonly nxe: boolean
  readonly smep: boolean
  readonly eafe: boolean
}

interface Access {
  readonly write: boolean
  readonly execute: boolean
}

/** How a second-stage walk ended. */
type Second =
  | { readonly ok: true; readonly output: bigint }
  | { readonly ok: false; readonly why: 'wide' | 'read' | 'write' | 'execute'; readonly fault: 0 }
  | { readonly ok: false; readonly why: 'table'; readonly fault: number }

export class Reference {
  readonly #unit: Unit
  readonly #memory: Words

  constructor(unit: Unit, memory: Words) {
    this.#unit = unit
    this.#memory = memory
  }

  /** What becomes of an untranslated request in legacy mode; 9.1, 9.3. */
  legacyRequest(root: bigint, r: Request): Outcome {
    const { requester } = r
    if (r.pasid >= 0) return fault(0x31)
    const rootAt = root + BigInt((requester >> 8) * 16)
    const [r0, r1] = [this.#read(rootAt), this.#read(rootAt + 8n)]
    if (r0 === undefined || r1 === undefined) return fault(0x08)
    if (!bit(r0, 0)) return fault(0x01)
    if (bits(r0, 11, 1) !== 0n || r1 !== 0n || this.#wide(r0)) return fault(0x0a)
    const at = bits(r0, 63, 12) * 4096n + BigInt((requester & 0xff) * 16)
    const [c0, c1] = [this.#read(at), this.#read(at + 8n)]
    if (c0 === undefined || c1 === undefined) return fault(0x09)
    if (!bit(c0, 0)) return fault(0x02)
    const u = this.#unit
    const noDomain = bits(c1, 23, 8) >> BigInt(u.domainBits) !== 0n
    const reserved = bits(c0, 11, 4) !== 0n || bit(c1, 7) || noDomain || bits(c1, 63, 24) !== 0n
    if (reserved || this.#wide(c0)) return fault(0x0b)
    const type = bits(c0, 3, 2)
    const aw = Number(bits(c1, 2, 0))
    const width = 30 + 9 * aw
    const unknown = [false, !u.deviceTlb, !u.passThrough, true][Number(type)]
    if (unknown || aw < 1 || aw > 3 || width > u.mgaw) return fault(0x03)
    if (type === 2n) return this.#wide(r.address) ? fault(0x04) : { output: r.address }
    const tables = {
      second: bits(c0, 63, 12) * 4096n,
      secondLevels: 2 + aw,
      secondWidth: width,
      ssee: false,
      ssade: false,
    }
    const s = this.#second(tables, r.address, { write: r.write, execute: false })
    if (s.ok) return FEE(s.output) ? fault(0x0e) : { output: s.output }
    if (s.why === 'wide') return fault(0x04)
    if (s.fault === 0x7b) return fault(0x03)
    if (s.fault === 0x78) return fault(0x07)
    if (s.fault === 0x7a) return fault(0x0c)
    // An entry without R and W is one that does not permit the access.
    return fault(r.write ? 0x05 : 0x06)
  }

  /** What becomes of an untranslated request. */
  request(root: bigint, r: Request): Outcome {
    const found = this.#entry(root, r)
    if ('fault' in found) return found
    const { entry: e, privileged } = found
    if (privileged && !e.sre) return fault(0x5d)
    const execute = r.execute && r.pasid >= 0
    if (execute && !e.ere) return fault(0x5c)
    const outcome = this.#through(e, r.address, { write: r.write, execute }, privileged)
    return 'output' in outcome && FEE(outcome.output) ? fault(0x87) : outcome
  }

  #through(e: Entry, address: bigint, a: Access, privileged: boolean): Outcome {
    if (e.pgtt === 4) return this.#wide(address) ? fault(0x83) : { output: address }
    if (e.pgtt === 2) {
      const s = this.#second(e, address, a)
      if (s.ok) return { output: s.output }
      return fault({ table: s.fault, wide: 0x84, read: 0x86, write: 0x85, execute: 0x82 }[s.why])
    }
    return this.#first(e, address, a, privileged)
  }

  /** 9.2, 9.4, 9.5: the way to the PASID table entry. */
  #entry(
    root: bigint,
    r: Request,
  ): { entry: Entry; privileged: boolean } | { readonly fault: number } {
    const { requester } = r
    const rootEntry = this.#read(
      root + BigInt((requester >> 8) * 16 + ((requester & 0x80) === 0 ? 0 : 8)),
    )
    if (rootEntry === undefined) return fault(0x38)
    if (!bit(rootEntry, 0)) return fault(0x39)
    if (bits(rootEntry, 11, 1) !== 0n || this.#wide(rootEntry)) return fault(0x3a)
    const contextAt = bits(rootEntry, 63, 12) * 4096n + BigInt((requester & 0x7f) * 32)
    const context = [0n, 8n, 16n, 24n].map(o => this.#read(contextAt + o))
    if (context[0] === undefined || context[1] === undefined) return fault(0x40)
    const [c0, c1] = [context[0], context[1]]
    if (!bit(c0, 0)) return fault(0x41)
    const u = this.#unit
    const reserved =
      bits(c0, 8, 5) !== 0n ||
      (bit(c0, 2) && !u.deviceTlb) ||
      (bit(c0, 3) && u.pasidBits === 0) ||
      (bit(c0, 4) && !u.pageRequests) ||
      (bits(c1, 19, 0) !== 0n && !u.ridPasid) ||
      (bit(c1, 20) && !u.ridPriv) ||
      bits(c1, 63, 21) !== 0n ||
      this.#wide(c0)
    if (reserved || context[2] !== 0n || context[3] !== 0n) return fault(0x42)
    const reach = 1n << (bits(c0, 11, 9) + 13n)
    const rid = bits(c1, 19, 0)
    if (rid >= reach || (bit(c0, 4) && !bit(c0, 2))) return fault(0x43)
    let pasid = rid
    if (r.pasid >= 0) {
      if (r.pasid >> u.pasidBits !== 0) return fault(0x89)
      if (!bit(c0, 3)) return fault(0x45)
      pasid = BigInt(r.pasid)
      if (pasid >= reach) return fault(0x46)
      if (pasid === rid) return fault(0x48)
    }
    const directory = this.#read(bits(c0, 63, 12) * 4096n + (pasid >> 6n) * 8n)
    if (directory === undefined) return fault(0x50)
    if (!bit(directory, 0)) return fault(0x51)
    if (bits(directory, 11, 2) !== 0n || this.#wide(directory)) return fault(0x52)
    const at = bits(directory, 63, 12) * 4096n + (pasid & 63n) * 64n
    const words: bigint[] = []
    for (let i = 0n; i < 8n; i++) {
      const word = this.#read(at + i * 8n)
      if (word === undefined) return fault(0x58)
      words.push(word)
    }
    const entry = this.#decode(words)
    if (typeof entry === 'number') return fault(entry)
    return { entry, privileged: r.pasid >= 0 ? r.privileged : bit(c1, 20) }
  }

  #decode(words: readonly bigint[]): Entry | number {
    const u = this.#unit
    const [w0, w1, w2] = [words[0]!, words[1]!, words[2]!]
    if (!bit(w0, 0)) return 0x59
    const pgtt = Number(bits(w0, 8, 6))
    const refused =
      bits(w0, 11, 10) !== 0n ||
      this.#wide(w0) ||
      (bit(w0, 9) && !u.secondFlags) ||
      (bit(w0, 5) && !u.execute) ||
      bits(w1, 15, 0) >> BigInt(u.domainBits) !== 0n ||
      bits(w1, 22, 16) !== 0n ||
      (bit(w1, 23) && !u.walkSnoop) ||
      (bit(w1, 24) && !u.snoopControl) ||
      (bits(w1, 63, 25) !== 0n && !u.memoryTypes) ||
      bits(w2, 11, 8) !== 0n ||
      (bit(w2, 7) && !u.extendedAccessed) ||
      ((bit(w2, 0) || bit(w2, 4) || bit(w2, 6)) && !u.supervisor) ||
      (bit(w2, 1) && !u.execute) ||
      (pgtt === 1 && this.#wide(w2)) ||
      words.slice(3).some(w => w !== 0n)
    if (refused) return 0x5a
    const fspm = Number(bits(w2, 3, 2))
    const aw = Number(bits(w0, 4, 2))
    const firstFits = fspm === 0 || (fspm === 1 && u.fiveLevel)
    const secondFits = aw >= 1 && aw <= 3 && 30 + 9 * aw <= u.mgaw
    const first = bits(w2, 63, 12) * 4096n
    const secondWidth = Math.min(30 + 9 * aw, u.mgaw)
    const usable =
      (pgtt === 1 && u.first && firstFits) ||
      (pgtt === 2 && u.second && secondFits) ||
      (pgtt === 3 && u.nested && firstFits && secondFits && first >> BigInt(secondWidth) === 0n) ||
      (pgtt === 4 && u.passThrough)
    if (!usable) return 0x5b
    return {
      pgtt,
      first,
      firstLevels: 4 + fspm,
      second: bits(w0, 63, 12) * 4096n,
      secondLevels: 2 + aw,
      secondWidth,
      ssee: bit(w0, 5),
      ssade: bit(w0, 9),
      sre: bit(w2, 0),
      ere: bit(w2, 1),
      wpe: bit(w2, 4),
      nxe: bit(w2, 5),
      smep: bit(w2, 6),
      eafe: bit(w2, 7),
    }
  }

  /** 3.6 and 9.7; nested: 3.8. */
  #first(e: Entry, address: bigint, a: Access, privileged: boolean): Outcome {
    const u = this.#unit
    const nested = e.pgtt === 3
    const width = 12 + 9 * e.firstLevels
    const top = address >> BigInt(width - 1)
    if (top !== 0n && top !== (1n << BigInt(65 - width)) - 1n) return fault(0x80)
    const entries: { at: bigint; value: bigint; leaf: boolean }[] = []
    let table = e.first
    let output = 0n
    for (let level = e.firstLevels; ; level--) {
      const at = table + bits(address, 11 + 9 * level, 3 + 9 * level) * 8n
      const atTop = level === e.firstLevels
      const where = nested ? this.#entryThrough(e, at, false, atTop) : at
      if (typeof where === 'number') return fault(where)
      // The second stage of an entry says where it is; a table in the interrupt range is never read.
      const value = FEE(where) ? undefined : this.#read(where)
      if (value === undefined) return fault(atTop ? 0x73 : 0x70)
      if (!bit(value, 0)) return fault(0x71)
      const large = level > 1 && bit(value, 7)
      if (large && (level > 3 || (level === 3 && !u.gigabyteFirst))) return fault(0x72)
      if (!nested && low(value, 52) >> BigInt(u.haw) !== 0n) return fault(0x72)
      const size = 12 + 9 * (level - 1)
      if (large && bits(value, size - 1, 13) !== 0n) return fault(0x72)
      const leaf = large || level === 1
      entries.push({ at, value, leaf })
      if (leaf) {
        output = (bits(value, 51, size) << BigInt(size)) | low(address, size)
        break
      }
      table = bits(value, 51, 12) * 4096n
    }
    const user = entries.every(x => bit(x.value, 2))
    const writable = entries.every(x => bit(x.value, 1))
    const noExecute = e.nxe && entries.some(x => bit(x.value, 63))
    if (!privileged && !user) return fault(0x81)
    const smep = privileged && e.smep && user
    if (a.execute && (noExecute || smep)) return fault(0x82)
    if (a.write && !writable && (!privileged || e.wpe)) return fault(0x85)
    let page = output
    if (nested) {
      const s = this.#second(e, output, a)
      if (!s.ok)
        return fault({ table: s.fault, wide: 0x74, read: 0x86, write: 0x85, execute: 0x82 }[s.why])
      page = s.output
    }
    for (const x of entries) {
      const flags = 0x20n | (x.leaf && a.write ? 0x40n : 0n) | (e.eafe ? 0x400n : 0n)
      let where = x.at
      if (nested) {
        const readable = this.#entryThrough(e, x.at, false, false)
        if (typeof readable === 'number') return fault(readable)
        where = readable
      }
      const now = this.#read(where)!
      if ((now & flags) === flags) continue
      if (nested) {
        const writeable = this.#entryThrough(e, x.at, true, false)
        if (typeof writeable === 'number') return fault(writeable)
      }
      this.#memory.write(where, now | flags)
    }
    return { output: page }
  }

  /** Where a first-stage entry is, or the fault of getting there (SFS.5 to SFS.8). */
  #entryThrough(e: Entry, at: bigint, write: boolean, atTop: boolean): bigint | number {
    const s = this.#second(e, at, { write, execute: false })
    if (s.ok) return s.output
    if (s.why === 'table') return s.fault
    return { wide: 0x74, read: atTop ? 0x75 : 0x76, write: 0x77, execute: 0x76 }[s.why]
  }

  /** 3.7 and 9.8. */
  #second(e: SecondStage, address: bigint, a: Access): Second {
    const u = this.#unit
    if (address >> BigInt(e.secondWidth) !== 0n) return { ok: false, why: 'wide', fault: 0 }
    const stop = (code: number): Second => ({ ok: false, why: 'table', fault: code })
    const entries: { at: bigint; value: bigint; leaf: boolean }[] = []
    let table = e.second
    let output = 0n
    for (let level = e.secondLevels; ; level--) {
      const at = table + bits(address, 11 + 9 * level, 3 + 9 * level) * 8n
      const value = this.#read(at)
      if (value === undefined) return stop(level === e.secondLevels ? 0x7b : 0x78)
      const present = bit(value, 0) || bit(value, 1) || (e.ssee && bit(value, 2))
      if (!present) return stop(0x79)
      const large = level > 1 && bit(value, 7)
      const leaf = large || level === 1
      const size = 12 + 9 * (level - 1)
      if (large && !(level === 2 ? u.megabytePages : level === 3 && u.gigabytePages))
        return stop(0x7a)
      if (low(value, 52) >> BigInt(u.haw) !== 0n) return stop(0x7a)
      if (bit(value, 11) && (!leaf || !u.snoopControl)) return stop(0x7a)
      if (leaf && bit(value, 62)) return stop(0x7a)
      if (large && bits(value, size - 1, 12) !== 0n) return stop(0x7a)
      entries.push({ at, value, leaf })
      if (leaf) {
        output = (bits(value, 51, size) << BigInt(size)) | low(address, size)
        break
      }
      table = bits(value, 51, 12) * 4096n
    }
    const all = (n: number) => entries.every(x => bit(x.value, n))
    if (a.execute && !all(e.ssee ? 2 : 0)) return { ok: false, why: 'execute', fault: 0 }
    if (a.write && !all(1)) return { ok: false, why: 'write', fault: 0 }
    if (!a.write && !all(0)) return { ok: false, why: 'read', fault: 0 }
    if (e.ssade)
      for (const x of entries) {
        const flags = 0x100n | (x.leaf && a.write ? 0x200n : 0n)
        const now = this.#read(x.at)!
        if ((now & flags) !== flags) this.#memory.write(x.at, now | flags)
      }
    return { ok: true, output }
  }

  #read(at: bigint): bigint | undefined {
    return this.#wide(at) ? undefined : this.#memory.read(at)
  }

  #wide(address: bigint): boolean {
    return address >> BigInt(this.#unit.haw) !== 0n
  }
}
