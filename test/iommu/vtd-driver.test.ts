// The driver half of VT-d against the unit: tables it writes, descriptors it issues, what devices may reach.
import { describe, expect, it } from 'vitest'
import {
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../../src/iommu/vtd/tables.js'
import { type Bench, bdfOf, bench, codeOf } from './driver-bench.js'

const RW = 3

/** Follows root, context and PASID tables in memory by the structures' layouts. */
function entries(b: Bench, bdf: number, pasid = 0) {
  const at = (address: number, size: number) => {
    const bytes = new Uint8Array(size)
    b.memory.read(address, bytes)
    return bytes
  }
  const rootAt = b.unit.rootTable + (bdf >> 8) * SM_ROOT_ENTRY.size
  const root = SM_ROOT_ENTRY.at(at(rootAt, SM_ROOT_ENTRY.size))
  const context = SM_CONTEXT_ENTRY.at(at(root.LCTP + (bdf & 0x7f) * SM_CONTEXT_ENTRY.size, 32))
  const directory = PASID_DIRECTORY_ENTRY.at(at(context.PASIDDIRPTR + (pasid >> 6) * 8, 8))
  const entry = PASID_ENTRY.at(at(directory.SMPTBLPTR + (pasid & 63) * PASID_ENTRY.size, 64))
  return { root, context, directory, entry }
}

describe('bringing the unit up', () => {
  it('turns on queue, root table, interrupt remapping and translation', () => {
    const { unit } = bench()
    const { TES, RTPS, QIES, IRES, CFIS, IRTPS } = unit.regs.GSTS_REG
    expect({ TES, RTPS, QIES, IRES, CFIS, IRTPS }).toEqual({
      TES: true,
      RTPS: true,
      QIES: true,
      IRES: true,
      CFIS: false,
      IRTPS: true,
    })
    expect(unit.regs.FECTL_REG.IM).toBe(false)
    expect(unit.regs.PECTL_REG.IM).toBe(false)
  })

  it('refuses every function that no domain has', () => {
    const b = bench()
    expect(b.read(0, 0x1000n)).not.toBe(0)
    expect(b.unit.lastFault?.name).toBe('smRootEntryNotPresent')
  })

  it('probes once', () => {
    const b = bench()
    const used = b.frames.used
    b.driver.probe()
    expect(b.frames.used).toBe(used)
  })

  it('gives memory and vectors back when it is removed', () => {
    const b = bench()
    b.driver.remove()
    expect([b.frames.used, b.interrupts.used, b.unit.regs.GSTS_REG.TES]).toEqual([0, 0, false])
  })

  it('needs scalable mode', () => {
    expect(() => bench({ vtd: { scalableMode: false } })).toThrow('no scalable mode')
  })

  it('reserves the host its PASIDs', () => {
    const { ioasid } = bench()
    expect([ioasid.capacity, ioasid.available]).toEqual([2 ** 20, 2 ** 20 - 32768])
    expect(bench({ vtd: { pasidBits: 16 } }).ioasid.capacity).toBe(2 ** 16)
  })
})

describe('attach and detach', () => {
  it('writes context, directory and RID entry as a second-stage mapping of the domain', () => {
    const b = bench({ devices: [{ ats: true, pri: true }] })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    const { root, context, directory, entry } = entries(b, bdfOf(0))
    expect([root.LP, root.UP, directory.P, context.P, entry.P]).toEqual([
      true,
      false,
      true,
      true,
      true,
    ])
    expect(context).toMatchObject({ PDTS: 7, RID_PASID: 0, PRE: true, PASIDE: true, DTE: true })
    expect(entry).toMatchObject({ PGTT: 2, AW: 2, DID: 1, PWSNP: true, PGSNP: true, FSPTPTR: 0 })
    expect(entry.SSPTPTR).not.toBe(0)
  })

  it.each([
    ['nothing', { pasidWidth: 0 }, { PASIDE: false, PRE: false, DTE: false, PDTS: 0 }],
    ['PASID of 16 bits', { pasidWidth: 16 }, { PASIDE: true, PRE: false, DTE: false, PDTS: 3 }],
    ['ATS', { ats: true, pasidWidth: 0 }, { PASIDE: false, PRE: false, DTE: true }],
    ['PRI without ATS', { pri: true }, { PASIDE: true, PRE: false, DTE: false }],
    ['PASID without end-end prefixes', { endEndPrefix: false }, { PASIDE: false }],
  ])('a device with %s', (_name, shape, expected) => {
    const b = bench({ devices: [shape] })
    b.core.domainAlloc(bdfOf(0)).attach(bdfOf(0))
    expect(entries(b, bdfOf(0)).context).toMatchObject(expected)
  })

  it('switches PASID, PRI and ATS on in configuration space, off at detach, and on again after a reset', () => {
    const b = bench({ devices: [{ ats: true, pri: true }] })
    const bdf = bdfOf(0)
    const at = [0x1b, 0x13, 0x0f].map(id => b.config.extended(bdf, id))
    const controls = () => [
      b.config.read(bdf, at[0]! + 6, 2),
      b.config.read(bdf, at[1]! + 4, 2),
      b.config.read(bdf, at[1]! + 0xc, 4),
      b.config.read(bdf, at[2]! + 6, 2),
    ]
    const domain = b.core.domainAlloc(bdf)
    domain.attach(bdf)
    expect(controls()).toEqual([7, 1, 32, 0x8000])
    b.fabric.function(bdf)!.reset()
    expect(controls()).toEqual([0, 0, expect.anything(), 0])
    b.driver.restore(bdf)
    expect(controls()).toEqual([7, 1, 32, 0x8000])
    domain.detach(bdf)
    expect(controls()).toEqual([0, 0, 0, 0])
    b.driver.restore(bdf)
    expect(controls()).toEqual([0, 0, 0, 0])
  })

  it('a device has one domain, and must exist', () => {
    const b = bench()
    const one = b.core.domainAlloc(bdfOf(0))
    const two = b.core.domainAlloc(bdfOf(0))
    one.attach(bdfOf(0))
    expect(codeOf(() => two.attach(bdfOf(0)))).toBe('EBUSY')
    expect(codeOf(() => one.attach(bdfOf(0)))).toBe('EBUSY')
    expect(codeOf(() => one.attach(0x4200))).toBe('ENODEV')
    two.detach(bdfOf(0))
    expect(entries(b, bdfOf(0)).context.P).toBe(true)
  })

  it('a domain with devices cannot be freed', () => {
    const b = bench()
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    expect(() => domain.free()).toThrow('attached')
  })

  it('drops every cache at detach, and frames are back after free', () => {
    const b = bench({ devices: [{ ats: true }] })
    const used = b.frames.used
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    domain.map(0, 0, 600, RW)
    b.invalidations()
    domain.detach(bdfOf(0))
    expect(b.invalidations()).toEqual([
      'context-cache device did 0 of 100',
      'pasid-cache pasid did 1 pasid 0',
      'iotlb domain did 1',
      'device-tlb completed of 100 at 0/64',
    ])
    expect(b.read(0, 0n)).not.toBe(0)
    domain.free()
    expect(b.frames.used).toBe(used)
  })

  it('reuses domain ids, and refuses a domain when all are taken', () => {
    const b = bench({ vtd: { domainIdBits: 4 } })
    const domains = Array.from({ length: 15 }, () => b.core.domainAlloc(bdfOf(0)))
    expect(codeOf(() => b.core.domainAlloc(bdfOf(0)))).toBe('ENOSPC')
    domains[4]!.free()
    expect(codeOf(() => b.core.domainAlloc(bdfOf(0)))).toBe('ok')
  })

  it('leaves nothing behind when there is no memory for the tables of an attach', () => {
    const b = bench({ ramBytes: 2 ** 20 })
    const domain = b.core.domainAlloc(bdfOf(0))
    while (b.frames.total - b.frames.used > 33) b.frames.alloc()
    const used = b.frames.used
    expect(codeOf(() => domain.attach(bdfOf(0)))).toBe('ENOMEM')
    expect(b.frames.used).toBe(used)
    expect(b.config.read(bdfOf(0), b.config.extended(bdfOf(0), 0x1b) + 6, 2)).toBe(0)
  })
})

describe('map, unmap and flush', () => {
  function attached(shape = {}, vtd = {}) {
    const b = bench({ devices: [shape], vtd })
    const domain = b.core.domainAlloc(bdfOf(0))
    domain.attach(bdfOf(0))
    b.issued.length = 0
    return { b, domain }
  }

  it('a device reaches what is mapped, with its permissions, until the flush after the unmap', () => {
    const { b, domain } = attached()
    const host = b.page(0x1111_2222)
    domain.map(0x40, host, 1, 1)
    expect(b.read(0, 0x4_0000n)).toBe(0x1111_2222)
    expect(b.write(0, 0x4_0000n, 5)).not.toBe('ok')
    expect(domain.iovaToPhys(0x40)).toBe(host)
    expect(domain.unmap(0x40, 1)).toBe(1)
    domain.flush()
    expect(b.read(0, 0x4_0000n)).not.toBe(0x1111_2222)
    expect(domain.iovaToPhys(0x40)).toBe(-1)
  })

  it('maps need no invalidation', () => {
    const { b, domain } = attached()
    domain.map(0, 16, 600, RW)
    domain.flush()
    expect(b.issued).toEqual([])
  })

  it.each([
    ['one page', 5, 1, 'iotlb page did 1 at 5000/12'],
    ['an aligned block', 8, 8, 'iotlb page did 1 at 8000/15'],
    ['a range across a boundary', 7, 2, 'iotlb page did 1 at 7000/16'],
  ])('flush of %s is one page-selective invalidation', (_name, first, pages, expected) => {
    const { b, domain } = attached()
    domain.map(0, 0, 64, RW)
    domain.unmap(first, pages)
    domain.flush()
    expect(b.invalidations()).toEqual([expected])
  })

  it('one flush covers several unmaps, and a second has nothing to do', () => {
    const { b, domain } = attached()
    domain.map(0, 0, 64, RW)
    domain.unmap(2, 1)
    domain.unmap(40, 2)
    domain.flush()
    domain.flush()
    expect(b.invalidations()).toEqual(['iotlb page did 1 at 2000/18'])
  })

  it('flushes the whole domain for a range beyond the largest mask', () => {
    const { b, domain } = attached()
    domain.map(0, 0, 1, RW)
    domain.map(2 ** 36 - 1, 0, 1, RW)
    domain.unmap(0, 2 ** 36)
    domain.flush()
    expect(b.invalidations()).toEqual(['iotlb domain did 1'])
  })

  it('tells the device TLB after the unit', () => {
    const { b, domain } = attached({ ats: true })
    domain.map(0x10, b.page(7), 4, RW)
    expect(b.read(0, 0x1_0000n)).toBe(7)
    domain.unmap(0x10, 4)
    domain.flush()
    expect(b.invalidations()).toEqual([
      'iotlb page did 1 at 10000/14',
      'device-tlb completed of 100 at 10000/14',
    ])
    expect(b.read(0, 0x1_0000n)).not.toBe(7)
  })

  it('survives a device that does not answer an invalidation', () => {
    const { b, domain } = attached({ ats: true })
    domain.map(0x10, b.page(7), 1, RW)
    b.config.write(bdfOf(0), b.config.extended(bdfOf(0), 0x0f) + 6, 2, 0)
    domain.unmap(0x10, 1)
    domain.flush()
    expect(b.unit.regs.FSTS_REG.ITE).toBe(false)
    domain.map(0x10, b.page(8), 1, RW)
    domain.unmap(0x10, 1)
    domain.flush()
    expect(b.read(0, 0x1_0000n)).not.toBe(8)
  })

  it('the queue goes round', () => {
    const { b, domain } = attached()
    for (let i = 0; i < 700; i++) {
      domain.map(i, i + 1, 1, RW)
      domain.unmap(i, 1)
      domain.flush()
    }
    expect(b.issued.filter(e => e.what === 'iotlb').length).toBe(700)
    expect(b.unit.regs.FSTS_REG.IQE).toBe(false)
  })

  it.each([
    ['no pages', 0, 0, 0, RW, 'EINVAL'],
    ['beyond the aperture', 2 ** 36, 0, 1, RW, 'EINVAL'],
    ['across the end of the aperture', 2 ** 36 - 1, 0, 2, RW, 'EINVAL'],
    ['a negative page', -1, 0, 1, RW, 'EINVAL'],
    ['no access', 1, 0, 1, 0, 'EINVAL'],
    ['a host page that is no address', 1, 2 ** 40, 1, RW, 'EINVAL'],
    ['a mapped page', 0x100, 0, 1, RW, 'EEXIST'],
    ['a range that meets a mapped page', 0xf0, 0, 32, RW, 'EEXIST'],
    ['a page under a large page', 0x205, 0, 1, RW, 'EEXIST'],
    ['a large page over pages', 0, 0, 512, RW, 'EEXIST'],
  ])('map refuses %s and changes nothing', (_name, page, host, pages, prot, errno) => {
    const { b, domain } = attached()
    domain.map(0x100, 9, 1, RW)
    domain.map(0x200, 0x200, 512, RW)
    const used = b.frames.used
    expect(codeOf(() => domain.map(page, host, pages, prot))).toBe(errno)
    domain.flush()
    expect([domain.iovaToPhys(0xf0), domain.iovaToPhys(0x100), domain.iovaToPhys(0x205)]).toEqual([
      -1, 9, 0x205,
    ])
    expect(b.frames.used).toBe(used)
  })

  it('uses large pages where both sides are aligned, and small ones around them', () => {
    const { b, domain } = attached()
    const before = b.frames.used
    domain.map(511, 511, 1 + 2 ** 18 + 512 + 1, RW)
    // 511 by itself, then 2 MiB pages up to the first gigabyte; from there on smaller again.
    for (const page of [511, 512, 2 ** 18 - 1, 2 ** 18, 2 ** 18 + 1024])
      expect(domain.iovaToPhys(page)).toBe(page)
    expect(domain.iovaToPhys(510)).toBe(-1)
    expect(domain.iovaToPhys(2 ** 18 + 1025)).toBe(-1)
    expect(b.frames.used - before).toBeLessThan(8)
    expect(domain.pgsizes).toEqual([2 ** 12, 2 ** 21, 2 ** 30])
  })

  it.each([
    [[], [2 ** 12]],
    [[21], [2 ** 12, 2 ** 21]],
  ] as const)('large pages %j give page sizes %j', (secondStageLargePages, sizes) => {
    const { b, domain } = attached({}, { secondStageLargePages })
    expect(domain.pgsizes).toEqual(sizes)
    domain.map(2 ** 18, 0, 2 ** 10, RW)
    b.memory.writeU32(0x1004, 0xabc)
    expect(b.read(0, BigInt(2 ** 30 + 0x1004))).toBe(0xabc)
    expect(domain.unmap(2 ** 18, 2 ** 10)).toBe(2 ** 10)
  })

  it('splits a large page when a part of it is unmapped', () => {
    const { b, domain } = attached()
    domain.map(0, 0, 512, RW)
    b.memory.writeU32(0x7000, 0x77)
    expect(b.read(0, 0x7000n)).toBe(0x77)
    expect(domain.unmap(3, 2)).toBe(2)
    domain.flush()
    expect([2, 3, 4, 5, 511].map(p => domain.iovaToPhys(p))).toEqual([2, -1, -1, 5, 511])
    expect(b.read(0, 0x7000n)).toBe(0x77)
    expect(b.read(0, 0x3000n)).not.toBe(0)
    expect(domain.unmap(0, 512)).toBe(510)
  })

  it('gives tables back when their whole span is unmapped, after the flush', () => {
    const { b, domain } = attached()
    const used = b.frames.used
    domain.map(0, 1, 512, RW)
    domain.map(2 ** 27, 1, 1, RW)
    expect(b.frames.used).toBe(used + 6)
    expect(domain.unmap(0, 2 ** 36)).toBe(513)
    expect(b.frames.used).toBe(used + 6)
    domain.flush()
    expect(b.frames.used).toBe(used)
    domain.map(3, 4, 1, RW)
    expect(domain.iovaToPhys(3)).toBe(4)
  })

  it('unmaps what is there and counts it', () => {
    const { domain } = attached()
    domain.map(5, 1, 2, RW)
    expect(domain.unmap(0, 6)).toBe(1)
    expect(domain.unmap(0, 100)).toBe(1)
    expect(domain.unmap(0, 100)).toBe(0)
    expect(domain.unmap(2 ** 36, 5)).toBe(0)
    expect(domain.unmap(7, 1)).toBe(0)
  })

  it('says what it is', () => {
    const { domain } = attached()
    expect(domain.apertureEndPage).toBe(2 ** 36 - 1)
    expect(domain.reserved()).toEqual([{ startPage: 0xf_ee00, endPage: 0xf_eeff }])
    expect([domain.coherent, domain.nesting, domain.nestingInfo()]).toEqual([
      true,
      false,
      undefined,
    ])
    expect(attached({}, { snoopControl: false }).domain.coherent).toBe(false)
  })

  it('five levels where the unit is that wide, three where it is that narrow', () => {
    const wide = attached({}, { guestAddressWidth: 57 })
    wide.domain.map(2 ** 44, wide.b.page(3), 1, RW)
    expect(wide.b.read(0, 1n << 56n)).toBe(3)
    expect(entries(wide.b, bdfOf(0)).entry.AW).toBe(3)
    const narrow = attached({}, { guestAddressWidth: 39 })
    expect(narrow.domain.apertureEndPage).toBe(2 ** 27 - 1)
    narrow.domain.map(2 ** 26, narrow.b.page(4), 1, RW)
    expect(narrow.b.read(0, 1n << 38n)).toBe(4)
  })
})

describe('interrupts of functions', () => {
  it('reach their handler only from the function they were made for', () => {
    const b = bench({ devices: [{}, {}] })
    let raised = 0
    const { address, data, free } = b.core.allocateVector(bdfOf(0), () => raised++)
    b.unit.message(bdfOf(0), address, data)
    expect(raised).toBe(1)
    b.unit.message(bdfOf(1), address, data)
    expect([raised, b.unit.lastFault?.name]).toEqual([1, 'sourceIdRefused'])
    free()
    b.unit.message(bdfOf(0), address, data)
    expect([raised, b.unit.lastFault?.name]).toEqual([1, 'irteNotPresent'])
  })

  it('a message that was not remapped is blocked', () => {
    const b = bench()
    let raised = 0
    const { address, data } = b.interrupts.allocate(() => raised++)
    b.unit.message(bdfOf(0), address, data)
    expect([raised, b.unit.lastFault?.name, b.driver.isolatesInterrupts]).toEqual([
      0,
      'compatibilityBlocked',
      true,
    ])
  })

  it('without remapping they are plain vectors', () => {
    const b = bench({ vtd: { interruptRemapping: false } })
    let raised = 0
    const { address, data, free } = b.core.allocateVector(bdfOf(0), () => raised++)
    b.unit.message(bdfOf(1), address, data)
    const used = b.interrupts.used
    free()
    expect([raised, b.driver.isolatesInterrupts, b.interrupts.used]).toEqual([1, false, used - 1])
  })

  it('handles are used again, after the entry cache was told', () => {
    const b = bench()
    const first = b.core.allocateVector(bdfOf(0), () => {})
    b.unit.message(bdfOf(0), first.address, first.data)
    first.free()
    first.free()
    let raised = 0
    const second = b.core.allocateVector(bdfOf(0), () => raised++)
    expect(second.address).toBe(first.address)
    b.unit.message(bdfOf(0), second.address, second.data)
    expect(raised).toBe(1)
  })
})
