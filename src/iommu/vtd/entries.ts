/**
 * From a requester and PASID to the tables that translate for them: root, context, PASID directory and
 * PASID table entries, with the context and PASID caches (VT-d 3.4, 6.2, chapter 9). An entry that is
 * not present, or wrong, is never cached. What a binding does with an address: translate.ts.
 */
import { join } from '../../base/addr.js'
import type { EntryInto } from '../../mem/address-space.js'
import type { NestedWalker } from '../../paging/nested.js'
import {
  ACCESS_EXTENDED,
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_SMEP,
  ACCESS_WP,
} from '../../paging/walk.js'
import type { Walker } from '../../paging/walker.js'
import { NO_PASID } from '../../pci/request.js'
import type { VtdConfig } from './config.js'
import type { FaultName } from './fault-reasons.js'
import type { FaultEntry } from './faults.js'
import { TTM } from './registers.js'
import { Requester } from './requester.js'
import { PASIDS_PER_TABLE, PGTT, TT } from './tables.js'

interface Memory {
  readEntry(at: number, into: EntryInto): boolean
}

/** How requests of one kind are translated: a PASID table entry, or a legacy context entry, digested. */
export class Binding {
  /** PGTT, also for legacy mode. */
  pgtt: number = PGTT.PASS_THROUGH
  did = 0
  legacy = false
  /** Physical address of the first-stage table; of a nested one, its second-stage input address. */
  firstRoot = 0
  firstLevels: 4 | 5 = 4
  secondRoot = 0
  secondLevels: 3 | 4 | 5 = 4
  /** Bits of a second-stage input address: the smaller of AW and MGAW. */
  secondWidth = 48
  /** Tags of IOTLB entries: PASID, or `NO_PASID` where the domain alone decides. */
  tagPasid = NO_PASID
  /** SRE and ERE. */
  supervisorAllowed = false
  executeAllowed = false
  /** NXE: without it XD has no meaning. */
  noExecute = false
  /** SSEE: X of second-stage entries has a meaning. */
  secondExecute = false
  /** The ACCESS_* modes of every walk: WPE, SMEP, EAFE, SSADE. */
  modes = ACCESS_NXE
  /** FPD of any structure on the way here. */
  suppress = false
  /** Made when first walked: see walkers.ts. */
  walker: Walker | undefined = undefined
  nestedWalker: NestedWalker | undefined = undefined
  /** The entry this was read from, for faults. */
  entryAt = 0
  entryLo = 0
  entryHi = 0
}

/** A cached context entry. */
export class Context {
  did = 0
  suppress = false
  /** Legacy mode: what untranslated requests use, and TT. */
  binding: Binding | undefined = undefined
  tt = 0
  deviceTlb = false
  pageRequests = false
  pasids = false
  ridPasid = 0
  ridPrivileged = false
  directory = 0
  /** PASIDs that the directory reaches. */
  limit = 0
}

/** Reads and caches the tables of one unit. After a lookup that found nothing, `failure` and `entry` say why. */
export class Entries {
  /** Latched RTADDR_REG. */
  root = 0
  mode: number = TTM.LEGACY
  failure: FaultName = 'rootEntryNotPresent'
  /** Where the lookup stopped. */
  entry: FaultEntry | undefined = undefined
  /** FPD of a structure that was met before the lookup stopped. */
  suppress = false
  /** Told of everything that is cached: the stale-use detector. */
  filled: ((requester: number, pasid: number, made: Context | Binding) => void) | undefined =
    undefined
  readonly #memory: Memory
  readonly #config: VtdConfig
  readonly #limit: number
  /** Bits of a domain id that the unit does not have: reserved. */
  readonly #noDomain: number
  readonly #requesters = new Map<number, Requester>()
  readonly #a: EntryInto = { entryLo: 0, entryHi: 0 }
  readonly #b: EntryInto = { entryLo: 0, entryHi: 0 }

  constructor(memory: Memory, config: VtdConfig) {
    this.#memory = memory
    this.#config = config
    this.#limit = 2 ** config.hostAddressWidth
    this.#noDomain = 0xffff & ~(2 ** config.domainIdBits - 1)
  }

  /** The context entry of a requester. */
  context(requester: number): Context | undefined {
    const known = this.#requesters.get(requester)?.context
    if (known) return known
    this.suppress = false
    this.entry = undefined
    const { mode } = this
    const context =
      mode === TTM.LEGACY
        ? this.#legacyContext(requester)
        : mode === TTM.SCALABLE && this.#config.scalableMode
          ? this.#scalableContext(requester)
          : this.#fail(
              mode === TTM.ABORT_DMA && this.#config.abortDma
                ? 'abortDmaMode'
                : 'translationModeInvalid',
            )
    if (context) {
      this.#requester(requester).context = context
      this.filled?.(requester, NO_PASID, context)
    }
    return context
  }

  /** The PASID table entry for a request under `pasid`, which the context is known to reach. */
  binding(requester: number, context: Context, pasid: number): Binding | undefined {
    const cache = this.#requester(requester)
    const known = cache.binding(pasid)
    if (known) return known
    this.suppress = context.suppress
    this.entry = undefined
    const binding = this.#pasidEntry(context, pasid)
    if (binding) {
      cache.keep(pasid, binding)
      this.filled?.(requester, pasid, binding)
    }
    return binding
  }

  /** Ends a lookup on behalf of its caller. */
  refuse(name: FaultName, suppress = false): undefined {
    this.suppress = suppress
    this.entry = undefined
    return this.#fail(name)
  }

  /** Drops context entries: all, of a domain, or of a requester whose `ignore` function bits may differ. */
  forgetContexts(
    scope: 'global' | 'domain' | 'device',
    did: number,
    requester: number,
    ignore: number,
  ): void {
    if (scope === 'device') {
      for (let fn = 0; fn < 8; fn++) {
        if ((fn & ~ignore) !== 0) continue
        const cache = this.#requesters.get((requester & ~ignore) | fn)
        if (cache?.context && (did < 0 || cache.context.did === did)) cache.context = undefined
      }
      return
    }
    for (const cache of this.#requesters.values())
      if (scope === 'global' || cache.context?.did === did) cache.context = undefined
  }

  /** Drops PASID table entries: all, of a domain, or of one PASID in a domain. */
  forgetBindings(scope: 'global' | 'domain' | 'pasid', did: number, pasid: number): void {
    for (const cache of this.#requesters.values()) {
      if (scope === 'global') cache.dropAll()
      else if (scope === 'pasid') cache.drop(did, pasid)
      else cache.dropDomain(did)
    }
  }

  /** Drops everything. */
  clear(): void {
    this.#requesters.clear()
  }

  #requester(requester: number): Requester {
    let cache = this.#requesters.get(requester)
    if (!cache) {
      cache = new Requester()
      this.#requesters.set(requester, cache)
    }
    return cache
  }

  #legacyContext(requester: number): Context | undefined {
    const a = this.#a
    const b = this.#b
    const rootAt = this.root + (requester >>> 8) * 16
    if (!this.#read(rootAt, a) || !this.#read(rootAt + 8, b))
      return this.#failAt('rootEntryUnreadable', 'root', rootAt, a)
    if ((a.entryLo & 1) === 0) return this.#failAt('rootEntryNotPresent', 'root', rootAt, a)
    if ((a.entryLo & 0xffe) !== 0 || (b.entryLo | b.entryHi) !== 0 || this.#wide(a))
      return this.#failAt('rootEntryReserved', 'root', rootAt, a)
    const at = page(a) + (requester & 0xff) * 16
    if (!this.#read(at, a) || !this.#read(at + 8, b))
      return this.#failAt('contextEntryUnreadable', 'context', at, a)
    this.suppress = (a.entryLo & 2) !== 0
    if ((a.entryLo & 1) === 0) return this.#failAt('contextEntryNotPresent', 'context', at, a)
    if (
      (a.entryLo & 0xff0) !== 0 ||
      (b.entryLo & (0xff00_0080 | (this.#noDomain << 8))) !== 0 ||
      b.entryHi !== 0 ||
      this.#wide(a)
    )
      return this.#failAt('contextEntryReserved', 'context', at, a)
    const tt = (a.entryLo >>> 2) & 3
    const aw = b.entryLo & 7
    const config = this.#config
    const supported =
      tt === TT.UNTRANSLATED ||
      (tt === TT.DEVICE_TLB && config.deviceTlb) ||
      (tt === TT.PASS_THROUGH && config.passThrough)
    if (!supported || !this.#secondStageWidth(aw))
      return this.#failAt('contextEntryInvalid', 'context', at, a)
    const context = new Context()
    context.did = (b.entryLo >>> 8) & 0xffff
    context.suppress = this.suppress
    context.tt = tt
    context.deviceTlb = tt === TT.DEVICE_TLB
    const binding = new Binding()
    binding.legacy = true
    binding.did = context.did
    binding.pgtt = tt === TT.PASS_THROUGH ? PGTT.PASS_THROUGH : PGTT.SECOND_STAGE
    binding.suppress = this.suppress
    this.#secondStage(binding, aw, page(a))
    this.#remember(binding, at, a)
    context.binding = binding
    return context
  }

  #scalableContext(requester: number): Context | undefined {
    const a = this.#a
    const b = this.#b
    const upper = (requester & 0x80) !== 0
    const rootAt = this.root + (requester >>> 8) * 16 + (upper ? 8 : 0)
    if (!this.#read(rootAt, a)) return this.#failAt('smRootEntryUnreadable', 'root', rootAt, a)
    if ((a.entryLo & 1) === 0) return this.#failAt('smRootEntryNotPresent', 'root', rootAt, a)
    if ((a.entryLo & 0xffe) !== 0 || this.#wide(a))
      return this.#failAt('smRootEntryReserved', 'root', rootAt, a)
    const at = page(a) + (requester & 0x7f) * 32
    if (!this.#read(at, a) || !this.#read(at + 8, b))
      return this.#failAt('smContextUnreadable', 'context', at, a)
    this.suppress = (a.entryLo & 2) !== 0
    if ((a.entryLo & 1) === 0) return this.#failAt('smContextNotPresent', 'context', at, a)
    const { entryLo: lo, entryHi: hi } = a
    const { entryLo: rid, entryHi: ridHigh } = b
    const config = this.#config
    const refused =
      0x1e0 |
      (config.deviceTlb ? 0 : 4) |
      (config.pasidBits > 0 ? 0 : 8) |
      (config.pageRequests ? 0 : 16)
    const ridReserved =
      0xffe0_0000 | (config.ridPriv ? 0 : 0x10_0000) | (config.ridPasid ? 0 : 0xf_ffff)
    if ((lo & refused) !== 0 || (rid & ridReserved) !== 0 || ridHigh !== 0 || this.#wide(a))
      return this.#failAt('smContextReserved', 'context', at, a)
    for (let i = 16; i < 32; i += 8) {
      if (!this.#read(at + i, b)) return this.#failAt('smContextUnreadable', 'context', at, a)
      if ((b.entryLo | b.entryHi) !== 0) return this.#failAt('smContextReserved', 'context', at, a)
    }
    const context = new Context()
    context.suppress = this.suppress
    context.deviceTlb = (lo & 4) !== 0
    context.pasids = (lo & 8) !== 0
    context.pageRequests = (lo & 16) !== 0
    context.limit = 2 ** (((lo >>> 9) & 7) + 13)
    context.directory = (hi >>> 0) * HI + ((lo & ~0xfff) >>> 0)
    context.ridPasid = rid & 0xf_ffff
    context.ridPrivileged = (rid & 0x10_0000) !== 0
    if ((context.pageRequests && !context.deviceTlb) || context.ridPasid >= context.limit)
      return this.#failAt('smContextInvalid', 'context', at, a)
    return context
  }

  #pasidEntry(context: Context, pasid: number): Binding | undefined {
    const a = this.#a
    const b = this.#b
    const directoryAt = context.directory + (pasid >>> 6) * 8
    if (!this.#read(directoryAt, a))
      return this.#failAt('pasidDirectoryUnreadable', 'pasid-directory', directoryAt, a)
    if ((a.entryLo & 2) !== 0) this.suppress = true
    if ((a.entryLo & 1) === 0)
      return this.#failAt('pasidDirectoryNotPresent', 'pasid-directory', directoryAt, a)
    if ((a.entryLo & 0xffc) !== 0 || this.#wide(a))
      return this.#failAt('pasidDirectoryReserved', 'pasid-directory', directoryAt, a)

    const at = page(a) + (pasid & (PASIDS_PER_TABLE - 1)) * 64
    if (!this.#read(at, a)) return this.#failAt('pasidEntryUnreadable', 'pasid-table', at, a)
    if ((a.entryLo & 2) !== 0) this.suppress = true
    if ((a.entryLo & 1) === 0) return this.#failAt('pasidEntryNotPresent', 'pasid-table', at, a)
    if ((a.entryLo & 0xc00) !== 0 || this.#wide(a))
      return this.#failAt('pasidEntryReserved', 'pasid-table', at, a)
    const binding = new Binding()
    this.#remember(binding, at, a)
    const lo = a.entryLo
    const secondRoot = page(a)
    if (!this.#read(at + 8, b)) return this.#failAt('pasidEntryUnreadable', 'pasid-table', at, a)
    const attributes = b.entryLo
    const attributeTable = b.entryHi
    if (!this.#read(at + 16, b)) return this.#failAt('pasidEntryUnreadable', 'pasid-table', at, a)
    const flags = b.entryLo
    const firstRoot = page(b)
    if (this.#pasidEntryReserved(lo, attributes, attributeTable, flags, b.entryHi))
      return this.#failAt('pasidEntryReserved', 'pasid-table', at, a)
    for (let i = 24; i < 64; i += 8) {
      if (!this.#read(at + i, b)) return this.#failAt('pasidEntryUnreadable', 'pasid-table', at, a)
      if ((b.entryLo | b.entryHi) !== 0)
        return this.#failAt('pasidEntryReserved', 'pasid-table', at, a)
    }
    binding.suppress = this.suppress
    binding.pgtt = (lo >>> 6) & 7
    binding.did = attributes & 0xffff
    binding.supervisorAllowed = (flags & 1) !== 0
    binding.executeAllowed = this.#config.executeRequests && (flags & 2) !== 0
    binding.noExecute = (flags & 0x20) !== 0
    binding.secondExecute = (lo & 0x20) !== 0
    binding.modes =
      ACCESS_NXE |
      ((flags & 0x10) !== 0 ? ACCESS_WP : 0) |
      ((flags & 0x40) !== 0 ? ACCESS_SMEP : 0) |
      ((flags & 0x80) !== 0 ? ACCESS_EXTENDED : 0) |
      ((lo & 0x200) !== 0 ? ACCESS_FLAGS2 : 0)
    binding.firstRoot = firstRoot
    binding.firstLevels = ((flags >>> 2) & 3) === 1 ? 5 : 4
    this.#secondStage(binding, (lo >>> 2) & 7, secondRoot)
    if (!this.#usable(binding, (lo >>> 2) & 7, (flags >>> 2) & 3))
      return this.#failAt('pasidEntryInvalid', 'pasid-table', at, a)
    const first = binding.pgtt === PGTT.FIRST_STAGE || binding.pgtt === PGTT.NESTED
    binding.tagPasid = first ? pasid : NO_PASID
    return binding
  }

  /** Fields that this unit's capabilities make reserved (VT-d 9.6). */
  #pasidEntryReserved(
    lo: number,
    attributes: number,
    attributeTable: number,
    flags: number,
    flagsHigh: number,
  ): boolean {
    const c = this.#config
    const noSecondFlags = (c.secondStageAccessedDirty ? 0 : 0x200) | (c.executeRequests ? 0 : 0x20)
    const noAttributes =
      0x007f_0000 |
      this.#noDomain |
      (c.pageWalkSnoop ? 0 : 1 << 23) |
      (c.snoopControl ? 0 : 1 << 24) |
      (c.memoryTypes ? 0 : 0xfe00_0000)
    const noFlags =
      0xf00 |
      (c.extendedAccessed ? 0 : 0x80) |
      (c.supervisorRequests ? 0 : 0x51) |
      (c.executeRequests ? 0 : 0x2)
    const wideFirstRoot = ((lo >>> 6) & 7) === PGTT.FIRST_STAGE && this.#wideHalf(flagsHigh)
    return (
      (lo & noSecondFlags) !== 0 ||
      (attributes & noAttributes) !== 0 ||
      (!c.memoryTypes && attributeTable !== 0) ||
      (flags & noFlags) !== 0 ||
      wideFirstRoot
    )
  }

  /** SPT.4: what the entry asks for exists here. */
  #usable(b: Binding, aw: number, fspm: number): boolean {
    const c = this.#config
    const second = () => this.#secondStageWidth(aw)
    const first = () => fspm === 0 || (fspm === 1 && c.firstStage5Level)
    switch (b.pgtt) {
      case PGTT.FIRST_STAGE:
        return c.firstStage && first()
      case PGTT.SECOND_STAGE:
        return c.secondStage && second()
      case PGTT.NESTED:
        return c.nesting && first() && second() && b.firstRoot < 2 ** b.secondWidth
      case PGTT.PASS_THROUGH:
        return c.passThrough
      default:
        return false
    }
  }

  #secondStageWidth(aw: number): boolean {
    return aw >= 1 && aw <= 3 && 30 + 9 * aw <= this.#config.guestAddressWidth
  }

  #secondStage(b: Binding, aw: number, root: number): void {
    b.secondRoot = root
    b.secondLevels = aw === 1 ? 3 : aw === 3 ? 5 : 4
    b.secondWidth = Math.min(30 + 9 * aw, this.#config.guestAddressWidth)
  }

  #remember(b: Binding, at: number, e: EntryInto): void {
    b.entryAt = at
    b.entryLo = e.entryLo
    b.entryHi = e.entryHi
  }

  /** True when the address field of an entry reaches beyond the host address width. */
  #wide(e: EntryInto): boolean {
    return this.#wideHalf(e.entryHi)
  }

  #wideHalf(hi: number): boolean {
    return (hi >>> 0) * HI >= this.#limit
  }

  #read(at: number, into: EntryInto): boolean {
    return at < this.#limit && this.#memory.readEntry(at, into)
  }

  #fail(name: FaultName): undefined {
    this.failure = name
    return undefined
  }

  #failAt(name: FaultName, kind: FaultEntry['kind'], at: number, e: EntryInto): undefined {
    this.entry = { kind, at, value: join(e.entryHi, e.entryLo), level: 0 }
    return this.#fail(name)
  }
}

const HI = 0x1_0000_0000

/** The page address in an entry. */
const page = (e: EntryInto): number => (e.entryHi >>> 0) * HI + ((e.entryLo & ~0xfff) >>> 0)
