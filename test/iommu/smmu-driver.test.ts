// The driver half of SMMUv3 against the unit: tables it writes, commands it issues, what devices may reach.
import { describe, expect, it } from 'vitest'
import { CD } from '../../src/iommu/smmu/cd.js'
import { L1STD, STE } from '../../src/iommu/smmu/ste.js'
import type { IommuFault } from '../../src/iommu/uapi.js'
import { bdfOf, codeOf, type SmmuBench, smmuBench } from './smmu-bench.js'

const RW = 3

/** The STE of a stream as it is in memory, by the structures' layouts. */
function entry(b: SmmuBench, sid: number) {
  const { STRTAB_BASE, STRTAB_BASE_CFG } = b.unit.regs
  const { FMT, SPLIT } = STRTAB_BASE_CFG
  const bytes = (at: number, size: number) => {
    const into = new Uint8Array(size)
    b.memory.read(at, into)
    return into
  }
  if (FMT === 0) return STE.at(bytes(STRTAB_BASE.ADDR + sid * 64, 64))
  const l1 = L1STD.at(bytes(STRTAB_BASE.ADDR + (sid >> SPLIT) * 8, 8))
  if (l1.Span === 0) return undefined
  return STE.at(bytes(l1.L2Ptr + (sid % 2 ** SPLIT) * 64, 64))
}

describe('bringing the unit up', () => {
  it('turns on queues, their interrupts, the check of translated traffic, and translation', () => {
    const { unit } = smmuBench()
    expect(unit.regs.CR0ACK).toMatchObject({
      SMMUEN: true,
      CMDQEN: true,
      EVENTQEN: true,
      PRIQEN: true,
      ATSCHK: true,
    })
    expect(unit.regs.IRQ_CTRLACK).toMatchObject({
      EVENTQ_IRQEN: true,
      PRIQ_IRQEN: true,
      GERROR_IRQEN: true,
    })
    expect(unit.regs.CR2).toMatchObject({ PTM: true, RECINVSID: true })
    expect(unit.regs.GERROR.$value).toBe(unit.regs.GERRORN.$value)
  })

  it('refuses every function that no domain has', () => {
    const b = smmuBench()
    expect(b.read(0, 0x1000n)).not.toBe(0)
    expect(b.unit.lastFault?.name).toBe('C_BAD_STREAMID')
  })

  it('probes once', () => {
    const b = smmuBench()
    const used = b.frames.used
    b.driver.probe()
    expect(b.frames.used).toBe(used)
  })

  it.each([
    ['everything', {}],
    ['linear stream tables', { twoLevelStreamTables: false, streamIdBits: 12 }],
    ['neither ATS nor PRI', { ats: false, pri: false }],
  ])('gives memory and vectors back when it is removed: %s', (_, smmu) => {
    const b = smmuBench({ smmu })
    b.driver.remove()
    expect([b.frames.used, b.interrupts.used]).toEqual([b.empty.frames, b.empty.vectors])
    expect(b.unit.regs.CR0ACK.$value).toBe(0n)
  })

  it('needs 4 KB pages', () => {
    expect(() => smmuBench({ smmu: { granules: [16] } })).toThrow('4 KB pages')
  })

  it('is not removed while a device is attached', () => {
    const b = smmuBench()
    b.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    expect(() => b.driver.remove()).toThrow('attached')
  })
})

describe('attach and detach', () => {
  it('writes an STE of stage 2 with the domain’s VMID, or of stage 1 where the unit has no stage 2', () => {
    const two = smmuBench({ devices: [{ ats: true }] })
    two.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    expect(entry(two, bdfOf(0))).toMatchObject({
      V: true,
      Config: 6,
      S2VMID: 1,
      S2T0SZ: 16,
      S2SL0: 2,
      S2AA64: true,
      S2R: true,
      S2S: false,
      EATS: 1,
    })
    const one = smmuBench({ smmu: { stage2: false } })
    one.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    const ste = entry(one, bdfOf(0))!
    expect(ste).toMatchObject({ V: true, Config: 5, S1CDMax: 0, S1Fmt: 0, S1STALLD: true, EATS: 0 })
    const cd = CD.create()
    one.memory.read(ste.S1ContextPtr, cd.bytes)
    expect(cd).toMatchObject({ V: true, AA64: true, ASID: 1, EPD1: true, R: true, A: true })
  })

  it.each([
    [32, 3, 1],
    [40, 3, 1],
    [42, 3, 1],
    [44, 4, 2],
    [48, 4, 2],
  ] as const)('reaches the last page of a %i-bit unit', (outputAddressBits, levels, S2SL0) => {
    const b = smmuBench({ smmu: { outputAddressBits } })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    expect(entry(b, bdfOf(0))).toMatchObject({ S2T0SZ: 64 - outputAddressBits, S2SL0 })
    expect(domain.apertureEndPage).toBe(2 ** (outputAddressBits - 12) - 1)
    const last = domain.apertureEndPage
    const pages = [0, 2 ** 18 - 1, last].map((at, i) => [at, b.page(0x100 + i)] as const)
    for (const [at, page] of pages) domain.map(at, page, 1, RW)
    const read = pages.map(([at]) => b.read(0, BigInt(at) << 12n))
    expect([levels, ...read]).toEqual([levels, 0x100, 0x101, 0x102])
    expect(codeOf(() => domain.map(last + 1, pages[0]![1], 1, RW))).toBe('EINVAL')
  })

  it('switches PASID, PRI and ATS on in configuration space, off at detach, and on again after a reset', () => {
    const b = smmuBench({ devices: [{ ats: true, pri: true }] })
    const bdf = bdfOf(0)
    const at = [0x1b, 0x13, 0x0f].map(id => b.config.extended(bdf, id))
    const controls = () => [
      b.config.read(bdf, at[0]! + 6, 2),
      b.config.read(bdf, at[1]! + 4, 2),
      b.config.read(bdf, at[2]! + 6, 2),
    ]
    const domain = b.core.domainAlloc(bdf)
    domain.attach(bdf)
    expect(controls()).toEqual([7, 1, 0x8000])
    b.fabric.function(bdf)!.reset()
    expect(controls()).toEqual([0, 0, 0])
    b.driver.restore(bdf)
    expect(controls()).toEqual([7, 1, 0x8000])
    domain.detach(bdf)
    expect(controls()).toEqual([0, 0, 0])
  })

  it('a device has one domain, and must exist', () => {
    const b = smmuBench()
    const one = b.core.domainAlloc(bdfOf(0))
    const two = b.core.domainAlloc(bdfOf(0))
    one.attach(bdfOf(0))
    expect(codeOf(() => two.attach(bdfOf(0)))).toBe('EBUSY')
    expect(codeOf(() => one.attach(0x4200))).toBe('ENODEV')
    two.detach(bdfOf(0))
    expect(entry(b, bdfOf(0))).toMatchObject({ V: true })
    expect(() => one.free()).toThrow('attached')
  })

  it.each([{}, { stage2: false }, { twoLevelStreamTables: false, streamIdBits: 12 }])(
    'detaching and freeing leaves nothing: %o',
    smmu => {
      const b = smmuBench({ devices: [{ ats: true, pri: true }, {}], smmu })
      const before = b.frames.used
      const domain = b.core.domainAlloc(bdfOf(0))
      const hosts = [b.page(1), b.page(2)]
      domain.attach(bdfOf(0))
      domain.attach(bdfOf(1))
      domain.map(5, hosts[0]!, 1, RW)
      domain.map(0x4_0000, hosts[1]!, 1, RW)
      expect(b.read(0, 0x5000n)).toBe(1)
      domain.detach(bdfOf(0))
      expect(b.read(0, 0x5000n)).not.toBe(1)
      expect(b.read(1, 0x5000n)).toBe(1)
      domain.detach(bdfOf(1))
      domain.free()
      for (const h of hosts) b.frames.free(h * 4096)
      expect(b.frames.used).toBe(before)
    },
  )

  it('an id that comes again finds nothing of its last owner', () => {
    const b = smmuBench()
    const first = b.core.domainAlloc(bdfOf(0))
    first.attach(bdfOf(0))
    first.map(1, b.page(7), 1, RW)
    expect(b.read(0, 0x1000n)).toBe(7)
    first.detach(bdfOf(0))
    first.free()
    const second = b.core.domainAlloc(bdfOf(0))
    second.attach(bdfOf(0))
    expect(entry(b, bdfOf(0))!.S2VMID).toBe(1)
    expect(b.read(0, 0x1000n)).toBe('refused')
  })
})

describe('map, unmap, flush', () => {
  it.each([
    ['stage 2', {}],
    ['stage 1', { stage2: false }],
  ])(
    'permissions hold, except that stage 1 has no pages that are only written: %s',
    (name, smmu) => {
      const b = smmuBench({ smmu })
      const domain = b.core.domainAlloc(bdfOf(0))
      domain.attach(bdfOf(0))
      for (const prot of [1, 2, 3]) domain.map(prot, b.page(prot), 1, prot)
      const readable = [1, 2, 3].map(p => b.read(0, BigInt(p) << 12n) === p)
      const writable = [1, 2, 3].map(p => b.write(0, BigInt(p) << 12n, 9) === 'ok')
      expect(readable).toEqual([true, name === 'stage 1', true])
      expect(writable).toEqual([false, true, true])
    },
  )

  it('maps blocks where they fit, and splits them to unmap a page', () => {
    const b = smmuBench()
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    const used = b.frames.used
    domain.map(0x4_0000, 0x200, 0x200, RW)
    expect(b.frames.used - used).toBe(1)
    const walked: number[] = []
    b.trace.listen('smmu.translate', e => walked.push(e.pageBits))
    const at = (page: number) => BigInt(0x4_0000 + page) << 12n
    b.memory.writeU32(0x20_1000, 0xabcd)
    expect(b.read(0, at(1))).toBe(0xabcd)
    expect(walked).toEqual([21])
    expect(domain.unmap(0x4_0007, 1)).toBe(1)
    domain.flush()
    expect(b.read(0, at(1))).toBe(0xabcd)
    expect(b.read(0, at(7))).toBe('refused')
    expect([domain.iovaToPhys(0x4_0006), domain.iovaToPhys(0x4_0007)]).toEqual([0x206, -1])
    expect(domain.unmap(0x4_0000, 0x200)).toBe(0x1ff)
    domain.flush()
    expect(b.frames.used - used).toBe(1)
  })

  it.each([
    ['one page', {}, 1, ['TLBI_S2_IPA']],
    ['a range', {}, 100, ['TLBI_S2_IPA']],
    ['a few pages without ranges', { rangeInvalidation: false }, 3, Array(3).fill('TLBI_S2_IPA')],
    ['many pages without ranges', { rangeInvalidation: false }, 100, ['TLBI_S12_VMALL']],
    ['stage 1', { stage2: false }, 1, ['TLBI_NH_VA']],
  ])('a flush costs what it drops: %s', (_, smmu, pages, commands) => {
    const b = smmuBench({ smmu })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.map(0x100, 0x300, pages, RW)
    b.commands()
    domain.flush()
    expect(b.commands()).toEqual([])
    domain.unmap(0x100, pages)
    expect(b.commands()).toEqual([])
    domain.flush()
    domain.flush()
    expect(b.commands()).toEqual(commands)
  })

  it.each([1, 31, 32, 33, 1000, 4097, 70_000])(
    'after unmapping %i pages none of them is reached, and its neighbours are',
    pages => {
      const b = smmuBench({ devices: [{ ats: true }] })
      const domain = b.core.domainAlloc(bdfOf(0))
      domain.attach(bdfOf(0))
      const first = 0x8_0001
      const host = b.page(0x77)
      const probes = [first - 1, first, first + (pages >> 1), first + pages - 1, first + pages]
      for (const p of new Set(probes)) domain.map(p, host, 1, RW)
      for (const p of probes) expect(b.read(0, BigInt(p) << 12n), `${p}`).toBe(0x77)
      domain.unmap(first, pages)
      domain.flush()
      const reached = probes.map(p => b.read(0, BigInt(p) << 12n) === 0x77)
      expect(reached).toEqual([true, false, false, false, true])
    },
  )

  it('a device that does not answer an invalidation does not stop the driver', () => {
    const b = smmuBench({ devices: [{ ats: true }] })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.map(1, b.page(1), 1, RW)
    expect(b.read(0, 0x1000n)).toBe(1)
    // ATS goes off behind the driver's back.
    b.config.write(bdfOf(0), b.config.extended(bdfOf(0), 0x0f) + 6, 2, 0)
    domain.unmap(1, 1)
    domain.flush()
    expect(b.read(0, 0x1000n)).toBe('refused')
    domain.map(1, b.page(2), 1, RW)
    expect(b.read(0, 0x1000n)).toBe(2)
  })

  it.each([{ msi: false }, { commandQueueBits: 2 }, { commandQueueBits: 2, msi: false }])(
    'works with %o',
    smmu => {
      const b = smmuBench({ devices: [{ ats: true }], smmu: { ...smmu, rangeInvalidation: false } })
      const domain = b.core.domainAlloc(bdfOf(0))
      domain.attach(bdfOf(0))
      for (let round = 0; round < 20; round++) {
        domain.map(0x10, b.page(round), 1, RW)
        domain.map(0x20, b.page(round), 1, RW)
        expect(b.read(0, 0x1_0000n)).toBe(round)
        domain.unmap(0x10, 0x20)
        domain.flush()
        expect(b.read(0, 0x1_0000n)).toBe('not-present')
      }
    },
  )
})

describe('faults', () => {
  it.each([
    ['nothing mapped', {}, 0x9000n, undefined, 5, 2],
    ['a page that cannot be written', {}, 0x1000n, undefined, 6, 2],
    ['a PASID where there is no stage 1', {}, 0x1000n, 5, 3, 0],
    ['stage 1, nothing mapped', { stage2: false }, 0x9000n, undefined, 5, 2],
  ])('a refused write is told in neutral words: %s', (_, smmu, address, pasid, reason, perm) => {
    const b = smmuBench({ smmu })
    const seen: IommuFault[] = []
    b.core.onFault(bdfOf(0), f => seen.push(f) > 0)
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.map(1, b.page(0), 1, 1)
    expect(b.write(0, address, 1, pasid)).not.toBe('ok')
    expect(seen).toHaveLength(0)
    b.clock.settle()
    expect(seen).toHaveLength(1)
    const { event } = seen[0]!.event
    expect({ type: seen[0]!.type, reason: event.reason, perm: event.perm }).toEqual({
      type: 1,
      reason,
      perm,
    })
    expect(event.flags).toBe(pasid === undefined ? 2 : 1)
    expect(event.pasid).toBe(pasid ?? 0)
    if (pasid === undefined) expect(event.addr).toBe(address)
  })

  it('takes every event of a queue that overflowed, and goes on', () => {
    const b = smmuBench({ smmu: { eventQueueBits: 2 } })
    let seen = 0
    b.core.onFault(bdfOf(0), () => ++seen > 0)
    b.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    for (let i = 0; i < 9; i++) b.read(0, 0x5000n)
    b.clock.settle()
    expect(seen).toBe(4)
    b.read(0, 0x5000n)
    b.clock.settle()
    expect(seen).toBe(5)
  })
})

describe('interrupts of the unit', () => {
  it.each([true, false])('bring faults and page requests to the handler: by message %s', msi => {
    const b = smmuBench({ devices: [{}, { ats: true, pri: true }], smmu: { msi } })
    let faults = 0
    for (const n of [0, 1]) b.core.onFault(bdfOf(n), () => ++faults > 0)
    b.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    b.read(0, 0x5000n)
    b.clock.settle()
    expect(faults).toBe(1)
    b.core.domainAlloc(bdfOf(1)).attach(bdfOf(1))
    const answers: number[] = []
    b.ports[1]!.dma.pageRequest(0x5000n as never, {}, {}, code => answers.push(code))
    b.clock.settle()
    expect(answers).toEqual([1])
  })

  it('a queue that cannot be written is a global error, which is acknowledged', () => {
    const b = smmuBench()
    b.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    const { EVENTQ_BASE, GERROR, GERRORN } = b.unit.regs
    const place = EVENTQ_BASE.ADDR
    EVENTQ_BASE.ADDR = 0xf000_0000
    b.read(0, 0x5000n)
    b.clock.settle()
    expect([GERROR.EVENTQ_ABT_ERR, GERRORN.EVENTQ_ABT_ERR]).toEqual([true, true])
    EVENTQ_BASE.ADDR = place
    let faults = 0
    b.core.onFault(bdfOf(0), () => ++faults > 0)
    b.read(0, 0x5000n)
    b.clock.settle()
    expect(faults).toBe(1)
  })
})

describe('interrupts of devices', () => {
  it('arrive through the domain, from their owner only', () => {
    const b = smmuBench({ devices: [{}, {}] })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.attach(bdfOf(1))
    let arrived = 0
    const vector = b.core.allocateVector(bdfOf(0), () => arrived++)
    expect(b.write(0, BigInt(vector.address), vector.data)).toBe('ok')
    expect(arrived).toBe(1)
    b.write(1, BigInt(vector.address), vector.data)
    expect([arrived, b.interrupts.spurious]).toEqual([1, 1])
    vector.free()
    b.write(0, BigInt(vector.address), vector.data)
    expect([arrived, b.interrupts.spurious]).toEqual([1, 2])
  })

  it('do not arrive from a function that no domain has', () => {
    const b = smmuBench()
    let arrived = 0
    const vector = b.core.allocateVector(bdfOf(0), () => arrived++)
    b.write(0, BigInt(vector.address), vector.data)
    expect(arrived).toBe(0)
    expect(b.unit.lastFault?.name).toBe('C_BAD_STREAMID')
    vector.free()
  })

  it('their addresses are reserved, and mapped already', () => {
    const b = smmuBench()
    const domain = b.core.domainAlloc(bdfOf(0))
    expect(domain.reserved()).toEqual([{ startPage: 0xfee00, endPage: 0xfeeff }])
    expect(codeOf(() => domain.map(0xfee10, 0x300, 1, RW))).toBe('EEXIST')
  })
})

describe('when memory runs out', () => {
  /** Takes every frame but `left`; answers what gives them back. */
  const exhaust = (b: SmmuBench, left: number) => {
    const taken: number[] = []
    try {
      for (;;) taken.push(b.frames.alloc())
    } catch {
      for (let i = 0; i < left; i++) b.frames.free(taken.pop()!)
    }
    return () => {
      for (const f of taken) b.frames.free(f)
    }
  }

  it.each([{}, { stage2: false }])('a domain that cannot be made leaves nothing: %o', smmu => {
    const b = smmuBench({ smmu })
    const before = b.frames.used
    for (let left = 0; left < 12; left++) {
      const restore = exhaust(b, left)
      const used = b.frames.used
      let domain: ReturnType<typeof b.core.domainAlloc> | undefined
      expect(['ok', 'ENOMEM']).toContain(codeOf(() => (domain = b.core.domainAlloc(bdfOf(0)))))
      if (domain === undefined) expect(b.frames.used, `${left} frames`).toBe(used)
      domain?.free()
      restore()
      expect(b.frames.used, `${left} frames`).toBe(before)
    }
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.map(1, b.page(5), 1, RW)
    expect(b.read(0, 0x1000n)).toBe(5)
  })

  it('a device that cannot be attached stays out, with its services off', () => {
    const b = smmuBench({ devices: [{ ats: true }] })
    const domain = b.core.domainAlloc(bdfOf(0))
    const restore = exhaust(b, 3)
    expect(codeOf(() => domain.attach(bdfOf(0)))).toBe('ENOMEM')
    expect(b.config.read(bdfOf(0), b.config.extended(bdfOf(0), 0x0f) + 6, 2)).toBe(0)
    restore()
    domain.attach(bdfOf(0))
    domain.map(1, b.page(5), 1, RW)
    expect(b.read(0, 0x1000n)).toBe(5)
  })

  it('ids run out with ENOSPC, and come back', () => {
    const b = smmuBench({ smmu: { vmid16: false } })
    const domains = Array.from({ length: 255 }, () => b.core.domainAlloc(bdfOf(0)))
    expect(codeOf(() => b.core.domainAlloc(bdfOf(0)))).toBe('ENOSPC')
    domains[7]!.free()
    expect(codeOf(() => b.core.domainAlloc(bdfOf(0)))).toBe('ok')
  })
})

describe('units that differ', () => {
  it.each([
    ['stall only', { stallModel: 2 as const }],
    ['terminate only', { stallModel: 1 as const }],
    ['no substreams', { substreamIdBits: 0 }],
    ['8-bit ids', { asid16: false, vmid16: false }],
    ['no EL2', { hyp: false }],
    ['no ATS', { ats: false, pri: false }],
    ['one bus of streams', { streamIdBits: 9 }],
    ['48-bit inputs', { virtualAddressBits: 48 as const }],
  ])('serve a domain: %s', (_, smmu) => {
    const b = smmuBench({ devices: [{ ats: true, pri: true }], smmu })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.map(1, b.page(5), 1, RW)
    expect(b.read(0, 0x1000n)).toBe(5)
    domain.unmap(1, 1)
    domain.flush()
    expect(b.read(0, 0x1000n)).not.toBe(5)
    domain.detach(bdfOf(0))
    domain.free()
  })

  it('a function beyond the streams of the unit is none of its', () => {
    const b = smmuBench({ devices: [{}, {}], smmu: { streamIdBits: 9 } })
    expect(codeOf(() => b.core.domainAlloc(bdfOf(1)).attach(bdfOf(1)))).toBe('ENODEV')
  })
})
