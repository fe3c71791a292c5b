// One suite for every IOMMU with its driver: what devices may reach, whatever the architecture. A subject is created
// anew for each case. An exception names a case, says why and where, and must fail: one that passes is out of date.
import { describe, expect, it } from 'vitest'
import {
  IOMMU_FAULT_PAGE_REQ,
  IOMMU_FAULT_REASON_PERMISSION,
  IOMMU_FAULT_REASON_PTE_FETCH,
  IOMMU_PAGE_RESP_FAILURE,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_SUCCESS,
  type IommuFault,
} from '../../src/iommu/uapi.js'
import { COMPLETION, MemoryRequest, Translation } from '../../src/pci/request.js'
import { codeOf } from '../iommu/driver-bench.js'
import { bdfOf, type Subject, type SubjectOptions } from './subject.js'

/** Why a subject does otherwise, and where that is written. */
export interface Exception {
  readonly reason: string
  readonly section: string
}

/** A subject and what it does otherwise. */
export interface ConformanceOptions {
  readonly create: (options?: SubjectOptions) => Subject
  /** Without guests: cases about them are left out. */
  readonly nests?: boolean
  /** By the name of the case. */
  readonly except?: Readonly<Record<string, Exception>>
}

type Case = readonly [name: string, run: (s: Subject) => void, options?: SubjectOptions]

const READ = 1
const WRITE = 2
const RW = 3
const GVA = 0x40_0000n
const ATS = {
  devices: [
    { ats: true, pri: true },
    { ats: true, pri: true },
  ],
}
const at = (page: number) => BigInt(page) << 12n
const reached = (got: number | string) => typeof got === 'number' || got === 'ok'

/** A domain with device 0 on it. */
function hosted(s: Subject, device = 0) {
  const domain = s.core.domainAlloc(bdfOf(device))
  domain.attach(bdfOf(device))
  return domain
}

const domains: readonly Case[] = [
  [
    'refuses a function that no domain has',
    s => {
      hosted(s, 1).map(1, s.page(1), 1, RW)
      expect(reached(s.read(0, at(1)))).toBe(false)
      expect(reached(s.write(0, at(1), 1))).toBe(false)
    },
  ],
  [
    'maps a page, and none beside it',
    s => {
      const host = s.page(0x77)
      hosted(s).map(0x100, host, 1, RW)
      expect(s.read(0, at(0x100))).toBe(0x77)
      expect([0xff, 0x101, 0x300, 0].map(p => reached(s.read(0, at(p))))).toEqual([
        false,
        false,
        false,
        false,
      ])
      expect(s.write(0, at(0x100), 0x78)).toBe('ok')
      expect(s.word(host)).toBe(0x78)
    },
  ],
  [
    'keeps offsets, and joins pages that are apart',
    s => {
      const domain = hosted(s)
      const hosts = [s.page(1), s.page(2), s.page(3)]
      domain.map(0x10, hosts[2]!, 1, RW)
      domain.map(0x11, hosts[0]!, 1, RW)
      const { memory } = s.machine
      memory.writeU32(hosts[2]! * 4096 + 0xffc, 0x1111)
      memory.writeU32(hosts[0]! * 4096, 0x2222)
      const into = new Uint8Array(8)
      expect(s.ports[0]!.dma.read((at(0x11) - 4n) as never, into).ok).toBe(true)
      expect([...new Uint32Array(into.buffer)]).toEqual([0x1111, 0x2222])
    },
  ],
  [
    'keeps two domains apart at the same address',
    s => {
      hosted(s, 0).map(1, s.page(10), 1, RW)
      hosted(s, 1).map(1, s.page(11), 1, RW)
      expect([s.read(0, at(1)), s.read(1, at(1))]).toEqual([10, 11])
    },
  ],
  [
    'gives one domain to two functions',
    s => {
      const domain = hosted(s)
      domain.map(1, s.page(10), 1, RW)
      domain.attach(bdfOf(1))
      expect([s.read(0, at(1)), s.read(1, at(1))]).toEqual([10, 10])
      domain.detach(bdfOf(0))
      expect([reached(s.read(0, at(1))), s.read(1, at(1))]).toEqual([false, 10])
    },
  ],
  [
    'a page that can only be read is not written',
    s => {
      const host = s.page(5)
      hosted(s).map(1, host, 1, READ)
      expect([s.read(0, at(1)), reached(s.write(0, at(1), 6)), s.word(host)]).toEqual([5, false, 5])
    },
  ],
  [
    'a page that can only be written is not read',
    s => {
      const host = s.page(5)
      hosted(s).map(1, host, 1, WRITE)
      expect([reached(s.read(0, at(1))), s.write(0, at(1), 6), s.word(host)]).toEqual([
        false,
        'ok',
        6,
      ])
    },
  ],
  [
    'a large mapping reaches its ends, and nothing beyond',
    s => {
      const domain = hosted(s)
      domain.map(0x1_0000, 0x200, 0x201, RW)
      const { memory } = s.machine
      memory.writeU32(0x20_0000, 0xa)
      memory.writeU32(0x3f_f000, 0xb)
      memory.writeU32(0x40_0000, 0xc)
      expect([0, 0x1ff, 0x200].map(p => s.read(0, at(0x1_0000 + p)))).toEqual([0xa, 0xb, 0xc])
      expect([-1, 0x201].map(p => reached(s.read(0, at(0x1_0000 + p))))).toEqual([false, false])
    },
  ],
  [
    'a page taken out of a large mapping leaves the others',
    s => {
      const domain = hosted(s)
      domain.map(0x1_0000, 0x200, 0x200, RW)
      const { memory } = s.machine
      memory.writeU32(0x20_5000, 0xa)
      memory.writeU32(0x20_7000, 0xb)
      expect(s.read(0, at(0x1_0006))).toBe(0)
      expect(domain.unmap(0x1_0006, 1)).toBe(1)
      domain.flush()
      expect([s.read(0, at(0x1_0005)), s.read(0, at(0x1_0007))]).toEqual([0xa, 0xb])
      expect(reached(s.read(0, at(0x1_0006)))).toBe(false)
      expect([0x1_0005, 0x1_0006].map(p => domain.iovaToPhys(p))).toEqual([0x205, -1])
    },
  ],
  [
    'the last page of the aperture works, the one behind it is refused',
    s => {
      const domain = hosted(s)
      const last = domain.apertureEndPage
      domain.map(last, s.page(9), 1, RW)
      expect(s.read(0, at(last))).toBe(9)
      expect(codeOf(() => domain.map(last + 1, 1, 1, RW))).toBe('EINVAL')
      expect(reached(s.read(0, at(last + 1)))).toBe(false)
    },
  ],
  [
    'refuses what cannot be mapped, and maps nothing of it',
    s => {
      const domain = hosted(s)
      const host = s.page(4)
      domain.map(0x105, host, 1, RW)
      expect(codeOf(() => domain.map(0x105, host, 1, RW))).toBe('EEXIST')
      expect(codeOf(() => domain.map(0x100, 0x300, 8, RW))).toBe('EEXIST')
      expect(codeOf(() => domain.map(0x200, host, 1, 0))).toBe('EINVAL')
      expect(domain.unmap(0x100, 5)).toBe(0)
      expect(s.read(0, at(0x105))).toBe(4)
    },
  ],
  [
    'reserved pages are the messages’',
    s => {
      const [range] = hosted(s).reserved()
      expect(range).toEqual({ startPage: 0xf_ee00, endPage: 0xf_eeff })
    },
  ],
  [
    'a page mapped where another was is the new one',
    s => {
      const domain = hosted(s)
      for (const value of [1, 2, 3]) {
        domain.map(7, s.page(value), 1, RW)
        expect(s.read(0, at(7))).toBe(value)
        domain.unmap(7, 1)
        domain.flush()
      }
    },
    ATS,
  ],
  ...[1, 31, 33, 511, 4099].map(
    (pages): Case => [
      `of ${pages} pages unmapped none is reached, and their neighbours are`,
      s => {
        const domain = hosted(s)
        const first = 0x2_0001
        const probes = [-1, 0, pages >> 1, pages - 1, pages].map(p => p + first)
        for (const p of new Set(probes)) domain.map(p, s.page(p), 1, RW)
        for (const p of probes) expect(s.read(0, at(p))).toBe(p)
        domain.unmap(first, pages)
        domain.flush()
        const still = probes.map(p => reached(s.read(0, at(p))))
        expect(still).toEqual([true, false, false, false, true])
      },
      ATS,
    ],
  ),
  [
    'a domain that ends leaves nothing to the next, whatever id it has',
    s => {
      const first = hosted(s)
      first.map(1, s.page(1), 1, RW)
      expect(s.read(0, at(1))).toBe(1)
      first.detach(bdfOf(0))
      first.free()
      hosted(s).map(2, s.page(2), 1, RW)
      expect([reached(s.read(0, at(1))), s.read(0, at(2))]).toEqual([false, 2])
    },
    ATS,
  ],
  [
    'a life leaves nothing behind',
    s => {
      const before = s.held()
      for (let round = 0; round < 3; round++) {
        const domain = s.core.domainAlloc(bdfOf(0))
        const vector = s.core.allocateVector(bdfOf(0), () => {})
        domain.attach(bdfOf(0))
        domain.attach(bdfOf(1))
        domain.map(1, 0x300, 700, RW)
        domain.map(0x800_0000, 0x300, 1, RW)
        s.read(0, at(1))
        domain.unmap(200, 3)
        domain.detach(bdfOf(0))
        domain.detach(bdfOf(1))
        domain.free()
        vector.free()
      }
      s.machine.settle()
      expect(s.held()).toEqual(before)
    },
    ATS,
  ],
  [
    'a function belongs to one domain, and must exist',
    s => {
      const one = hosted(s)
      const two = s.core.domainAlloc(bdfOf(0))
      expect(codeOf(() => two.attach(bdfOf(0)))).toBe('EBUSY')
      expect(codeOf(() => one.attach(0x4200))).toBe('ENODEV')
      expect(() => one.free()).toThrow('attached')
    },
  ],
  [
    'random maps, unmaps and accesses agree with a plain list (seed 7)',
    s => {
      const domain = hosted(s)
      const random = generator(7)
      const hosts = Array.from({ length: 16 }, (_, i) => s.page(0x1000 + i))
      const plain = new Map<number, { value: number; prot: number }>()
      for (let step = 0; step < 1500; step++) {
        const page = 0x100 + random(48) * (random(3) === 0 ? 512 : 1)
        const what = random(4)
        if (what === 0 && !plain.has(page)) {
          const n = random(16)
          const prot = random(2) === 0 ? READ : RW
          domain.map(page, hosts[n]!, 1, prot)
          plain.set(page, { value: 0x1000 + n, prot })
        } else if (what === 1) {
          const pages = 1 + random(5)
          let gone = 0
          for (let p = page; p < page + pages; p++) gone += Number(plain.delete(p))
          expect(domain.unmap(page, pages)).toBe(gone)
          domain.flush()
        } else {
          const expected = plain.get(page)
          const got = s.read(random(2), at(page))
          const name = `step ${step}, page ${page.toString(16)}`
          if (expected === undefined) expect(reached(got), name).toBe(false)
          else if (got !== expected.value) expect(s.read(0, at(page)), name).toBe(expected.value)
          if (expected !== undefined)
            expect(reached(s.write(0, at(page), expected.value)), name).toBe(expected.prot === RW)
        }
        if (step === 0) domain.attach(bdfOf(1))
      }
    },
    { devices: [{ ats: true }, {}] },
  ],
]

const functions: readonly Case[] = [
  [
    'moves nothing while bus mastering is off',
    s => {
      const host = s.page(3)
      hosted(s).map(1, host, 1, RW)
      s.config.write(bdfOf(0), 4, 2, 2)
      expect([s.read(0, at(1)), s.write(0, at(1), 4), s.word(host)]).toEqual([
        'bus-master-disabled',
        'bus-master-disabled',
        3,
      ])
      s.config.write(bdfOf(0), 4, 2, 6)
      expect(s.read(0, at(1))).toBe(3)
    },
  ],
  [
    'refuses a PASID that nobody opened, and serves requests without one',
    s => {
      hosted(s).map(1, s.page(3), 1, RW)
      expect(reached(s.read(0, at(1), 5))).toBe(false)
      expect(s.read(0, at(1))).toBe(3)
      expect(reached(s.read(0, at(1), 5))).toBe(false)
    },
  ],
  [
    'a function without the PASID capability sends none',
    s => {
      hosted(s).map(1, s.page(3), 1, RW)
      expect([s.read(0, at(1), 5), s.read(0, at(1))]).toEqual(['pasid-disabled', 3])
    },
    { devices: [{ pasidWidth: 0 }] },
  ],
  [
    'translated requests of a function without ATS are refused',
    s => {
      const host = s.page(3)
      hosted(s).map(1, host, 1, RW)
      const r = new MemoryRequest()
      Object.assign(r, { requester: bdfOf(0), at: 2, lo: host * 4096, length: 4 })
      const answer = new Translation()
      s.machine.unit.translate(r, answer)
      expect(answer.status).not.toBe(COMPLETION.SC)
    },
  ],
  [
    'translation requests of a function without ATS are refused',
    s => {
      hosted(s).map(1, s.page(3), 1, RW)
      const r = new MemoryRequest()
      Object.assign(r, { requester: bdfOf(0), at: 1, lo: 4096, length: 4 })
      const answer = new Translation()
      s.machine.unit.translateAts(r, answer)
      expect(answer.status).not.toBe(COMPLETION.SC)
    },
  ],
  [
    'translated requests of a function with ATS pass to physical addresses',
    s => {
      const host = s.page(3)
      hosted(s).map(1, host, 1, RW)
      const r = new MemoryRequest()
      Object.assign(r, { requester: bdfOf(0), at: 2, lo: host * 4096, length: 4 })
      const answer = new Translation()
      s.machine.unit.translate(r, answer)
      expect([answer.status, answer.output]).toEqual([COMPLETION.SC, host * 4096])
    },
    ATS,
  ],
  [
    'a reset function gets its services back, and reaches what it reached',
    s => {
      hosted(s).map(1, s.page(3), 1, RW)
      expect(s.read(0, at(1))).toBe(3)
      s.machine.fabric.function(bdfOf(0))!.reset()
      s.config.write(bdfOf(0), 4, 2, 6)
      const ats = s.config.extended(bdfOf(0), 0x0f) + 6
      expect(s.config.read(bdfOf(0), ats, 2) & 0x8000).toBe(0)
      s.core.deviceDriver(bdfOf(0))!.restore(bdfOf(0))
      expect(s.config.read(bdfOf(0), ats, 2) & 0x8000).toBe(0x8000)
      expect(s.read(0, at(1))).toBe(3)
    },
    ATS,
  ],
  [
    'a function below a port of its own is alone in its group',
    s => {
      const [one, two] = [0, 1].map(n => s.core.groups.of(bdfOf(n))!)
      expect(one).not.toBe(two)
      expect([one!.endpoints, two!.endpoints]).toEqual([[bdfOf(0)], [bdfOf(1)]])
    },
  ],
  [
    'an interrupt arrives, until its vector is freed',
    s => {
      hosted(s)
      let arrived = 0
      const vector = s.core.allocateVector(bdfOf(0), () => arrived++)
      s.write(0, BigInt(vector.address), vector.data)
      expect(arrived).toBe(1)
      vector.free()
      s.write(0, BigInt(vector.address), vector.data)
      expect(arrived).toBe(1)
    },
  ],
  [
    'a function cannot raise the interrupt of another',
    s => {
      const domain = hosted(s)
      domain.attach(bdfOf(1))
      let arrived = 0
      const vector = s.core.allocateVector(bdfOf(0), () => arrived++)
      s.write(1, BigInt(vector.address), vector.data)
      expect(arrived).toBe(0)
      expect(s.core.deviceDriver(bdfOf(0))!.isolatesInterrupts).toBe(true)
    },
  ],
]

const said = (f: IommuFault) => {
  const { reason, flags, pasid, perm, addr } = f.event.event
  return { reason, pasid: flags & 1 ? pasid : undefined, perm, page: addr >> 12n }
}

const faults: readonly Case[] = [
  [
    'a refused access is reported once, to its function’s handler, with address and kind',
    s => {
      const domain = hosted(s)
      domain.attach(bdfOf(1))
      domain.map(1, s.page(1), 1, READ)
      const [zero, one] = [s.listen(0), s.listen(1)]
      s.read(0, at(0x55))
      s.write(0, at(1), 1)
      expect(zero).toHaveLength(0)
      s.machine.settle()
      expect(zero.map(said)).toEqual([
        { reason: IOMMU_FAULT_REASON_PTE_FETCH, pasid: undefined, perm: READ, page: 0x55n },
        { reason: IOMMU_FAULT_REASON_PERMISSION, pasid: undefined, perm: WRITE, page: 1n },
      ])
      expect(one).toEqual([])
    },
  ],
  [
    'an access that is served reports nothing',
    s => {
      hosted(s).map(1, s.page(1), 1, RW)
      const seen = s.listen(0)
      for (let i = 0; i < 5; i++) s.read(0, at(1))
      s.machine.settle()
      expect(seen).toEqual([])
    },
  ],
  [
    'faults that nobody takes do no harm',
    s => {
      const domain = hosted(s)
      for (let i = 0; i < 300; i++) s.read(0, at(i + 2))
      s.machine.settle()
      domain.map(1, s.page(1), 1, RW)
      expect(s.read(0, at(1))).toBe(1)
      const seen = s.listen(0)
      s.read(0, at(2))
      s.machine.settle()
      expect(seen).toHaveLength(1)
    },
  ],
]

/** A guest of device 0 with one open space that maps GVA. */
function opened(s: Subject, devices: readonly number[] = [0], pasid = 3) {
  const guest = s.guest(devices)
  const space = guest.open(pasid)
  const data = guest.page(0x99)
  space.map(GVA, data)
  return { guest, space, data }
}

const guests: readonly Case[] = [
  [
    'a guest’s address goes through its table and the domain',
    s => {
      const { guest, data } = opened(s)
      expect(s.read(0, GVA, 3)).toBe(0x99)
      expect(s.write(0, GVA, 0x9a, 3)).toBe('ok')
      expect(s.word(guest.domain.iovaToPhys(data))).toBe(0x9a)
      expect(reached(s.read(0, GVA + 0x1000n, 3))).toBe(false)
    },
  ],
  [
    'requests without PASID see the domain, not the guest’s table',
    s => {
      const { data } = opened(s)
      expect(s.read(0, at(data))).toBe(0x99)
      expect(reached(s.read(0, GVA))).toBe(false)
    },
  ],
  [
    'keeps two PASIDs apart at the same address',
    s => {
      const { guest } = opened(s)
      guest.open(4).map(GVA, guest.page(0xaa))
      expect([s.read(0, GVA, 3), s.read(0, GVA, 4), s.read(0, GVA, 3)]).toEqual([0x99, 0xaa, 0x99])
      expect(reached(s.read(0, GVA, 5))).toBe(false)
    },
  ],
  [
    'a space opened for two functions serves both',
    s => {
      opened(s, [0, 1])
      expect([s.read(0, GVA, 3), s.read(1, GVA, 3)]).toEqual([0x99, 0x99])
    },
    ATS,
  ],
  [
    'a function of another guest does not reach it under the same PASID',
    s => {
      opened(s, [0], 3)
      const other = s.guest([1])
      other.open(4).map(GVA, other.page(0xbb))
      expect(reached(s.read(1, GVA, 3))).toBe(false)
      expect([s.read(0, GVA, 3), s.read(1, GVA, 4)]).toEqual([0x99, 0xbb])
    },
  ],
  [
    'what the guest maps read-only is not written',
    s => {
      const { space, data } = opened(s)
      space.map(GVA + 0x1000n, data, false)
      expect(s.read(0, GVA + 0x1000n, 3)).toBe(0x99)
      expect(reached(s.write(0, GVA + 0x1000n, 1, 3))).toBe(false)
    },
  ],
  [
    'what the domain maps read-only is not written, whatever the guest says',
    s => {
      const { guest, space } = opened(s)
      guest.domain.map(0x9_0000, s.page(0x44), 1, READ)
      space.map(GVA + 0x1000n, 0x9_0000)
      expect(s.read(0, GVA + 0x1000n, 3)).toBe(0x44)
      expect(reached(s.write(0, GVA + 0x1000n, 1, 3))).toBe(false)
    },
  ],
  [
    'a guest cannot reach beyond the domain',
    s => {
      const { space } = opened(s)
      space.map(GVA + 0x1000n, 0x9_0000)
      space.map(GVA + 0x2000n, 0x300)
      expect(reached(s.read(0, GVA + 0x1000n, 3))).toBe(false)
      expect(reached(s.read(0, GVA + 0x2000n, 3))).toBe(false)
    },
  ],
  ...[true, false].map(
    (ats): Case => [
      `an entry changed and invalidated is not used any more, its neighbour is: ATS ${ats}`,
      s => {
        const { guest, space } = opened(s)
        space.map(GVA + 0x1000n, guest.page(0x9b))
        expect([s.read(0, GVA, 3), s.read(0, GVA + 0x1000n, 3)]).toEqual([0x99, 0x9b])
        space.unmap(GVA)
        space.invalidate(GVA)
        expect(reached(s.read(0, GVA, 3))).toBe(false)
        expect(s.read(0, GVA + 0x1000n, 3)).toBe(0x9b)
        space.map(GVA, guest.page(0x9c))
        space.map(GVA + 0x1000n, guest.page(0x9d))
        space.invalidate()
        expect([s.read(0, GVA, 3), s.read(0, GVA + 0x1000n, 3)]).toEqual([0x9c, 0x9d])
      },
      ats ? ATS : {},
    ],
  ),
  ...[true, false].map(
    (ats): Case => [
      `a space that is closed leaves nothing to the next of its PASID: ATS ${ats}`,
      s => {
        const { guest, space } = opened(s)
        const other = guest.open(4)
        other.map(GVA, guest.page(0xaa))
        expect([s.read(0, GVA, 3), s.read(0, GVA, 4)]).toEqual([0x99, 0xaa])
        space.close()
        expect(reached(s.read(0, GVA, 3))).toBe(false)
        expect(s.read(0, GVA, 4)).toBe(0xaa)
        const next = guest.open(3)
        expect(reached(s.read(0, GVA, 3))).toBe(false)
        next.map(GVA, guest.page(0xbb))
        next.invalidate(GVA)
        expect(s.read(0, GVA, 3)).toBe(0xbb)
      },
      ats ? ATS : {},
    ],
  ),
  ...[true, false].map(
    (ats): Case => [
      `a page that the host takes away is gone for the guest’s devices: ATS ${ats}`,
      s => {
        const { guest, data } = opened(s)
        expect(s.read(0, GVA, 3)).toBe(0x99)
        guest.domain.unmap(data, 1)
        guest.domain.flush()
        expect(reached(s.read(0, GVA, 3))).toBe(false)
        guest.domain.map(data, s.page(0x50), 1, RW)
        expect(s.read(0, GVA, 3)).toBe(0x50)
      },
      ats ? ATS : {},
    ],
  ),
  [
    'a fault under a PASID says so',
    s => {
      opened(s)
      const seen = s.listen(0)
      s.write(0, GVA + 0x7000n, 1, 3)
      s.machine.settle()
      expect(seen.map(said)).toEqual([
        { reason: IOMMU_FAULT_REASON_PTE_FETCH, pasid: 3, perm: WRITE, page: (GVA >> 12n) + 7n },
      ])
    },
  ],
  [
    'a page request is delivered, answered, and the page then reached',
    s => {
      const { guest, space } = opened(s)
      const seen = s.listen(0)
      const address = GVA + 0x5000n
      expect(s.read(0, address, 3)).toBe('not-present')
      const answers = s.request(0, address, 3)
      expect([answers.length, s.core.pendingPageRequests()]).toEqual([0, 1])
      const [fault] = seen
      expect(fault!.type).toBe(IOMMU_FAULT_PAGE_REQ)
      expect(fault!.event.prm).toMatchObject({ flags: 0b1011, pasid: 3, addr: address, perm: READ })
      space.map(address, guest.page(0x66))
      s.respond(0, fault!, IOMMU_PAGE_RESP_SUCCESS)
      expect(answers).toEqual([0])
      expect(s.read(0, address, 3)).toBe(0x66)
    },
    ATS,
  ],
  ...(
    [
      ['INVALID', IOMMU_PAGE_RESP_INVALID, 1],
      ['FAILURE', IOMMU_PAGE_RESP_FAILURE, 15],
    ] as const
  ).map(
    ([name, code, expected]): Case => [
      `an answer of ${name} reaches the device as such`,
      s => {
        opened(s)
        const seen = s.listen(0)
        const answers = s.request(0, GVA + 0x5000n, 3)
        s.respond(0, seen[0]!, code)
        expect(answers).toEqual([expected])
      },
      ATS,
    ],
  ),
  [
    'a page request that nobody takes is answered INVALID',
    s => {
      opened(s)
      expect(s.request(0, GVA + 0x5000n, 3)).toEqual([1])
    },
    ATS,
  ],
  [
    'a page request that waits is answered INVALID when its listener goes, and when its device goes',
    s => {
      const { guest } = opened(s)
      s.listen(0)
      const first = s.request(0, GVA + 0x5000n, 3)
      s.core.onFault(bdfOf(0), undefined)
      s.machine.settle()
      expect(first).toEqual([1])
      s.listen(0)
      const second = s.request(0, GVA + 0x6000n, 3)
      guest.end()
      expect([second, s.core.pendingPageRequests()]).toEqual([[1], 0])
    },
    ATS,
  ],
  [
    'a response that matches nothing is refused',
    s => {
      opened(s)
      const seen = s.listen(0)
      s.request(0, GVA + 0x5000n, 3)
      const [fault] = seen
      s.respond(0, fault!, IOMMU_PAGE_RESP_SUCCESS)
      expect(codeOf(() => s.respond(0, fault!, IOMMU_PAGE_RESP_SUCCESS))).toBe('EINVAL')
    },
    ATS,
  ],
  [
    'a guest that ends with everything open leaves nothing',
    s => {
      const before = s.held()
      const { guest } = opened(s, [0, 1])
      guest.open(4).map(GVA, guest.page(1))
      s.read(0, GVA, 3)
      s.read(1, GVA, 4)
      guest.end()
      expect([s.core.bindingCount, s.held()]).toEqual([0, before])
      expect(reached(s.read(0, GVA, 3))).toBe(false)
    },
    ATS,
  ],
  [
    'random spaces, entries and accesses agree with a plain list (seed 11)',
    s => {
      const guest = s.guest([0, 1])
      const random = generator(11)
      const pages = Array.from({ length: 8 }, (_, i) => guest.page(0x2000 + i))
      type Open = { space: ReturnType<typeof guest.open>; entries: Map<number, number> }
      const open = new Map<number, Open>()
      for (let step = 0; step < 600; step++) {
        const pasid = 1 + random(3)
        const n = random(12)
        const known = open.get(pasid)
        const what = random(8)
        if (known === undefined) {
          if (what < 3) open.set(pasid, { space: guest.open(pasid), entries: new Map() })
        } else if (what === 0) {
          known.space.close()
          open.delete(pasid)
        } else if (what < 4) {
          const to = random(8)
          known.space.map(GVA + at(n), pages[to]!)
          known.space.invalidate(GVA + at(n))
          known.entries.set(n, 0x2000 + to)
        } else if (what === 4 && known.entries.delete(n)) {
          known.space.unmap(GVA + at(n))
          known.space.invalidate(random(2) === 0 ? undefined : GVA + at(n))
        }
        const expected = open.get(pasid)?.entries.get(n)
        const got = s.read(random(2), GVA + at(n), pasid)
        const name = `step ${step}, PASID ${pasid}, page ${n}`
        if (expected === undefined) expect(reached(got), name).toBe(false)
        else expect(got, name).toBe(expected)
      }
    },
    { devices: [{ ats: true }, {}] },
  ],
]

/** Numbers below n, the same every time. */
function generator(seed: number): (n: number) => number {
  let x = seed
  return n => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((x / 2 ** 32) * n)
  }
}

/** Runs the suite on a subject. */
export function runConformance({ create, nests = true, except = {} }: ConformanceOptions): void {
  const suites: Readonly<Record<string, readonly Case[]>> = {
    domains,
    functions,
    faults,
    ...(nests ? { guests } : {}),
  }
  const names = new Set(Object.values(suites).flatMap(cases => cases.map(([name]) => name)))
  it('lists only exceptions that are cases', () => {
    for (const name of Object.keys(except)) expect(names, name).toContain(name)
  })
  for (const [suite, cases] of Object.entries(suites))
    describe(suite, () => {
      for (const [name, run, options] of cases) {
        const exception = except[name]
        if (exception === undefined) it(name, () => run(create(options)))
        else
          it(`not: ${name} (${exception.section}: ${exception.reason})`, () => {
            const subject = create(options)
            expect(() => run(subject)).toThrow()
          })
      }
    })
}
