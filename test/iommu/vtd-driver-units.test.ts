// Two units in one system: one PASID bound on devices of both, and nesting only where they agree.
import { describe, expect, it } from 'vitest'
import { IommuCore } from '../../src/iommu/core.js'
import type { VtdConfig } from '../../src/iommu/vtd/config.js'
import { VtdDriver } from '../../src/iommu/vtd/driver.js'
import { VTD_MMIO_SIZE } from '../../src/iommu/vtd/registers.js'
import { VtdUnit } from '../../src/iommu/vtd/unit.js'
import { bdfOf, bench, bindData, codeOf } from './driver-bench.js'

const SECOND = 0xfeda_0000

function twoUnits(config: Partial<VtdConfig> = {}) {
  const b = bench({ devices: [{}, {}] })
  const { memory, frames, interrupts, clock, trace, ioasid, fabric } = b
  const { downstream } = fabric
  const unit = new VtdUnit({ memory, config, downstream, interrupts, clock, trace })
  memory.addMmio(SECOND, VTD_MMIO_SIZE, unit, 'VT-d 1')
  const options = { memory, frames, registerBase: SECOND, interrupts, clock, trace, ioasid }
  const driver = new VtdDriver(options)
  const core = new IommuCore({ config: b.config, clock })
  core.add(b.driver, bdf => bdf === bdfOf(0))
  core.add(driver)
  return { b, core, unit, driver }
}

describe('one PASID on devices of two units', () => {
  function bound() {
    const t = twoUnits()
    const set = t.b.newSet()
    const pasid = t.b.ioasid.alloc(set, 1, 100)
    const log: string[] = []
    t.b.ioasid.subscribe(
      { priority: 'cpu', notify: (event, id) => log.push(`${event} ${id}`) },
      set,
    )
    const domains = [0, 1].map(n => {
      const domain = t.core.domainAlloc(bdfOf(n), { nesting: true })
      domain.setIoasidSet(set)
      domain.attach(bdfOf(n))
      domain.bindGpasid(bdfOf(n), bindData({ hpasid: BigInt(pasid), flags: 1n, gpasid: 7n }))
      return domain
    })
    return { ...t, set, pasid, log, domains }
  }

  it('is one user of the id, announced once', () => {
    const { b, core, driver, pasid, log, domains } = bound()
    expect([b.ioasid.references(pasid), core.bindingCount, driver.bindingCount]).toEqual([2, 2, 1])
    expect(log).toEqual([`3 ${pasid}`])
    domains[0]!.unbindGpasid(bdfOf(0), BigInt(pasid))
    expect([b.ioasid.references(pasid), log.length]).toEqual([2, 1])
    domains[1]!.unbindGpasid(bdfOf(1), BigInt(pasid))
    expect([b.ioasid.references(pasid), log]).toEqual([1, [`3 ${pasid}`, `4 ${pasid}`]])
  })

  it('is torn down on both when it is freed, each driver its own device', () => {
    const { b, core, set, pasid } = bound()
    b.ioasid.free(set, pasid)
    b.clock.step()
    expect([core.bindingCount, b.ioasid.state(pasid)]).toEqual([1, 'FREE_PENDING'])
    b.clock.settle()
    expect([core.bindingCount, b.ioasid.state(pasid)]).toEqual([0, 'FREE'])
  })

  it('a device of one unit cannot join a domain of the other', () => {
    const { b, set, domains } = bound()
    const data = bindData({ hpasid: BigInt(b.ioasid.alloc(set, 1, 100)) })
    expect(codeOf(() => domains[0]!.bindGpasid(bdfOf(1), data))).toBe('EINVAL')
    domains[1]!.detach(bdfOf(1))
    expect(codeOf(() => domains[0]!.attach(bdfOf(1)))).toBe('ENODEV')
    expect(codeOf(() => domains[1]!.attach(bdfOf(1)))).toBe('ok')
  })
})

describe('R17', () => {
  it.each<[string, Partial<VtdConfig>, string]>([
    ['nothing', {}, 'ok'],
    ['page requests (E13)', { pageRequests: false }, 'ENODEV'],
    ['5-level first stages', { firstStage5Level: true }, 'ENODEV'],
    ['nesting itself', { nesting: false }, 'ENODEV'],
    ['caching mode, which is outside the masks (E14)', { cachingMode: true }, 'ok'],
    ['fault records, which are outside the masks', { faultRecords: 1 }, 'ok'],
  ])('units that differ in %s', (_name, config, errno) => {
    const { core } = twoUnits(config)
    for (const n of [0, 1])
      expect(codeOf(() => core.domainAlloc(bdfOf(n), { nesting: true }))).toBe(errno)
  })
})
