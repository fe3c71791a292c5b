// Isolation groups: topology and ACS as configuration space tells them.
import { describe, expect, it } from 'vitest'
import { IommuGroups } from '../../src/iommu/groups.js'
import { PciConfig } from '../../src/iommu/pci-config.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { ECAM_SIZE } from '../../src/pci/ecam.js'
import { bdfOf, bench } from './driver-bench.js'

/** A function in words. */
interface Shape {
  readonly bdf: number
  /** Express port type; undefined: a conventional function. */
  readonly type?: number
  readonly multiFunction?: boolean
  /** A bridge's bus below. */
  readonly secondary?: number
  /** ACS capability bits; undefined: no ACS. */
  readonly acs?: number
}

const [ENDPOINT, ROOT_PORT, UPSTREAM, DOWNSTREAM, TO_PCI] = [0, 4, 5, 6, 7]
const FULL = 0x1d
const EXPRESS = 0x40
const ACS = 0x100

/** Configuration spaces as plain bytes behind the window, ACS control writable. */
function configOf(shapes: readonly Shape[]) {
  const spaces = new Map<number, DataView>()
  for (const s of shapes) {
    const v = new DataView(new ArrayBuffer(4096))
    v.setUint32(0, 0x0001_1234, true)
    v.setUint8(0x0e, (s.secondary === undefined ? 0 : 1) | (s.multiFunction ? 0x80 : 0))
    if (s.secondary !== undefined) v.setUint8(0x19, s.secondary)
    if (s.type !== undefined) {
      v.setUint16(6, 0x10, true)
      v.setUint8(0x34, EXPRESS)
      v.setUint16(EXPRESS, 0x10, true)
      v.setUint16(EXPRESS + 2, (s.type << 4) | 2, true)
    }
    if (s.acs !== undefined) {
      v.setUint32(ACS, 0x0001_000d, true)
      v.setUint16(ACS + 4, s.acs, true)
    }
    spaces.set(s.bdf, v)
  }
  const memory = new AddressSpace()
  memory.addMmio(
    0xe000_0000,
    ECAM_SIZE,
    {
      read(offset, size) {
        const v = spaces.get(offset >>> 12)
        if (v === undefined) return (1n << BigInt(size * 8)) - 1n
        const at = offset & 0xfff
        return BigInt(
          size === 1 ? v.getUint8(at) : size === 2 ? v.getUint16(at, true) : v.getUint32(at, true),
        )
      },
      write(offset, _size, value) {
        spaces.get(offset >>> 12)?.setUint16(offset & 0xfff, Number(value), true)
      },
    },
    'ECAM',
  )
  return { config: new PciConfig(memory, 0xe000_0000), spaces }
}

const fn = (bus: number, device: number, f = 0) => (bus << 8) | (device << 3) | f
const port = (device: number, secondary: number, acs?: number): Shape => ({
  bdf: fn(0, device),
  type: ROOT_PORT,
  secondary,
  ...(acs === undefined ? {} : { acs }),
})
const endpoint = (bus: number, device = 0, f = 0, more: Partial<Shape> = {}): Shape => ({
  bdf: fn(bus, device, f),
  type: ENDPOINT,
  ...more,
})

describe('groups', () => {
  it.each<[string, readonly Shape[], number[][]]>([
    [
      'ports with ACS keep devices apart',
      [port(1, 1, FULL), port(2, 2, FULL), endpoint(1), endpoint(2)],
      [[fn(0, 1)], [fn(0, 2)], [fn(1, 0)], [fn(2, 0)]],
    ],
    [
      'a port without ACS shares its group with what is below',
      [port(1, 1), port(2, 2, FULL), endpoint(1), endpoint(2)],
      [[fn(0, 1), fn(1, 0)], [fn(0, 2)], [fn(2, 0)]],
    ],
    [
      'a control that the port lacks counts as built in',
      [port(1, 1, 0x01), endpoint(1)],
      [[fn(0, 1)], [fn(1, 0)]],
    ],
    [
      'functions of a device without ACS share a group',
      [
        port(1, 1, FULL),
        endpoint(1, 0, 0, { multiFunction: true }),
        endpoint(1, 0, 1, { multiFunction: true }),
      ],
      [[fn(0, 1)], [fn(1, 0), fn(1, 0, 1)]],
    ],
    [
      'functions that have ACS are apart',
      [
        port(1, 1, FULL),
        endpoint(1, 0, 0, { multiFunction: true, acs: 0x0c }),
        endpoint(1, 0, 1, { multiFunction: true, acs: 0x0c }),
      ],
      [[fn(0, 1)], [fn(1, 0)], [fn(1, 0, 1)]],
    ],
    [
      'a switch that does not isolate joins everything below it',
      [
        port(1, 1, FULL),
        { bdf: fn(1, 0), type: UPSTREAM, secondary: 2 },
        { bdf: fn(2, 0), type: DOWNSTREAM, secondary: 3 },
        { bdf: fn(2, 1), type: DOWNSTREAM, secondary: 4, acs: FULL },
        endpoint(3),
        endpoint(4),
      ],
      [[fn(0, 1)], [fn(1, 0)], [fn(2, 0), fn(3, 0)], [fn(2, 1)], [fn(4, 0)]],
    ],
    [
      'a bridge to conventional PCI joins what is behind it',
      [
        port(1, 1, FULL),
        { bdf: fn(1, 0), type: TO_PCI, secondary: 2 },
        { bdf: fn(2, 0) },
        { bdf: fn(2, 1) },
      ],
      [[fn(0, 1)], [fn(1, 0), fn(2, 0), fn(2, 1)]],
    ],
    [
      'a root port above that does not isolate wins over a switch that does',
      [port(1, 1), { bdf: fn(1, 0), type: DOWNSTREAM, secondary: 2, acs: FULL }, endpoint(2)],
      [[fn(0, 1), fn(1, 0), fn(2, 0)]],
    ],
    ['nothing on the buses', [], []],
  ])('%s', (_name, shapes, members) => {
    const groups = new IommuGroups(configOf(shapes).config)
    expect(groups.all.map(g => g.members)).toEqual(members)
    expect(groups.all.map(g => g.id)).toEqual(members.map((_, i) => i))
    for (const g of groups.all) for (const m of g.members) expect(groups.of(m)).toBe(g)
  })

  it('turns on the controls that isolation needs, and only those that exist', () => {
    const { config, spaces } = configOf([port(1, 1, 0x7f), port(2, 2, 0x04)])
    new IommuGroups(config)
    expect([...spaces.values()].map(v => v.getUint16(ACS + 6, true))).toEqual([FULL, 0x04])
  })

  it('bridges are members but cannot be owned', () => {
    const groups = new IommuGroups(configOf([port(1, 1), endpoint(1)]).config)
    expect(groups.byId(0)).toMatchObject({ members: [fn(0, 1), fn(1, 0)], endpoints: [fn(1, 0)] })
    expect([groups.byId(1), groups.of(0x4200)]).toEqual([undefined, undefined])
  })

  it('bridges that point at each other end the scan', () => {
    const groups = new IommuGroups(
      configOf([port(1, 1, FULL), { bdf: fn(1, 0), type: DOWNSTREAM, secondary: 1 }]).config,
    )
    expect(groups.all.length).toBe(2)
  })

  it('a real machine: the port is group 0, its device group 1', () => {
    const { core } = bench()
    expect(core.groups.of(bdfOf(0))).toMatchObject({ id: 1, endpoints: [bdfOf(0)] })
    expect(core.groups).toBe(core.groups)
  })
})

describe('capability chains', () => {
  it('that loop end', () => {
    const { config, spaces } = configOf([endpoint(0, 1)])
    const v = spaces.get(fn(0, 1))!
    v.setUint8(EXPRESS + 1, EXPRESS)
    v.setUint32(0x100, 0x1000_0001, true)
    expect(config.capability(fn(0, 1), 0x11)).toBe(0)
    expect(config.extended(fn(0, 1), 0x0f)).toBe(0)
  })

  it('of functions that are not there are empty', () => {
    const { config } = configOf([])
    expect([config.capability(8, 0x10), config.extended(8, 0x0f), config.present(8)]).toEqual([
      0,
      0,
      false,
    ])
  })
})
