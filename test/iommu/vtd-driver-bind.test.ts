// Guest tables bound to PASIDs: the order of checks, what the table then holds, which descriptors are issued,
// and what is left after every way of taking a binding away.
import { describe, expect, it } from 'vitest'
import { INVALID_IOASID } from '../../src/iommu/ioasid.js'
import { iommu_page_response } from '../../src/iommu/uapi.js'
import { PASID_ENTRY, SM_CONTEXT_ENTRY } from '../../src/iommu/vtd/tables.js'
import {
  type Bench,
  type BenchOptions,
  bdfOf,
  bench,
  bindData,
  codeOf,
  GuestTable,
  invalidateInfo,
} from './driver-bench.js'

const ALL = 0x7fff_ffff
const GPASID_VAL = 1n
const [SRE, EAFE, PCD, PWT, EMTE, CD, WPE] = [1n, 2n, 4n, 8n, 16n, 32n, 64n]

/** A nesting domain with the first devices attached, and one PASID of its set. */
function setup(options: BenchOptions = {}, attached: readonly number[] = [0]) {
  const b = bench(options)
  const domain = b.nested(attached)
  const pasid = b.ioasid.alloc(domain.set, 1, ALL)
  const bind = (changes: Parameters<typeof bindData>[0] = {}, n = 0) =>
    domain.bindGpasid(bdfOf(n), bindData({ hpasid: BigInt(pasid), ...changes }))
  const unbind = (n = 0, hpasid = BigInt(pasid)) => domain.unbindGpasid(bdfOf(n), hpasid)
  return { b, domain, set: domain.set, pasid, bind, unbind }
}

/** The PASID entry of a device as it is in memory. */
function entryOf(b: Bench, n: number, pasid: number) {
  const read = (at: number, size: number) => {
    const bytes = new Uint8Array(size)
    b.memory.read(at, bytes)
    return bytes
  }
  const root = Number(b.memory.load(b.unit.rootTable + (bdfOf(n) >> 8) * 16, 8) & ~0xfffn)
  const context = SM_CONTEXT_ENTRY.at(read(root, 32))
  const table = Number(b.memory.load(context.PASIDDIRPTR + (pasid >> 6) * 8, 8) & ~0xfffn)
  return PASID_ENTRY.at(read(table + (pasid & 63) * 64, 64))
}

const refusal = (run: () => void): string => {
  try {
    run()
    return 'ok'
  } catch (error) {
    return (error as Error).message
  }
}

describe('bind: checks', () => {
  type Change = Parameters<typeof bindData>[0]
  /** Rows of the documented order that data alone can violate. */
  const rows: readonly (readonly [row: string, change: Change, answer: string])[] = [
    ['6 format 0 (E73)', { format: 0 }, 'EINVAL: bind guest PASID: format 0'],
    ['6 argsz 71 (E70)', { argsz: 71 }, 'EINVAL: bind guest PASID: no VT-d part'],
    ['6 WPE (E76)', { vtdFlags: WPE }, 'EINVAL: bind guest PASID: VT-d flags 0x40'],
    ['9 hpasid 0 (E66)', { hpasid: 0n }, 'EINVAL: bind guest PASID: PASID 0'],
    ['9 hpasid 2^20 (E67)', { hpasid: 0x10_0000n }, 'EINVAL: bind guest PASID: PASID 1048576'],
    ['9 bit 32 (E68)', { hpasid: 0x1_0000_0001n }, 'EINVAL: bind guest PASID: PASID 4294967297'],
    ['10 not allocated (E63)', { hpasid: 50n }, 'ENOENT: PASID 50 is not allocated'],
    ['11 of another process (E64)', { hpasid: 60n }, 'EACCES: PASID 60 belongs to another set'],
    ['11 of the host (E65)', { hpasid: 61n }, 'EACCES: PASID 61 belongs to another set'],
    ['12 bound (E62)', { hpasid: 62n }, 'EBUSY: bind guest PASID: PASID 62 is bound on the device'],
    ['16 width 39 (E79)', { addr_width: 39 }, 'EINVAL: bind guest PASID: address width 39'],
    ['16 width 0 (E79)', { addr_width: 0 }, 'EINVAL: bind guest PASID: address width 0'],
    ['16 width 64 (E79)', { addr_width: 64 }, 'EINVAL: bind guest PASID: address width 64'],
    ['16 width 57 (E80)', { addr_width: 57 }, 'EINVAL: bind guest PASID: address width 57'],
    ['17 gpgd (E81)', { gpgd: 1n << 48n }, 'EINVAL: bind guest PASID: gpgd beyond the domain'],
    [
      '17 gpgd all ones',
      { gpgd: (1n << 64n) - 1n },
      'EINVAL: bind guest PASID: gpgd beyond the domain',
    ],
    ['18 EAFE', { vtdFlags: EAFE }, 'EINVAL: bind guest PASID: no EAFE'],
    ['18 PCD (E77)', { vtdFlags: PCD }, 'EINVAL: bind guest PASID: no memory types'],
    ['18 PWT', { vtdFlags: PWT }, 'EINVAL: bind guest PASID: no memory types'],
    ['18 EMTE', { vtdFlags: EMTE }, 'EINVAL: bind guest PASID: no memory types'],
    ['18 CD', { vtdFlags: CD }, 'EINVAL: bind guest PASID: no memory types'],
  ]
  const number = (row: string) => Number.parseInt(row, 10)

  function world() {
    const s = setup({ vtd: { extendedAccessed: false } })
    s.b.ioasid.alloc(s.b.newSet(), 60, 60)
    s.b.ioasid.alloc(s.b.ioasid.hostSet, 61, 61)
    s.b.ioasid.alloc(s.set, 62, 62)
    s.bind({ hpasid: 62n })
    return s
  }

  it.each(rows)('row %s', (_row, change, answer) => {
    const s = world()
    const before = [s.b.ioasid.references(s.pasid), s.b.frames.used]
    expect(refusal(() => s.bind(change))).toBe(answer)
    expect([s.b.ioasid.references(s.pasid), s.b.frames.used]).toEqual(before)
    expect(s.b.driver.bindingCount).toBe(1)
  })

  let shared: ReturnType<typeof world> | undefined
  const pairs = rows.flatMap(one =>
    rows
      .filter(two => number(one[0]) < number(two[0]))
      .filter(two => !Object.keys(one[1]!).some(key => key in two[1]!))
      .map(two => [one[0], two[0], { ...two[1], ...one[1] }, one[2]] as const),
  )
  it.each(pairs)('row %s comes before row %s', (_one, _two, change, answer) => {
    shared ??= world() // a refused bind changes nothing, as the rows above show
    expect(refusal(() => shared!.bind(change))).toBe(answer)
  })

  it('row 7: not a PCI device is 524, before its PASID width and the PASID are looked at', () => {
    const { domain } = setup()
    expect(codeOf(() => domain.bindGpasid(0x4200, bindData()))).toBe('ENOTSUPP')
    expect(codeOf(() => domain.bindGpasid(0x4200, bindData({ format: 0 })))).toBe('EINVAL')
  })

  it.each([0, 16])(
    'row 8: PASIDs of %i bits are refused before the PASID is looked at (E83)',
    width => {
      const { bind } = setup({ devices: [{ pasidWidth: width }] })
      expect(refusal(() => bind())).toContain('no 20-bit PASIDs')
      expect(refusal(() => bind({ hpasid: 0n }))).toContain('no 20-bit PASIDs')
    },
  )

  it('row 13: prefixes that do not reach the unit, after ownership (E93)', () => {
    const { bind } = setup({ devices: [{ endEndPrefix: false }] })
    expect(refusal(() => bind())).toContain('do not reach the unit')
    expect(codeOf(() => bind({ hpasid: 50n }))).toBe('ENOENT')
    expect(refusal(() => bind({ addr_width: 39 }))).toContain('do not reach the unit')
  })

  it('row 14: a domain that does not nest, or that the device is not in, before the table is looked at', () => {
    const { b, domain, bind } = setup({ devices: [{}, {}] })
    expect(refusal(() => bind({ addr_width: 39 }, 1))).toContain('does not nest')
    const plain = b.core.domainAlloc(bdfOf(1))
    plain.attach(bdfOf(1))
    const host = BigInt(b.ioasid.alloc(b.ioasid.hostSet, 1, ALL))
    expect(refusal(() => plain.bindGpasid(bdfOf(1), bindData({ hpasid: host })))).toContain(
      'does not nest',
    )
    expect(refusal(() => domain.bindGpasid(bdfOf(1), bindData({ hpasid: 1n })))).toContain(
      'does not nest',
    )
  })

  it('row 15: an entry that is present though nobody bound it, before the width', () => {
    const s = setup()
    s.bind()
    const at = Number(tableOf(s.b) + s.pasid * 64)
    s.unbind()
    s.b.memory.writeU32(at, 1)
    expect(refusal(() => s.bind({ addr_width: 39 }))).toContain('has an entry')
    s.b.memory.writeU32(at, 0)
    expect(codeOf(() => s.bind())).toBe('ok')
  })

  it('row 16 and 18 follow the unit: 5-level guests, supervisor requests (E78, E80)', () => {
    const s = setup({ vtd: { firstStage5Level: true } })
    s.bind({ addr_width: 57, vtdFlags: SRE | EAFE })
    expect(entryOf(s.b, 0, s.pasid)).toMatchObject({ FSPM: 1, SRE: true, EAFE: true })
    expect(
      refusal(() => setup({ vtd: { supervisorRequests: false } }).bind({ vtdFlags: SRE })),
    ).toContain('no SRE')
  })

  it('a larger argsz is fine (E71)', () => {
    expect(codeOf(() => setup().bind({ argsz: 200 }))).toBe('ok')
  })

  it('a guest PASID that is taken in the set, or is none, refuses the bind and leaves nothing (E91)', () => {
    const s = setup()
    const other = s.b.ioasid.alloc(s.set, 1, ALL)
    s.bind({ flags: GPASID_VAL, gpasid: 101n })
    for (const gpasid of [101n, 0x10_0000n, 1n << 40n])
      expect(codeOf(() => s.bind({ hpasid: BigInt(other), flags: GPASID_VAL, gpasid }))).toBe(
        'EINVAL',
      )
    expect([s.b.ioasid.state(other), s.b.driver.bindingCount]).toEqual(['IDLE', 1])
    expect(s.b.ioasid.find(s.set, other)).toBeUndefined()
    expect(entryOf(s.b, 0, other).P).toBe(false)
    s.bind({ hpasid: BigInt(other), flags: GPASID_VAL, gpasid: 102n })
    expect(s.b.driver.bindingCount).toBe(2)
  })

  it('two sets may use one guest PASID (E92)', () => {
    const b = bench({ devices: [{}, {}] })
    const one = b.nested([0])
    const two = b.nested([1])
    for (const [n, d] of [one, two].entries()) {
      const hpasid = BigInt(b.ioasid.alloc(d.set, 1, ALL))
      d.bindGpasid(bdfOf(n), bindData({ hpasid, flags: GPASID_VAL, gpasid: 101n }))
    }
    expect([b.ioasid.findBySpid(one.set, 101), b.ioasid.findBySpid(two.set, 101)]).toEqual([1, 2])
  })

  it('without a set only PASIDs of the host can be bound', () => {
    const s = setup()
    s.domain.setIoasidSet(undefined)
    expect(codeOf(() => s.bind())).toBe('EACCES')
    const hpasid = BigInt(s.b.ioasid.alloc(s.b.ioasid.hostSet, 1, ALL))
    expect(codeOf(() => s.bind({ hpasid }))).toBe('ok')
  })
})

/** The PASID table of PASIDs 0 to 63 of the first device. */
function tableOf(b: Bench): number {
  const root = Number(b.memory.load(b.unit.rootTable + 16, 8) & ~0xfffn)
  const context = new Uint8Array(32)
  b.memory.read(root, context)
  return Number(b.memory.load(SM_CONTEXT_ENTRY.at(context).PASIDDIRPTR, 8) & ~0xfffn)
}

describe('domains and their sets', () => {
  it('E-22: ENODEV when not nesting, EBUSY for another set, the same again is fine', () => {
    const b = bench()
    const set = b.newSet()
    expect(codeOf(() => b.core.domainAlloc(bdfOf(0)).setIoasidSet(set))).toBe('ENODEV')
    const domain = b.core.domainAlloc(bdfOf(0), { nesting: true })
    domain.setIoasidSet(set)
    expect(codeOf(() => domain.setIoasidSet(set))).toBe('ok')
    expect(codeOf(() => domain.setIoasidSet(b.newSet()))).toBe('EBUSY')
    domain.setIoasidSet(undefined)
    expect(codeOf(() => domain.setIoasidSet(b.newSet()))).toBe('ok')
  })

  it('2.3: nesting info has the masked registers, features, widths', () => {
    const info = setup().domain.nestingInfo()!
    expect(info).toEqual({
      format: 1,
      features: 7,
      addrWidth: 48,
      pasidBits: 20,
      cap: 1n << 56n,
      ecap: (1n << 29n) | (1n << 30n) | (1n << 31n) | (1n << 34n) | (1n << 40n),
    })
  })

  it.each([
    [{ pasidBits: 16 }, { pasidBits: 16 }],
    [{ pasidBits: 0 }, { pasidBits: 0, ecap: (1n << 29n) | (1n << 31n) | (1n << 34n) }],
    [
      { extendedAccessed: false, supervisorRequests: false },
      { ecap: (1n << 29n) | (1n << 30n) | (1n << 40n) },
    ],
    [{ firstStage5Level: true, firstStage1GPages: false }, { cap: 1n << 60n }],
    [{ guestAddressWidth: 57 as const }, { addrWidth: 57 }],
  ])('nesting info of a unit with %j', (vtd, expected) => {
    const b = bench({ vtd })
    expect(b.core.domainAlloc(bdfOf(0), { nesting: true }).nestingInfo()).toMatchObject(expected)
  })

  it.each([['nesting'], ['firstStage'], ['secondStage']] as const)(
    'a unit without %s gives no nesting domain (E12)',
    feature => {
      const b = bench({ vtd: { [feature]: false } })
      expect(codeOf(() => b.core.domainAlloc(bdfOf(0), { nesting: true }))).toBe('ENODEV')
    },
  )

  it('a unit without second stage gives no domain at all', () => {
    expect(codeOf(() => bench({ vtd: { secondStage: false } }).core.domainAlloc(bdfOf(0)))).toBe(
      'ENODEV',
    )
  })
})

describe('bind and unbind', () => {
  it('writes a nested entry: guest root, the domain below it, and nothing is invalidated', () => {
    const s = setup()
    s.bind({ gpgd: 0x1234_5000n })
    const rid = entryOf(s.b, 0, 0)
    const entry = entryOf(s.b, 0, s.pasid)
    expect(entry).toMatchObject({
      P: true,
      PGTT: 3,
      FSPTPTR: 0x1234_5000,
      FSPM: 0,
      SSPTPTR: rid.SSPTPTR,
      AW: 2,
      DID: rid.DID,
      SRE: false,
      ERE: false,
      NXE: true,
      PWSNP: true,
    })
    expect(s.b.invalidations()).toEqual([])
  })

  it('a device reaches guest memory through both stages, and only under its PASID', () => {
    const s = setup()
    const table = new GuestTable(s.b, s.domain, 0x100)
    s.domain.map(0x40, s.b.page(0xfeed), 1, 3)
    table.map(0x7f00_0000_1000n, 0x40)
    s.bind({ gpgd: BigInt(table.root) })
    expect(s.b.read(0, 0x7f00_0000_1000n, s.pasid)).toBe(0xfeed)
    expect(s.b.write(0, 0x7f00_0000_1004n, 0xbeef, s.pasid)).toBe('ok')
    expect(s.b.read(0, 0x4_0004n)).toBe(0xbeef)
    expect(s.b.read(0, 0x7f00_0000_1000n, s.pasid + 1)).not.toBe(0xfeed)
    expect(s.b.read(0, 0x7f00_0000_1000n)).not.toBe(0xfeed)
  })

  it('E82: a guest root that is not mapped binds, and faults on first use', () => {
    const s = setup()
    s.bind({ gpgd: 0x5_0000n })
    expect(s.b.read(0, 0x1000n, s.pasid)).not.toBe(0)
    expect(s.b.unit.lastFault?.name).toBe('ssEntryNotPresent')
  })

  it('unbind clears the entry, then PASID cache, IOTLB and device TLB, and no stale translation remains', () => {
    const s = setup({ devices: [{ ats: true, pri: true }] })
    const table = new GuestTable(s.b, s.domain, 0x100)
    s.domain.map(0x40, s.b.page(0xfeed), 1, 3)
    table.map(0x1000n, 0x40)
    s.bind({ gpgd: BigInt(table.root) })
    expect(s.b.read(0, 0x1000n, s.pasid)).toBe(0xfeed)
    s.b.issued.length = 0
    s.unbind()
    expect(s.b.invalidations()).toEqual([
      `pasid-cache pasid did 1 pasid ${s.pasid}`,
      `pasid-iotlb pasid did 1 pasid ${s.pasid}`,
      `device-tlb completed of 100 pasid ${s.pasid} at 0/64`,
    ])
    expect(entryOf(s.b, 0, s.pasid).bytes.every(v => v === 0)).toBe(true)
    expect(s.b.read(0, 0x1000n, s.pasid)).not.toBe(0xfeed)
    expect([s.b.ioasid.state(s.pasid), s.b.driver.bindingCount]).toEqual(['IDLE', 0])
  })

  it.each([
    ['E94 never bound', 1n, 'ok'],
    ['E95 never allocated', 50n, 'ENOENT'],
    ['of another set', 60n, 'EACCES'],
    ['0', 0n, 'EINVAL'],
    ['2^20', 0x10_0000n, 'EINVAL'],
    ['E159 a bound one with bit 32 set', 0x1_0000_0002n, 'EINVAL'],
  ])('unbind of a PASID that is %s', (_name, hpasid, errno) => {
    const s = setup()
    const bound = s.b.ioasid.alloc(s.set, 2, 2)
    s.bind({ hpasid: BigInt(bound) })
    s.b.ioasid.alloc(s.b.newSet(), 60, 60)
    expect(codeOf(() => s.unbind(0, hpasid))).toBe(errno)
    expect(s.b.driver.bindingCount).toBe(1)
  })

  it('takes one reference for all devices, and BIND and UNBIND are announced once (E128)', () => {
    const s = setup({ devices: [{}, {}] }, [0, 1])
    const log: string[] = []
    s.b.ioasid.subscribe(
      { priority: 'cpu', notify: (e, id, spid) => log.push(`${e} ${id} ${spid}`) },
      s.set,
    )
    const guest = { flags: GPASID_VAL, gpasid: 101n }
    s.bind(guest, 0)
    s.bind(guest, 1)
    expect([s.b.ioasid.references(s.pasid), log]).toEqual([2, [`3 ${s.pasid} 101`]])
    s.unbind(0)
    expect([s.b.ioasid.references(s.pasid), log.length]).toEqual([2, 1])
    s.unbind(1)
    expect([s.b.ioasid.references(s.pasid), log[1]]).toEqual([1, `4 ${s.pasid} 101`])
    expect(s.b.ioasid.spidOf(s.pasid)).toBe(INVALID_IOASID)
  })

  it('E62: a second bind is EBUSY and the first binding stays', () => {
    const s = setup()
    s.bind({ gpgd: 0x1000n })
    expect(codeOf(() => s.bind({ gpgd: 0x2000n }))).toBe('EBUSY')
    expect(entryOf(s.b, 0, s.pasid).FSPTPTR).toBe(0x1000)
  })

  it('needs a table page only for new PASIDs; without memory it refuses and leaves nothing', () => {
    const s = setup()
    const far = s.b.ioasid.alloc(s.set, 0x5000, 0x5000)
    while (s.b.frames.used < s.b.frames.total) s.b.frames.alloc()
    expect(codeOf(() => s.bind({ hpasid: BigInt(far) }))).toBe('ENOMEM')
    expect([s.b.ioasid.references(far), s.b.driver.bindingCount]).toEqual([1, 0])
    expect(codeOf(() => s.bind())).toBe('ok')
  })

  it('detach takes all bindings of the device along, and the frames come back', () => {
    const b = bench()
    const used = b.frames.used
    const domain = b.nested()
    for (let i = 0; i < 5; i++) {
      const hpasid = BigInt(b.ioasid.alloc(domain.set, 1000 * i + 1, ALL))
      domain.bindGpasid(bdfOf(0), bindData({ hpasid, flags: GPASID_VAL, gpasid: BigInt(i) }))
    }
    expect(b.driver.bindingCount).toBe(5)
    domain.detach(bdfOf(0))
    expect(b.driver.bindingCount).toBe(0)
    b.ioasid.forEach(domain.set, id => expect(b.ioasid.state(id)).toBe('IDLE'))
    domain.free()
    expect(b.frames.used).toBe(used)
  })

  it('a domain whose pages change under a binding is flushed as a whole, device TLBs by PASID too', () => {
    const s = setup({ devices: [{ ats: true }] })
    const table = new GuestTable(s.b, s.domain, 0x100)
    s.domain.map(0x40, s.b.page(0xfeed), 1, 3)
    table.map(0x1000n, 0x40)
    s.bind({ gpgd: BigInt(table.root) })
    expect(s.b.read(0, 0x1000n, s.pasid)).toBe(0xfeed)
    s.b.issued.length = 0
    s.domain.unmap(0x40, 1)
    s.domain.flush()
    expect(s.b.invalidations()).toEqual([
      'iotlb domain did 1',
      'device-tlb completed of 100 at 40000/12',
      `device-tlb completed of 100 pasid ${s.pasid} at 0/64`,
    ])
    expect(s.b.read(0, 0x1000n, s.pasid)).not.toBe(0xfeed)
    expect(s.b.driver.bindingCount).toBe(1)
  })
})

describe('free of a bound PASID (3.7)', () => {
  function bound(options: BenchOptions = {}, attached: readonly number[] = [0]) {
    const s = setup(options, attached)
    const table = new GuestTable(s.b, s.domain, 0x100)
    s.domain.map(0x40, s.b.page(0xfeed), 1, 3)
    table.map(0x1000n, 0x40)
    for (const n of attached) s.bind({ gpgd: BigInt(table.root), flags: GPASID_VAL, gpasid: 7n }, n)
    return s
  }

  it('E53, E56: free returns at once, teardown is later work, then the id can be had again', () => {
    const s = bound()
    s.b.ioasid.free(s.set, s.pasid)
    expect(s.b.ioasid.state(s.pasid)).toBe('FREE_PENDING')
    expect(s.b.read(0, 0x1000n, s.pasid)).toBe(0xfeed)
    expect(s.b.ioasid.alloc(s.set, s.pasid, s.pasid)).toBe(INVALID_IOASID)
    s.b.clock.settle()
    expect([s.b.ioasid.state(s.pasid), s.b.driver.bindingCount]).toEqual(['FREE', 0])
    expect(s.b.read(0, 0x1000n, s.pasid)).not.toBe(0xfeed)
    expect(s.b.ioasid.alloc(s.set, s.pasid, s.pasid)).toBe(s.pasid)
  })

  it('E54, E55, E130: meanwhile bind and unbind find nothing and drop no reference', () => {
    const s = bound()
    s.b.ioasid.free(s.set, s.pasid)
    expect(codeOf(() => s.bind())).toBe('ENOENT')
    expect(codeOf(() => s.unbind())).toBe('ENOENT')
    expect(s.b.ioasid.references(s.pasid)).toBe(1)
    s.b.clock.settle()
    expect(codeOf(() => s.unbind())).toBe('ENOENT')
  })

  it('E57: every device entry is gone before the id is reusable', () => {
    const s = bound({ devices: [{}, {}] }, [0, 1])
    s.b.ioasid.free(s.set, s.pasid)
    s.b.clock.settle()
    expect([0, 1].map(n => entryOf(s.b, n, s.pasid).P)).toEqual([false, false])
    expect(s.b.ioasid.state(s.pasid)).toBe('FREE')
  })

  it('E129: the CPU hears before the IOMMU, the device after, whatever order they came in', () => {
    const s = bound()
    const heard: string[] = []
    for (const priority of ['device', 'cpu'] as const)
      s.b.ioasid.subscribe(
        { priority, notify: () => heard.push(`${priority} ${s.b.clock.pending}`) },
        s.set,
      )
    s.b.ioasid.free(s.set, s.pasid)
    expect(heard).toEqual(['cpu 0', 'device 1'])
  })

  it('a detach before the teardown does it then, and the late work finds nothing', () => {
    const s = bound()
    s.b.ioasid.free(s.set, s.pasid)
    s.domain.detach(bdfOf(0))
    expect(s.b.ioasid.state(s.pasid)).toBe('FREE')
    const again = s.b.ioasid.alloc(s.set, s.pasid, s.pasid)
    s.domain.attach(bdfOf(0))
    s.bind({ hpasid: BigInt(again) })
    s.b.clock.settle()
    expect([s.b.driver.bindingCount, s.b.ioasid.state(again)]).toEqual([1, 'ACTIVE'])
  })

  it('a dying set leaves no binding and no id', () => {
    const s = bound()
    s.b.ioasid.putSet(s.set)
    s.b.clock.settle()
    expect([s.b.driver.bindingCount, s.b.ioasid.held]).toEqual([0, 0])
    s.domain.detach(bdfOf(0))
    s.domain.free()
  })

  it('freed while waiting for a page response: the device is answered INVALID', () => {
    const s = bound({ devices: [{ ats: true, pri: true }] })
    s.b.core.onFault(bdfOf(0), () => true)
    const answers: number[] = []
    request(s.b, s.pasid, 0x9000n, answers)
    s.b.clock.settle()
    expect(s.b.core.pendingPageRequests()).toBe(1)
    s.b.ioasid.free(s.set, s.pasid)
    s.b.clock.settle()
    expect([answers, s.b.core.pendingPageRequests()]).toEqual([[1], 0])
    expect(codeOf(() => s.b.core.pageResponse(bdfOf(0), response(s.pasid, 0)))).toBe('EINVAL')
  })
})

function request(b: Bench, pasid: number, at: bigint, answers: number[]) {
  const tag = { pasid: pasid as never }
  const r = b.ports[0]!.dma.pageRequest(at as never, { write: true }, tag, code =>
    answers.push(code),
  )
  expect(r).toEqual({ ok: true })
}

const response = (pasid: number, grpid: number, code = 0) =>
  iommu_page_response({ version: 1, flags: 1, pasid, grpid, code })

describe('cache invalidation (2.9, 5.5)', () => {
  const [IOTLB, DEV, PASID] = [1, 2, 4]
  const [DOMAIN, BY_PASID, ADDR] = [0, 1, 2]

  function world(ats: boolean) {
    const s = setup({ devices: [{ ats }] })
    s.bind()
    s.b.ioasid.alloc(s.set, 2, 2)
    s.b.ioasid.alloc(s.b.newSet(), 60, 60)
    s.b.issued.length = 0
    return s
  }
  const page = { pasid: 1n, addr: 0x1000n, granule_size: 4096n, nb_granules: 1n }
  const all = 'pasid-iotlb pasid did 1 pasid 1'
  const deviceAll = 'device-tlb completed of 100 pasid 1 at 0/64'

  it.each([
    ['IOTLB, PASID', IOTLB, BY_PASID, { pasid: 1n }, [all], [all, deviceAll]],
    [
      'IOTLB, one page',
      IOTLB,
      ADDR,
      page,
      ['pasid-iotlb page did 1 pasid 1 at 1000/12'],
      [
        'pasid-iotlb page did 1 pasid 1 at 1000/12',
        'device-tlb completed of 100 pasid 1 at 1000/12',
      ],
    ],
    [
      'E111 three granules round up to four',
      IOTLB,
      ADDR,
      { ...page, nb_granules: 3n },
      ['pasid-iotlb page did 1 pasid 1 at 1000/14'],
      ['pasid-iotlb page did 1 pasid 1 at 1000/14', 'device-tlb completed of 100 pasid 1 at 0/14'],
    ],
    [
      '2 MiB granules',
      IOTLB,
      ADDR,
      { ...page, addr: 0x4000_0000n, granule_size: 0x20_0000n, nb_granules: 2n },
      ['pasid-iotlb page did 1 pasid 1 at 40000000/22'],
      [
        'pasid-iotlb page did 1 pasid 1 at 40000000/22',
        'device-tlb completed of 100 pasid 1 at 40000000/22',
      ],
    ],
    [
      'no granules: one page',
      IOTLB,
      ADDR,
      { ...page, nb_granules: 0n },
      ['pasid-iotlb page did 1 pasid 1 at 1000/12'],
      [
        'pasid-iotlb page did 1 pasid 1 at 1000/12',
        'device-tlb completed of 100 pasid 1 at 1000/12',
      ],
    ],
    [
      'beyond the largest mask: the whole PASID',
      IOTLB,
      ADDR,
      { ...page, nb_granules: 1n << 51n },
      [all],
      [all, 'device-tlb completed of 100 pasid 1 at 0/63'],
    ],
    [
      'a product that wraps to nothing: one page',
      IOTLB,
      ADDR,
      { ...page, nb_granules: 1n << 52n },
      ['pasid-iotlb page did 1 pasid 1 at 1000/12'],
      [
        'pasid-iotlb page did 1 pasid 1 at 1000/12',
        'device-tlb completed of 100 pasid 1 at 1000/12',
      ],
    ],
    [
      'device TLB, one page; without ATS nothing',
      DEV,
      ADDR,
      page,
      [],
      ['device-tlb completed of 100 pasid 1 at 1000/12'],
    ],
    [
      'both, one page',
      IOTLB | DEV,
      ADDR,
      page,
      ['pasid-iotlb page did 1 pasid 1 at 1000/12'],
      [
        'pasid-iotlb page did 1 pasid 1 at 1000/12',
        'device-tlb completed of 100 pasid 1 at 1000/12',
        'device-tlb completed of 100 pasid 1 at 1000/12',
      ],
    ],
    ['E107 IOTLB, DOMAIN', IOTLB, DOMAIN, {}, [], []],
    [
      'E108 both, PASID: stops at the device TLB',
      IOTLB | DEV,
      BY_PASID,
      { pasid: 1n },
      [all],
      [all, deviceAll],
    ],
    ['device TLB, PASID', DEV, BY_PASID, { pasid: 1n }, [], []],
    ['PASID cache, PASID', PASID, BY_PASID, { pasid: 1n }, [], []],
    ['E115 nothing', 0, BY_PASID, { pasid: 1n }, [], []],
  ] as const)('%s', (_name, cache, granularity, of, without, withAts) => {
    for (const [ats, expected] of [
      [false, without],
      [true, withAts],
    ] as const) {
      const s = world(ats)
      s.domain.cacheInvalidate(bdfOf(0), invalidateInfo(cache, granularity, of))
      expect(s.b.invalidations()).toEqual(expected)
    }
  })

  it.each([
    ['E112 allocated, not bound', 2n, 'EINVAL'],
    ['E113 of another set', 60n, 'EACCES'],
    ['unknown', 50n, 'ENOENT'],
    ['E160 with bit 32 set', 0x1_0000_0001n, 'EINVAL'],
    ['0', 0n, 'ENOENT'],
  ])('a PASID that is %s is refused without a flush', (_name, pasid, errno) => {
    const s = world(true)
    expect(
      codeOf(() => s.domain.cacheInvalidate(bdfOf(0), invalidateInfo(IOTLB, BY_PASID, { pasid }))),
    ).toBe(errno)
    expect(
      codeOf(() =>
        s.domain.cacheInvalidate(bdfOf(0), invalidateInfo(IOTLB, ADDR, { ...page, pasid })),
      ),
    ).toBe(errno)
    expect(s.b.invalidations()).toEqual([])
  })

  it.each([
    [BY_PASID, 2],
    [ADDR, 2],
    [ADDR, 0],
  ])('E114: granularity %i with flags %i names PASID 0', (granularity, flags) => {
    const s = world(true)
    const info = invalidateInfo(IOTLB, granularity, { ...page, flags })
    expect(codeOf(() => s.domain.cacheInvalidate(bdfOf(0), info))).toBe('ENOENT')
    expect(s.b.invalidations()).toEqual([])
  })

  it('needs a nesting domain that the device is in', () => {
    const s = world(false)
    const info = invalidateInfo(IOTLB, BY_PASID, { pasid: 1n })
    expect(codeOf(() => s.domain.cacheInvalidate(0x4200, info))).toBe('EINVAL')
    expect(codeOf(() => s.b.core.domainAlloc(bdfOf(0)).cacheInvalidate(bdfOf(0), info))).toBe(
      'EINVAL',
    )
  })

  it('E116: a changed guest entry must not be used after the invalidation', () => {
    const s = setup({ devices: [{ ats: true }] })
    const table = new GuestTable(s.b, s.domain, 0x100)
    s.domain.map(0x40, s.b.page(1), 1, 3)
    s.domain.map(0x41, s.b.page(2), 1, 3)
    table.map(0x1000n, 0x40)
    s.bind({ gpgd: BigInt(table.root) })
    expect(s.b.read(0, 0x1000n, s.pasid)).toBe(1)
    table.map(0x1000n, 0x41)
    expect(s.b.read(0, 0x1000n, s.pasid)).toBe(1)
    s.domain.cacheInvalidate(
      bdfOf(0),
      invalidateInfo(IOTLB, ADDR, { ...page, pasid: BigInt(s.pasid) }),
    )
    expect(s.b.read(0, 0x1000n, s.pasid)).toBe(2)
    table.unmap(0x1000n)
    s.domain.cacheInvalidate(bdfOf(0), invalidateInfo(IOTLB, BY_PASID, { pasid: BigInt(s.pasid) }))
    expect(s.b.read(0, 0x1000n, s.pasid)).not.toBe(2)
  })
})
