// E61 to E102: bind and unbind. Those of mediated devices are in mdev.test.ts.
import { describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import type { BenchOptions, BindMembers } from '../../src/testing/index.js'
import { bindData } from '../../src/testing/index.js'
import { vfio_iommu_type1_nesting_op } from '../../src/uapi.js'
import {
  bench,
  bound,
  heard,
  nesting,
  outcomes,
  standIn,
  testDevice,
  withPasid,
} from './support.js'

const bindings = ({ b }: ReturnType<typeof nesting>) => b.holdings().bindings
const SRE = 1
const EAFE = 2

describe('BIND', () => {
  it('E61 of an own id succeeds', () => {
    const s = withPasid()
    expect(() => s.c.bind(s.id)).toSucceed(0)
    expect(bindings(s)).toBe(1)
  })
  it.each([
    ['V7R', 'keeps', 1],
    ['V7', 'tears down', 0],
    ['V8', 'keeps', 1],
  ] as const)('E62 a second time is EBUSY; %s %s the first binding', (profile, _, left) => {
    const s = bound({ profile })
    expect(() => s.c.bind(s.id)).toRefuse('EBUSY')
    expect(bindings(s)).toBe(left)
  })
  it('E63 of an id nobody holds is ENOENT', () => {
    expect(() => nesting().c.bind(77)).toRefuse('ENOENT')
  })
  it.each([
    ['V7R', 'EACCES', 'EACCES'],
    ['V7', 'EACCES', 'EACCES'],
    ['V8', 'EPERM', 'EINVAL'],
  ] as const)(
    "E64, E65 %s: of another process's id %s, of the host's %s",
    (profile, theirs, hosts) => {
      const { b, c } = nesting({ profile })
      const { ioasid } = b.machine
      const host = ioasid.alloc(ioasid.hostSet, 500, 500)
      const other = b.process().nesting(1)
      expect(() => c.bind(other.alloc())).toRefuse(theirs)
      expect(() => c.bind(host)).toRefuse(hosts)
      ioasid.free(ioasid.hostSet, host)
    },
  )
  it.each([
    ['V7R', undefined],
    ['V8', 'EPERM'],
  ] as const)(
    "E44 by a child, of its parent's id through the inherited container: %s %s",
    (profile, errno) => {
      const { p, c, id } = withPasid({ profile })
      const call = () => p.fork().inherit(c).bind(id)
      if (errno) expect(call).toRefuse(errno)
      else expect(call).toSucceed(0)
    },
  )

  // biome-ignore format: table
  const wrong: readonly (readonly [string, (id: number) => BindMembers, VtdChange])[] = [
    ['E66 PASID 0',                        () => ({ hpasid: 0 }), {}],
    ['E67 PASID 0x100000',                 () => ({ hpasid: 0x10_0000 }), {}],
    ['E68 bit 32 above an own id',         id => ({ hpasid: 0x1_0000_0000n + BigInt(id) }), {}],
    ['E69 argsz 55',                       id => ({ hpasid: id, argsz: 55 }), {}],
    ['E70 argsz 56',                       id => ({ hpasid: id, argsz: 56 }), {}],
    ['E70 argsz 71',                       id => ({ hpasid: id, argsz: 71 }), {}],
    ['E72 version 0',                      id => ({ hpasid: id, version: 0 }), {}],
    ['E72 version 2',                      id => ({ hpasid: id, version: 2 }), {}],
    ['E73 format 0',                       id => ({ hpasid: id, format: 0 }), {}],
    ['E73 format 2',                       id => ({ hpasid: id, format: 2 }), {}],
    ['E74 flags bit 1',                    id => ({ hpasid: id, flags: 2n }), {}],
    ['E75 padding',                        id => ({ hpasid: id, padding: [0, 0, 0, 0, 0, 0, 0, 1] }), {}],
    ['E76 WPE',                            id => ({ hpasid: id, vtdFlags: 1 << 6 }), {}],
    ['E77 PCD',                            id => ({ hpasid: id, vtdFlags: 1 << 2 }), {}],
    ['E77 PWT',                            id => ({ hpasid: id, vtdFlags: 1 << 3 }), {}],
    ['E77 EMTE',                           id => ({ hpasid: id, vtdFlags: 1 << 4 }), {}],
    ['E77 CD',                             id => ({ hpasid: id, vtdFlags: 1 << 5 }), {}],
    ['E78 SRE without ECAP.SRS',           id => ({ hpasid: id, vtdFlags: SRE }), { supervisorRequests: false }],
    ['E78 EAFE without ECAP.EAFS',         id => ({ hpasid: id, vtdFlags: EAFE }), { extendedAccessed: false }],
    ['E79 addr_width 39',                  id => ({ hpasid: id, addr_width: 39 }), {}],
    ['E79 addr_width 0',                   id => ({ hpasid: id, addr_width: 0 }), {}],
    ['E79 addr_width 64',                  id => ({ hpasid: id, addr_width: 64 }), {}],
    ['E80 addr_width 57 without CAP 5LP',  id => ({ hpasid: id, addr_width: 57 }), { firstStage5Level: false }],
    ['E81 gpgd 2^40 in a 39-bit domain',   id => ({ hpasid: id, gpgd: 1n << 40n }), { guestAddressWidth: 39 }],
  ]
  it.each(wrong)('%s is EINVAL, and the id can be bound afterwards', (_, members, vtd) => {
    const s = withPasid({ vtd })
    expect(() => s.c.bind(members(s.id))).toRefuse('EINVAL')
    expect(bindings(s)).toBe(0)
    expect(() => s.c.bind(s.id)).toSucceed(0)
  })
  it('E71 inner argsz 200 with anything after the known part succeeds', () => {
    const { c, id } = withPasid()
    const payload = new Uint8Array(200).fill(0xa5)
    payload.set(bindData({ hpasid: id, argsz: 200 }).bytes)
    expect(() => c.op(0, payload)).toSucceed(0)
  })
  it('E82 of a root that is not mapped succeeds; the first request faults', () => {
    const { b, c, id } = withPasid()
    expect(() => c.bind({ hpasid: id, gpgd: 0x7777_7000n })).toSucceed(0)
    expect(b.dmaRead(0x1000n, { pasid: id })).toFaultWith('ssEntryNotPresent', { pasid: id })
  })
  it.each([16, 19])('E83 on a device of %d PASID bits is EINVAL', pasidWidth => {
    const { c, id } = withPasid({ device: testDevice({ pasidWidth }) })
    expect(() => c.bind(id)).toRefuse('EINVAL')
  })
  it.each([
    ['E85 outer argsz 8', 0, 8, undefined],
    ['E86 outer argsz 7', 0, 7, 'EINVAL'],
    ['E87 outer flags 0x10000', 0x1_0000, 80, 'EINVAL'],
    ['E88 operation 3', 3, 80, 'EINVAL'],
    ['E88 operation 0xffff', 0xffff, 80, 'EINVAL'],
  ] as const)('%s: %4$s', (_, flags, argsz, errno) => {
    const { c, id } = withPasid()
    const call = () => c.op(flags, bindData(id), argsz)
    if (errno) expect(call).toRefuse(errno)
    else expect(call).toSucceed(0)
  })
  it.each([
    ['E89 55 readable bytes, argsz 72', 55, 72, 'EFAULT'],
    ['E90 64 readable bytes, argsz 64', 64, 64, 'EINVAL'],
    ['64 readable bytes, argsz 72', 64, 72, 'EFAULT'],
  ] as const)('%s: %4$s', (_, readable, argsz, errno) => {
    const { p, c, id } = withPasid()
    const { bytes } = vfio_iommu_type1_nesting_op({ data: bindData({ hpasid: id, argsz }).bytes })
    expect(() => c.opAt(p.atEndOfPage(bytes.subarray(0, 8 + readable)))).toRefuse(errno)
  })
  it('E91 of a guest PASID that the process uses already is EINVAL', () => {
    const { c, id } = withPasid()
    c.bind({ hpasid: id, gpasid: 101 })
    const other = c.alloc()
    expect(() => c.bind({ hpasid: other, gpasid: 101 })).toRefuse('EINVAL')
    expect(() => c.bind({ hpasid: other, gpasid: 102 })).toSucceed(0)
  })
  it('E92 of the same guest PASID by two processes succeeds, with host ids of their own', () => {
    const { b, c, id } = withPasid()
    const other = b.process().nesting(1)
    const id2 = other.alloc()
    expect(() => c.bind({ hpasid: id, gpasid: 101 })).toSucceed(0)
    expect(() => other.bind({ hpasid: id2, gpasid: 101 })).toSucceed(0)
    expect(id2).not.toBe(id)
  })
  it.each([
    ['no PASIDs', { pasidWidth: 0 }],
    ['16-bit PASIDs', { pasidWidth: 16 }],
  ] as const)(
    'E93 on a group whose second device has %s is EINVAL and undoes the first',
    (_, other) => {
      const s = withPasid({ acs: false, devices: [[testDevice(), testDevice(other)]] })
      const seen = outcomes(s.b, () => expect(() => s.c.bind(s.id)).toRefuse('EINVAL'))
      expect(seen).toEqual(['bind done', 'bind EINVAL', 'unbind done'])
      expect([bindings(s), s.b.machine.ioasid.state(s.id)]).toEqual([0, 'IDLE'])
    },
  )
  it('E158 reads the payload once: all devices get the same, whatever the caller changes meanwhile', () => {
    let change = () => {}
    const wrapDriver: BenchOptions['wrapDriver'] = driver =>
      standIn(driver, domain => {
        const bind = domain.bindGpasid.bind(domain)
        domain.bindGpasid = (bdf, data) => {
          bind(bdf, data)
          change()
        }
      })
    const { b, p, c, id } = withPasid({
      acs: false,
      devices: [[testDevice(), testDevice()]],
      wrapDriver,
    })
    const other = c.alloc()
    const op = vfio_iommu_type1_nesting_op({ data: bindData({ hpasid: id }).bytes })
    const at = p.atEndOfPage(op.bytes)
    change = () => {
      const changed = vfio_iommu_type1_nesting_op({ data: bindData({ hpasid: other }).bytes })
      p.sys.process.memory.copyOut(Number(at), changed.bytes)
    }
    const seen = heard(b, 'vfio.bind', () => expect(() => c.opAt(at)).toSucceed(0))
    expect(seen.map(e => e.pasid)).toEqual([BigInt(id), BigInt(id)])
  })
})

describe('UNBIND', () => {
  it('E94 of an id never bound succeeds', () => {
    const { c, id } = withPasid()
    expect(() => c.unbind(id)).toSucceed(0)
  })
  it('E95 of an id never allocated succeeds; the refusal is on the trace', () => {
    const { b, c } = nesting()
    const seen = outcomes(b, () => expect(() => c.unbind(99)).toSucceed(0))
    expect(seen).toEqual(['unbind ENOENT'])
  })
  it('E96 with inner version 0 succeeds and does nothing', () => {
    const s = bound()
    expect(() => s.c.unbind({ hpasid: s.id, version: 0 })).toSucceed(0)
    expect(bindings(s)).toBe(1)
  })
  it('E97 with inner argsz 56 unbinds: the vendor part is not used', () => {
    const s = bound()
    expect(() => s.c.unbind({ hpasid: s.id, argsz: 56 })).toSucceed(0)
    expect(bindings(s)).toBe(0)
  })
  it.each([
    ['V7R', 'does nothing', 1],
    ['V7', 'unbinds the id in the lower half', 0],
  ] as const)('E159 of an id with bit 32 set succeeds; %s %s', (profile, _, left) => {
    const s = bound({ profile })
    expect(() => s.c.unbind({ hpasid: 0x1_0000_0000n + BigInt(s.id) })).toSucceed(0)
    expect(bindings(s)).toBe(left)
  })
})

describe('what ends a binding, and what does not', () => {
  it('E98 UNSET_CONTAINER unbinds, and frees in the last container', () => {
    const s = bound()
    s.c.unset()
    expect(s.b.holdings()).toMatchObject({ bindings: 0, pasids: 0 })
  })
  it.each([
    ['kept alive by another container of the process', true],
    ['not kept alive', false],
  ] as const)(
    'E99 a group that goes to another container: its ids are unbound, and %s',
    (_, kept) => {
      const { b, p, c, id } = bound()
      if (kept) p.nesting(1)
      c.close()
      const again = p.nesting()
      expect(b.holdings().bindings).toBe(0)
      if (kept) expect(() => again.bind(id)).toSucceed(0)
      else expect(() => again.bind(id)).toRefuse('ENOENT')
    },
  )
  it('E100 a device reset keeps it', () => {
    const b = bench({ device: dmaCopy })
    const c = b.process().nesting()
    c.bind(c.alloc())
    expect(() => c.device().reset()).toSucceed(0)
    expect(b.holdings().bindings).toBe(1)
  })
  it('E167 UNMAP_DMA under the guest table keeps it; the next walk faults', () => {
    const { b, p, c, id } = withPasid()
    const table = p.memory()
    c.map(0x1000n, table.vaddr, 4096)
    c.bind({ hpasid: id, gpgd: 0x1000n })
    expect(b.dmaRead(0n, { pasid: id })).toFaultWith('fsEntryNotPresent')
    expect(() => c.unmap(0x1000n, 4096)).toSucceed(4096n)
    expect(b.dmaRead(0n, { pasid: id })).toFaultWith('ssEntryNotPresent')
    expect(b.holdings().bindings).toBe(1)
    c.map(0x1000n, table.vaddr, 4096)
    expect(b.dmaRead(0n, { pasid: id })).toFaultWith('fsEntryNotPresent')
  })
})

type VtdChange = NonNullable<BenchOptions['vtd']>
