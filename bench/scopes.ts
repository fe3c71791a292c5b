// Every scope of invalidation of both units' translation caches: what it drops made and dropped again beside many
// other entries, against the same beside a few. In proportion to what is dropped means that the two are alike.

import { IOTLB_FIRST, IOTLB_NESTED, IOTLB_SECOND } from '../src/iommu/iotlb.js'
import { Caches as SmmuCaches } from '../src/iommu/smmu/caches.js'
import type { Binding as StreamBinding } from '../src/iommu/smmu/requests.js'
import { WORLD } from '../src/iommu/smmu/streams.js'
import { Caches as VtdCaches } from '../src/iommu/vtd/caches.js'
import { type Entries, Binding as PasidBinding } from '../src/iommu/vtd/entries.js'
import { PGTT } from '../src/iommu/vtd/tables.js'
import { type Body, type Row, ratioTo } from './harness.js'

const CAPACITY = 4096
const FEW = 16
const MANY = 4000
const RIGHTS = 0x3f
/** Domain or VMID, and PASID or ASID, of what is dropped. */
const DOMAIN = 1
const PASID = 1

/** A cache that can hold a page of some domain and PASID (-1: second stage alone), and drop by one scope. */
interface Subject {
  fill(domain: number, pasid: number, page: number): void
  drop(): void
}

interface Scope {
  readonly id: string
  readonly what: string
  /** Pages that are dropped, of the PASID. */
  readonly pages: number
  readonly pasid?: number
  /** Where the other entries are. */
  readonly beside: 'domain' | 'elsewhere'
  make(): Subject
}

function vtd(drop: (c: VtdCaches) => void): Subject {
  const cache = new VtdCaches({} as unknown as Entries, () => {})
  const binding = new PasidBinding()
  return {
    fill: (domain, pasid, page) => {
      binding.did = domain
      binding.tagPasid = pasid
      binding.pgtt = pasid < 0 ? PGTT.SECOND_STAGE : PGTT.NESTED
      cache.keep(binding, 0, page << 12, 12, page * 4096, RIGHTS)
    },
    drop: () => drop(cache),
  }
}

function smmu(drop: (c: SmmuCaches) => void): Subject {
  const cache = new SmmuCaches(CAPACITY, () => {})
  const stream = { world: WORLD.EL1 }
  const bindings = new Map<number, StreamBinding>()
  return {
    fill: (domain, asid, page) => {
      let b = bindings.get(domain * 0x1_0000 + asid)
      if (!b) {
        const kind = asid < 0 ? IOTLB_SECOND : domain & 1 ? IOTLB_NESTED : IOTLB_FIRST
        b = { stream, domain, asid, source: 0, globalSource: 0, kind } as unknown as StreamBinding
        bindings.set(domain * 0x1_0000 + asid, b)
      }
      cache.keep(b, 0, page << 12, 12, page * 4096, RIGHTS)
    },
    drop: () => drop(cache),
  }
}

const range = (count: number) => ({ page: 0, count })

// biome-ignore format: table
const SCOPES: readonly Scope[] = [
  { id: 'vtd-iotlb-domain',  what: 'IOTLB, domain-selective',        pages: 64, beside: 'elsewhere', make: () => vtd(c => c.iotlb('domain', DOMAIN, 0, 0, 0)) },
  { id: 'vtd-iotlb-page',    what: 'IOTLB, one page',                pages: 1, pasid: -1, beside: 'elsewhere', make: () => vtd(c => c.iotlb('page', DOMAIN, 0, 0, 0)) },
  { id: 'vtd-iotlb-range',   what: 'IOTLB, 64 pages',                pages: 64, pasid: -1, beside: 'elsewhere', make: () => vtd(c => c.iotlb('page', DOMAIN, 0, 0, 6)) },
  { id: 'vtd-pasid',         what: 'PASID-selective',                pages: 64, beside: 'domain', make: () => vtd(c => c.pasidIotlb('pasid', DOMAIN, PASID, 0, 0, 0)) },
  { id: 'vtd-pasid-page',    what: 'one page of a PASID',            pages: 1,  beside: 'domain', make: () => vtd(c => c.pasidIotlb('page', DOMAIN, PASID, 0, 0, 0)) },
  { id: 'smmu-nh-all',       what: 'TLBI_NH_ALL of a VMID',          pages: 64, beside: 'elsewhere', make: () => smmu(c => c.vmid(DOMAIN, false)) },
  { id: 'smmu-s12-vmall',    what: 'TLBI_S12_VMALL of a VMID',       pages: 64, pasid: -1, beside: 'elsewhere', make: () => smmu(c => c.vmid(DOMAIN, true)) },
  { id: 'smmu-nh-asid',      what: 'TLBI_NH_ASID',                   pages: 64, beside: 'domain', make: () => smmu(c => c.asid(WORLD.EL1, DOMAIN, PASID)) },
  { id: 'smmu-nh-va',        what: 'TLBI_NH_VA of one page',         pages: 1,  beside: 'domain', make: () => smmu(c => c.address(WORLD.EL1, DOMAIN, PASID, range(1))) },
  { id: 'smmu-nh-va-range',  what: 'TLBI_NH_VA of 64 pages',         pages: 64, beside: 'domain', make: () => smmu(c => c.address(WORLD.EL1, DOMAIN, PASID, range(64))) },
  { id: 'smmu-nh-vaa',       what: 'TLBI_NH_VAA of one page',        pages: 1,  beside: 'domain', make: () => smmu(c => c.addressOfAll(WORLD.EL1, DOMAIN, range(1))) },
  { id: 'smmu-nh-vaa-range', what: 'TLBI_NH_VAA of 64 pages',        pages: 64, beside: 'domain', make: () => smmu(c => c.addressOfAll(WORLD.EL1, DOMAIN, range(64))) },
  { id: 'smmu-s2-ipa',       what: 'TLBI_S2_IPA of one page',        pages: 1, pasid: -1, beside: 'domain', make: () => smmu(c => c.intermediate(DOMAIN, range(1))) },
]

/** A cache with so many other entries, 16 to a PASID, of the same domain or of others; pages that no scope names. */
function crowded({ make, beside }: Scope, others: number): Subject {
  const subject = make()
  for (let i = 0; i < others; i++) {
    const group = i >> 4
    const domain = beside === 'domain' ? DOMAIN : 2 + (group & 15)
    subject.fill(domain, 1000 + group, 0x1000 + (i & 15))
  }
  return subject
}

const cycle =
  (subject: Subject, pages: number, pasid: number): Body =>
  n => {
    for (let i = 0; i < n; i++) {
      for (let page = 0; page < pages; page++) subject.fill(DOMAIN, pasid, page)
      subject.drop()
    }
  }

function scopeRow(scope: Scope): Row {
  const { id, what, pages, pasid = PASID } = scope
  return ratioTo({
    id,
    what: `${what}: ${pages} entries made and dropped beside ${MANY}, against beside ${FEW}`,
    body: cycle(crowded(scope, MANY), pages, pasid),
    baseline: cycle(crowded(scope, FEW), pages, pasid),
    target: 0.5,
  })
}

/** Dropping everything: an entry of many against an entry of a few. */
function allRow(id: string, what: string, make: () => Subject): Row {
  const each = (subject: Subject, entries: number): Body => {
    const run = cycle(subject, entries, PASID)
    return n => run(Math.ceil(n / entries))
  }
  return ratioTo({
    id,
    what: `${what}: an entry made and dropped with ${MANY}, against with ${FEW}`,
    body: each(make(), MANY),
    baseline: each(make(), FEW),
    target: 0.5,
  })
}

export function* scopeRows(): Generator<Row> {
  for (const scope of SCOPES) yield scopeRow(scope)
  yield allRow('vtd-iotlb-global', 'IOTLB, global', () => vtd(c => c.iotlb('global', 0, 0, 0, 0)))
  yield allRow('smmu-nsnh-all', 'TLBI_NSNH_ALL', () => smmu(c => c.allEl1()))
}
