import { describe, expect, it } from 'vitest'
import { VTD_DEFAULTS } from '../../../src/iommu/vtd/config.js'
import type { TranslationEvent } from '../../../src/iommu/vtd/trace.js'
import { BDF, Bench, descriptor, FULL, GCMD, GSTS, R2, REG, W2 } from './bench.js'

describe('VT-d capabilities', () => {
  it('the default unit, field by field (VT-d 11.4.2, 11.4.3)', () => {
    const b = new Bench()
    const cap = b.r64(REG.CAP)
    const field = (value: bigint, hi: number, lo: number) =>
      Number((value >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n))
    expect({
      ND: field(cap, 2, 0),
      CM: field(cap, 7, 7),
      SAGAW: field(cap, 12, 8),
      MGAW: field(cap, 21, 16),
      FRO: field(cap, 33, 24) * 16,
      SSLPS: field(cap, 37, 34),
      PSI: field(cap, 39, 39),
      NFR: field(cap, 47, 40),
      MAMV: field(cap, 53, 48),
      FS1GP: field(cap, 56, 56),
      FS5LP: field(cap, 60, 60),
      ESRTPS: field(cap, 63, 63),
    }).toEqual({
      ND: 6,
      CM: 0,
      SAGAW: 6,
      MGAW: 47,
      FRO: 0x220,
      SSLPS: 3,
      PSI: 1,
      NFR: 7,
      MAMV: 35,
      FS1GP: 1,
      FS5LP: 0,
      ESRTPS: 1,
    })
    const ecap = b.r64(REG.ECAP)
    const bit = (n: number) => field(ecap, n, n)
    // C QI DT IR EIM PT SC NEST PRS ERS SRS NWFS EAFS PASID PDS SMTS VCS SSTS FSTS SMPWCS RPS
    expect(
      [0, 1, 2, 3, 4, 6, 7, 26, 29, 30, 31, 33, 34, 40, 42, 43, 44, 46, 47, 48, 49].map(bit),
    ).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1])
    expect(field(ecap, 39, 35), 'PSS').toBe(19)
    expect(field(ecap, 17, 8) * 16, 'IRO').toBe(REG.IVA)
  })

  it('a unit without scalable mode shows none of what needs it', () => {
    const b = new Bench({ config: { scalableMode: false } })
    const ecap = b.r64(REG.ECAP)
    for (const bit of [26, 29, 30, 31, 34, 40, 42, 43, 44, 46, 47, 48, 49])
      expect((ecap >> BigInt(bit)) & 1n, `bit ${bit}`).toBe(0n)
  })

  it.each([
    ['hostAddressWidth', 53],
    ['hostAddressWidth', 46.5],
    ['guestAddressWidth', 40],
    ['domainIdBits', 5],
    ['secondStageLargePages', [39]],
    ['faultRecords', 0],
    ['faultRecords', 129],
    ['pasidBits', 21],
  ])('refuses a configuration with %s = %j', (key, value) => {
    expect(() => new Bench({ config: { [key]: value } })).toThrow('VT-d: ')
  })

  it('capabilities are read-only', () => {
    const b = new Bench()
    const before = b.r64(REG.ECAP)
    b.w64(REG.ECAP, ~before & 0xffff_ffff_ffff_ffffn)
    expect(b.r64(REG.ECAP)).toBe(before)
  })

  it('5-level first stage where configured', () => {
    const b = new Bench({ config: { firstStage5Level: true } })
    const { directory } = b.scalable()
    const fs = b.alloc()
    const va = 0x00ff_1234_5678_9000n
    b.map(fs, va, 0x50_0000n | FULL, { levels: 5 })
    b.firstStage(directory, 5, fs, 1, 4n)
    b.enable()
    expect(b.dma(va | 0xabcn, { pasid: 5 })).toBe(0x50_0abc)
    expect(b.dma(0x0100_0000_0000_0000n, { pasid: 5 })).toBe('notCanonical')
  })

  it('5-level second stage where configured', () => {
    const b = new Bench({ config: { guestAddressWidth: 57 } })
    const { directory } = b.scalable()
    const ss = b.alloc()
    const va = 0x01ff_1234_5678_9000n
    b.map2(ss, va, 0x50_0000n | R2 | W2, { levels: 5 })
    b.pasidEntry(directory, 5, [BigInt(ss) | 1n | (3n << 2n) | (2n << 6n), 1n, 0n])
    b.enable()
    expect(b.dma(va, { pasid: 5 })).toBe(0x50_0000)
  })
})

describe('VT-d global commands', () => {
  it('levels follow, commands do not stay', () => {
    const b = new Bench()
    b.w32(REG.GCMD, GCMD.TE | GCMD.QIE | GCMD.IRE | GCMD.CFI | GCMD.SRTP | GCMD.SIRTP | GCMD.WBF)
    expect(b.r32(REG.GSTS)).toBe(
      (GSTS.TES | GSTS.RTPS | GSTS.QIES | GSTS.IRES | (1 << 24) | GSTS.CFIS) >>> 0,
    )
    expect(b.r32(REG.GCMD), 'write-only').toBe(0)
    b.w32(REG.GCMD, 0)
    expect(b.r32(REG.GSTS)).toBe((GSTS.RTPS | (1 << 24)) >>> 0)
  })

  it('the root table is latched, not followed', () => {
    const b = new Bench()
    const table = b.alloc()
    b.map2(table, 0x1000n, 0x50_0000n | R2)
    b.legacy(table)
    b.enable()
    b.w64(REG.RTADDR, 0x7000_0000n)
    expect(b.dma(0x1000n)).toBe(0x50_0000)
    b.command(GCMD.SRTP)
    expect(b.dma(0x1000n)).toBe('rootEntryUnreadable')
  })

  it('interrupt remapping and the queue stay off where the unit has none', () => {
    const b = new Bench({ config: { interruptRemapping: false, queuedInvalidation: false } })
    b.w32(REG.GCMD, GCMD.QIE | GCMD.IRE | GCMD.SIRTP | GCMD.CFI)
    expect(b.r32(REG.GSTS)).toBe(0)
  })

  it('reset forgets everything but memory', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    b.dma(0x1000n)
    b.enable()
    b.dma(0x1000n, { pasid: 5 })
    b.unit.reset()
    expect(b.r32(REG.GSTS)).toBe(0)
    expect(b.r32(REG.FSTS)).toBe(0)
    expect(b.unit.lastFault).toBeUndefined()
    expect(b.dma(0x1000n)).toBe(0x1000)
    expect(b.unit.rootTable).toBe(0)
    expect(b.load(directory)).toBe(0n)
    expect(b.r32(REG.FECTL)).toBe(0x8000_0000)
  })

  it('tells a VMM where the root table is', () => {
    const b = new Bench()
    expect(b.unit.rootTable).toBe(0)
    const { root } = b.scalable()
    expect(b.unit.rootTable).toBe(root)
    b.legacy(b.alloc())
    expect(b.unit.rootTable, 'legacy mode has none').toBe(0)
  })
})

describe('VT-d fault recording', () => {
  const faulting = (faultRecords = 4) => {
    const b = new Bench({ config: { faultRecords } })
    b.scalable()
    b.w32(REG.FEADDR, 0xfee0_4000)
    b.w32(REG.FEDATA, 0x44)
    b.w32(REG.FECTL, 0)
    b.enable()
    return { b, fault: (page: number) => b.dma(BigInt(page) * 4096n, { pasid: 5 }) }
  }
  const clear = (b: Bench, index: number) => b.w32(REG.FRCD + index * 16 + 12, 0x8000_0000)

  it('fills records in turn, then sets PFO and loses faults', () => {
    const { b, fault } = faulting()
    for (let i = 1; i <= 6; i++) fault(i)
    expect([0, 1, 2, 3].map(i => Number(b.record(i).address >> 12n))).toEqual([1, 2, 3, 4])
    expect(b.r32(REG.FSTS)).toBe(3)
    expect(b.messages, 'one event').toEqual([
      { requester: 0xffff, address: 0xfee0_4000, data: 0x44 },
    ])
    expect(b.faults.map(f => f.record)).toEqual([
      ...Array(4).fill('recorded'),
      'overflow',
      'overflow',
    ])
    // Clearing records is not enough: PFO keeps new faults out.
    for (let i = 0; i < 4; i++) clear(b, i)
    expect(b.r32(REG.FSTS)).toBe(1)
    fault(7)
    expect(b.record(0).f).toBe(false)
    b.w32(REG.FSTS, 1)
    expect(b.r32(REG.FSTS)).toBe(0)
    fault(8)
    expect(b.record(0)).toMatchObject({ f: true, address: 8n << 12n })
    expect(b.messages).toHaveLength(2)
  })

  it('FRI is the first pending record, also after wrapping', () => {
    const { b, fault } = faulting()
    for (let i = 0; i < 3; i++) {
      fault(1)
      expect((b.r32(REG.FSTS) >> 8) & 0xff).toBe(i)
      clear(b, i)
    }
    fault(2)
    fault(3)
    expect((b.r32(REG.FSTS) >> 8) & 0xff).toBe(3)
    expect(b.record(0).address).toBe(3n << 12n)
  })

  it('holds a masked event, and drops it when software served the faults first', () => {
    const { b, fault } = faulting()
    b.w32(REG.FECTL, 0x8000_0000)
    fault(1)
    expect(b.r32(REG.FECTL)).toBe(0xc000_0000)
    clear(b, 0)
    expect(b.r32(REG.FECTL)).toBe(0x8000_0000)
    fault(2)
    b.w32(REG.FECTL, 0)
    expect(b.messages).toHaveLength(1)
  })

  it('the next record is the first one again after translation was off', () => {
    const { b, fault } = faulting()
    fault(1)
    clear(b, 0)
    b.off(GCMD.TE)
    b.enable()
    fault(2)
    expect(b.record(0).f).toBe(true)
  })

  it('only F is writable in a record', () => {
    const { b, fault } = faulting()
    fault(1)
    const before = b.record(0)
    b.w64(REG.FRCD, 0n)
    b.w64(REG.FRCD + 8, 0n)
    expect(b.record(0)).toEqual(before)
  })

  it('carries virtual time', () => {
    const { b, fault } = faulting()
    b.clock.advance(1500)
    fault(1)
    expect(b.unit.lastFault!.time).toBe(1500)
  })
})

describe('VT-d virtual commands', () => {
  const virtual = (edition: '3.0' | '3.3') => {
    const commands: unknown[] = []
    const b = new Bench({
      config: { edition, virtualCommand: true, cachingMode: true },
      hooks: {
        virtualCommand: (command, operand) => {
          commands.push([command, operand])
          if (command === 1)
            return operand === 0
              ? { status: 'success', result: 0x12345 }
              : { status: 'no-pasid', result: 0 }
          return command === 2
            ? { status: operand === 7 ? 'success' : 'invalid-pasid', result: 0 }
            : { status: 'undefined', result: 0 }
        },
      },
    })
    return { b, commands }
  }

  it('3.3: registers, operand and status where Linux from 5.15 looks', () => {
    const { b, commands } = virtual('3.3')
    expect(b.r64(0xe30) & 1n).toBe(1n)
    expect((b.r64(REG.ECAP) >> 44n) & 1n).toBe(1n)
    b.w64(0xe00, 1n)
    expect(b.r64(0xe10)).toBe(0x12345n << 16n)
    b.w64(0xe00, 2n | (7n << 16n))
    expect(b.r64(0xe10)).toBe(0n)
    b.w64(0xe00, 2n | (8n << 16n))
    expect(b.r64(0xe10)).toBe(16n << 1n)
    b.w64(0xe00, 9n)
    expect(b.r64(0xe10)).toBe(1n << 1n)
    expect(commands).toEqual([
      [1, 0],
      [2, 7],
      [2, 8],
      [9, 0],
    ])
  })

  it('3.0: the older layout', () => {
    const { b, commands } = virtual('3.0')
    expect(b.r64(0xe00) & 1n).toBe(1n)
    b.w64(0xe10, 1n)
    expect(b.r64(0xe20)).toBe(0x12345n << 8n)
    b.w64(0xe10, 2n | (8n << 8n))
    expect(b.r64(0xe20)).toBe(2n << 1n)
    expect(commands).toEqual([
      [1, 0],
      [2, 8],
    ])
  })

  it('a write of the high half alone executes nothing', () => {
    const { b, commands } = virtual('3.3')
    b.w32(0xe04, 1)
    expect(commands).toEqual([])
  })

  it('no such registers in a physical unit', () => {
    const b = new Bench()
    b.w64(0xe00, 1n)
    expect([0xe00, 0xe10, 0xe20, 0xe30].map(at => b.r64(at))).toEqual([0n, 0n, 0n, 0n])
  })

  it('without a hook every command is undefined', () => {
    const b = new Bench({ config: { virtualCommand: true } })
    b.w64(0xe00, 1n)
    expect(b.r64(0xe10)).toBe(2n)
  })
})

describe('VT-d trace', () => {
  it('shows both stages of a nested translation, and that the next one is cached', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    const fs = b.alloc()
    const ss = b.alloc()
    for (let gpa = 0; gpa < 0x40_0000; gpa += 0x20_0000)
      b.map2(ss, BigInt(gpa), BigInt(gpa) | 0x83n, { leafLevel: 2 })
    b.map2(ss, 0x1234_5000n, 0x50_0000n | 3n)
    b.map(fs, 0x4000_5000n, 0x1234_5000n | FULL)
    b.nested(directory, 5, fs, ss, 3)
    b.enable()
    const seen: TranslationEvent[] = []
    const stop = b.trace.listen('vtd.translate', e => seen.push(e))
    b.dma(0x4000_5678n, { pasid: 5, write: true })
    b.dma(0x4000_5678n, { pasid: 5, write: true })
    stop()
    b.dma(0x4000_5678n, { pasid: 5 })
    expect(seen).toHaveLength(2)
    expect(seen[0]).toMatchObject({
      requester: BDF,
      pasid: 5,
      address: 0x4000_5678n,
      access: 'write',
      did: 3,
      mode: 'nested',
      output: 0x50_0678n,
      cached: false,
      stages: [
        { stage: 'first', input: 0x4000_5678n, output: 0x1234_5678n, pageBits: 12, level: 1 },
        { stage: 'second', input: 0x1234_5678n, output: 0x50_0678n, pageBits: 12, level: 1 },
      ],
    })
    expect(seen[1]).toMatchObject({ cached: true, stages: [], output: 0x50_0678n })
  })

  it('a listener changes nothing: the same answers and the same flags in the tables', () => {
    const run = (listening: boolean) => {
      const b = new Bench()
      const { directory } = b.scalable()
      const fs = b.alloc()
      const leaf = b.map(fs, 0x4000_5000n, 0x50_0000n | FULL)
      b.firstStage(directory, 5, fs)
      b.enable()
      if (listening) b.trace.listen('*', () => {})
      const answers = [
        b.dma(0x4000_5000n, { pasid: 5 }),
        b.load(leaf),
        b.dma(0x4000_5000n, { pasid: 5, write: true }),
        b.load(leaf),
        b.dma(0x4000_6000n, { pasid: 5 }),
      ]
      return answers
    }
    expect(run(true)).toEqual(run(false))
  })

  it('names registers, faults and invalidations', () => {
    const b = new Bench()
    const seen: string[] = []
    b.trace.listen('vtd.register', e => seen.push(`${e.write ? 'w' : 'r'} ${e.name}`))
    b.trace.listen('vtd.fault', e => seen.push(e.name))
    b.trace.listen('vtd.invalidate', e => seen.push(`${e.what} ${e.scope}`))
    b.startQueue()
    b.submit(descriptor.iotlbDomain(3), descriptor.contextGlobal(), [0n, 0n])
    b.scalable()
    b.enable()
    b.dma(0n)
    b.r64(REG.FRCD + 8)
    expect(seen).toEqual(
      expect.arrayContaining([
        'w IQT_REG',
        'w GCMD_REG',
        'iotlb domain',
        'context-cache global',
        'queue-error IQEI 3',
        'pasidDirectoryNotPresent',
        'r FRCD0_HI',
      ]),
    )
  })
})

describe('VT-d translation', () => {
  it('keeps PASIDs, requesters and no-PASID requests apart at one address', () => {
    const b = new Bench()
    const { directory, context } = b.scalable()
    // A second function with a directory of its own.
    const other = b.alloc()
    b.store(context + 32, BigInt(other) | 0x1dn)
    const target = (n: number) => BigInt(0x50_0000 + n * 4096)
    const space = (dir: number, pasid: number, did: number, n: number) => {
      const fs = b.alloc()
      b.map(fs, 0x1000n, target(n) | FULL)
      b.firstStage(dir, pasid, fs, did)
    }
    space(directory, 0, 1, 0)
    space(directory, 1, 1, 1)
    space(directory, 2, 1, 2)
    space(other, 1, 2, 3)
    b.enable()
    for (let round = 0; round < 3; round++) {
      expect(b.dma(0x1000n)).toBe(0x50_0000)
      expect(b.dma(0x1000n, { pasid: 1 })).toBe(0x50_1000)
      expect(b.dma(0x1000n, { pasid: 2 })).toBe(0x50_2000)
      expect(b.dma(0x1000n, { pasid: 1, requester: BDF + 1 })).toBe(0x50_3000)
    }
  })

  it('an unprivileged answer is not reused for a privileged request, nor for execution', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    const fs = b.alloc()
    b.map(fs, 0x1000n, 0x50_0000n | FULL)
    b.firstStage(directory, 5, fs)
    b.enable()
    expect(b.dma(0x1000n, { pasid: 5 })).toBe(0x50_0000)
    expect(b.dma(0x1000n, { pasid: 5, privileged: true })).toBe('supervisorDisabled')
    expect(b.dma(0x1000n, { pasid: 5, execute: true })).toBe('executeRequestDisabled')
  })

  it('WPE decides whether a supervisor may write what is read-only', () => {
    for (const [flags, answer] of [
      [0x01n, 0x50_0000],
      [0x11n, 'smWriteNotPermitted'],
    ] as const) {
      const b = new Bench()
      const { directory } = b.scalable()
      const fs = b.alloc()
      b.map(fs, 0x1000n, 0x50_0005n)
      b.firstStage(directory, 5, fs, 1, flags)
      b.enable()
      expect(b.dma(0x1000n, { pasid: 5, privileged: true, write: true })).toBe(answer)
    }
  })

  it('EAFE keeps the extended accessed flag', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    const fs = b.alloc()
    const leaf = b.map(fs, 0x1000n, 0x50_0000n | FULL)
    b.firstStage(directory, 5, fs, 1, 0x80n)
    b.enable()
    b.dma(0x1000n, { pasid: 5 })
    expect(b.load(leaf) & 0x460n).toBe(0x420n)
  })

  it('SSADE keeps second-stage flags', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    const ss = b.alloc()
    const leaf = b.map2(ss, 0x1000n, 0x50_0000n | R2 | W2)
    const at = b.secondStage(directory, 5, ss)
    b.store(at, b.load(at) | 0x200n)
    b.enable()
    b.dma(0x1000n, { pasid: 5 })
    expect(b.load(leaf) & 0x300n).toBe(0x100n)
    b.dma(0x1000n, { pasid: 5, write: true })
    expect(b.load(leaf) & 0x300n).toBe(0x300n)
  })

  it('a write after a cached read still sets the dirty flag', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    const fs = b.alloc()
    const leaf = b.map(fs, 0x1000n, 0x50_0000n | FULL)
    b.firstStage(directory, 5, fs)
    b.enable()
    for (let i = 0; i < 3; i++) b.dma(0x1000n, { pasid: 5 })
    expect(b.load(leaf) & 0x40n).toBe(0n)
    b.dma(0x1000n, { pasid: 5, write: true })
    expect(b.load(leaf) & 0x40n).toBe(0x40n)
  })

  it('a pass-through answer covers up to the interrupt range and not into it', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    b.pasidEntry(directory, 5, [0x101n, 1n, 0n])
    b.enable()
    expect(b.dma(0xfed0_0123n, { pasid: 5 })).toBe(0xfed0_0123)
    expect(b.answer.pageBits).toBe(20)
    expect(b.dma(0xfee0_0000n, { pasid: 5 })).toBe('smOutputIsInterruptRange')
  })

  it('a huge page over the interrupt range is usable around it', () => {
    const b = new Bench()
    const { directory } = b.scalable()
    const ss = b.alloc()
    b.map2(ss, 0xc000_0000n, 0xc000_0083n, { leafLevel: 3 })
    b.secondStage(directory, 5, ss)
    b.enable()
    expect(b.dma(0xfedf_f000n, { pasid: 5 })).toBe(0xfedf_f000)
    expect(b.answer.pageBits, 'no wider than a page').toBe(12)
    expect(b.dma(0xfee0_0000n, { pasid: 5 })).toBe('smOutputIsInterruptRange')
    expect(b.dma(0xfef0_0000n, { pasid: 5 })).toBe(0xfef0_0000)
  })

  it('defaults are what the documentation says', () => {
    expect(VTD_DEFAULTS).toMatchObject({
      edition: '3.3',
      pasidBits: 20,
      nesting: true,
      faultRecords: 8,
    })
  })
})
