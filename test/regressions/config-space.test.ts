// E136 to E139: the PASID capability in the configuration space that a user sees.
import { describe, expect, it } from 'vitest'
import type { BenchOptions, Device } from '../../src/testing/index.js'
import { VFIO_TYPE1v2_IOMMU } from '../../src/uapi.js'
import { bench, testDevice } from './support.js'

const ATS = 0x0f
const SRIOV = 0x10
const PRI = 0x13
const PASID = 0x1b

const open = (options: BenchOptions, function_ = 0) => {
  const b = bench(options)
  const c = b.process().container(VFIO_TYPE1v2_IOMMU, b.functions[function_]!.group)
  return { b, device: c.device(function_) }
}

/** The extended capability chain: ids and offsets. */
function chain(device: Device): [number, number][] {
  const found: [number, number][] = []
  for (let at = 0x100; at !== 0; ) {
    const header = device.config(at, 4)
    if ((header & 0xffff) !== 0) found.push([header & 0xffff, at])
    at = header >>> 20
  }
  return found
}
const ids = (device: Device) => chain(device).map(([id]) => id)

describe('the PASID capability of a PF', () => {
  const device = testDevice({ ats: true, pri: true })
  it.each([
    ['V7R', [ATS, PASID, PRI]],
    ['V7', [ATS, PASID, PRI]],
    ['V8', [ATS, PASID, PRI]],
    ['L59', [ATS, PRI]],
    ['L512', [ATS, PRI]],
    ['L72', [ATS, PRI]],
    ['N13', [ATS, PRI]],
  ] as const)('E136 between two others: the chain of %s is %j', (profile, expected) => {
    expect(ids(open({ profile, device }).device)).toEqual(expected)
  })
  it.each([
    ['V7R', PASID, 1],
    ['L59', 0, 0],
    ['L512', 0, 0],
    ['L72', 0, 0],
    ['N13', 0, 0],
  ] as const)(
    'E137 first at 0x100: %s reads id %d, version %d, next kept',
    (profile, id, version) => {
      const { b, device } = open({ profile, device: testDevice({ vfs: 1 }) })
      const header = device.config(0x100, 4)
      const real = b.machine.function('0000:01:00.0').config.read(0x100, 4)
      expect([header & 0xffff, (header >>> 16) & 15]).toEqual([id, version])
      expect(header >>> 20).toBe(real >>> 20)
      expect(ids(device)).toEqual(id ? [PASID, SRIOV] : [SRIOV])
    },
  )
  it.each(['V7R', 'V7'] as const)(
    'E138 %s takes a write of its control and changes nothing',
    profile => {
      const { device } = open({ profile, device: testDevice() })
      const [[, at]] = chain(device) as [[number, number]]
      const before = device.config(at + 6, 2)
      expect(device.writeConfig(at + 6, Uint8Array.of(~before & 0xff, 0))).toBe(2)
      expect(device.config(at + 6, 2)).toBe(before)
    },
  )
})

describe('a VF', () => {
  const vfs = { device: testDevice({ ats: true, vfs: 2 }), vfs: 2 }
  it.each(['V7R', 'V7', 'V8', 'L59', 'L512', 'L72', 'N13'] as const)(
    'E139 has no PASID capability to show in %s; its ids are virtual',
    profile => {
      const { b, device } = open({ ...vfs, profile }, 1)
      expect(b.functions[1]!.name).toBe('0000:01:00.1')
      expect(ids(device)).not.toContain(PASID)
      expect(device.config(0, 4)).toBe(0x7e58_1234)
      expect(b.machine.function('0000:01:00.1').config.read(0, 4)).toBe(0xffff_ffff)
    },
  )
  it('has a group of its own, and a domain: requests of PF and VFs are kept apart', () => {
    const b = bench(vfs)
    expect(new Set(b.functions.map(f => f.group)).size).toBe(b.functions.length)
    const p = b.process()
    for (const i of [0, 1, 2]) {
      const c = p.container(VFIO_TYPE1v2_IOMMU, b.functions[i]!.group)
      const { vaddr, bytes } = p.memory()
      bytes.set(new TextEncoder().encode(`function ${i}`))
      c.map(0x1000n, vaddr, 4096)
    }
    for (const i of [0, 1, 2])
      expect(b.dmaRead(0x1000n, { device: i })).toEqual({ text: `function ${i}` })
  })
  it('has the PASIDs of its PF: BIND works, and stays when the PF leaves its own container (R31)', () => {
    const b = bench(vfs)
    const p = b.process()
    const pf = p.nesting(0)
    const vf = p.nesting(1)
    const table = p.memory()
    vf.map(0x1000n, table.vaddr, 4096)
    const id = vf.alloc()
    expect(() => vf.bind({ hpasid: id, gpgd: 0x1000n })).toSucceed(0)
    const { pasid } = b.machine.function('0000:01:00.0')
    pf.close()
    expect(pasid!.enabled).toBe(true)
    expect(b.dmaRead(0x1000n, { pasid: id, device: 1 })).toFaultWith('fsEntryNotPresent', {
      pasid: id,
    })
    vf.close()
    expect(pasid!.enabled).toBe(false)
  })
  it('goes when VF Enable is cleared', () => {
    const b = bench(vfs)
    const pf = b.machine.function('0000:01:00.0')
    const at = pf.capabilityOffset(SRIOV, true)!
    pf.config.write(at + 8, 2, 0)
    expect(() => b.machine.function('0000:01:00.1')).toThrow(RangeError)
    pf.config.write(at + 0x10, 2, 99)
    pf.config.write(at + 8, 2, 1)
    expect(b.machine.fabric.functions().filter(f => f.bdf >> 8 === 1)).toHaveLength(3)
  })
})
