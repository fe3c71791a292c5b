// Commands on a container: map, unmap, PASIDs, bind, unbind, invalidate; and what a process does to its memory.

import fc from 'fast-check'
import {
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
  IOMMU_GPASID_BIND_VERSION_1,
  IOMMU_INV_ADDR_FLAGS_LEAF,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_PASID,
  IOMMU_INV_PASID_FLAGS_PASID,
  IOMMU_PASID_FORMAT_INTEL_VTD,
  IOMMU_SVA_GPASID_VAL,
  iommu_cache_invalidate_info,
  iommu_gpasid_bind_data,
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_nesting_op,
  vfio_iommu_type1_pasid_request,
} from '../../src/uapi.js'
import { leafTable } from '../model/dma.js'
import { OK } from '../model/outcome.js'
import * as m from '../model/pasids.js'
import { type Container, ENTRY, GUEST_PAGE, PAGES, type Page, type State } from '../model/state.js'
import { Disagreement, type Result, type Rig } from '../rig.js'
import { descriptor, expect, type Found, type FuzzCommand, pasidOf, process, step } from './step.js'

const PAGE = 4096n

/** The container file that numbers pick: mostly one with a driver. */
function container(s: Readonly<State>, of: number, n: number): Found | undefined {
  const ready = descriptor(s, of, n, 'container', f => f.container!.driver !== undefined)
  return n < 7 && ready ? ready : descriptor(s, of, n, 'container')
}

const on = (f: Found): Container => f.file.container!

/** MAP_DMA of `pages` of the caller's pages from `at` on. */
const map = (of: number, n: number, iova: number, at: number, pages: number, access: number) =>
  step(
    `map(${of}, ${n}, iova ${iova}, page ${at}, ${pages}, ${access})`,
    s => container(s, of, n),
    (_, rig, f) => mapInto(rig, f, iova, at, pages, access),
  )

function mapInto(rig: Rig, f: Found, iova: number, at: number, pages: number, access: number) {
  const { process: p, fd } = f
  const arg = vfio_iommu_type1_dma_map({
    flags: access,
    vaddr: rig.memory[p.id]!.vaddr + BigInt(at) * PAGE,
    iova: BigInt(iova) * PAGE,
    size: BigInt(pages) * PAGE,
  })
  const allowed = m.mayMap(on(f), p, iova, at, pages, access)
  const name = `MAP_DMA, iova page ${iova}, own page ${at}, ${pages}, access ${access}`
  if (expect(rig.ioctl(p.id, fd, name, VFIO_IOMMU_MAP_DMA, arg), allowed))
    m.map(on(f), p, iova, at, pages, access)
}

const unmap = (of: number, n: number, iova: number, pages: number) =>
  step(
    `unmap(${of}, ${n}, iova ${iova}, ${pages})`,
    s => container(s, of, n),
    (s, rig, f) => unmapFrom(s, rig, f, iova, pages),
  )

function unmapFrom(s: State, rig: Rig, f: Found, iova: number, pages: number): void {
  const { process: p, fd } = f
  const arg = vfio_iommu_type1_dma_unmap({ iova: BigInt(iova) * PAGE, size: BigInt(pages) * PAGE })
  const allowed = m.mayUnmap(on(f), iova, pages)
  const name = `UNMAP_DMA, iova page ${iova}, ${pages}`
  if (!expect(rig.ioctl(p.id, fd, name, VFIO_IOMMU_UNMAP_DMA, arg), allowed)) return
  const removed = m.unmap(s, on(f), p, iova, pages)
  if (arg.size !== BigInt(removed) * PAGE)
    throw new Disagreement(`${arg.size / PAGE} pages removed, where the model says ${removed}`)
}

function request(rig: Rig, f: Found, flags: number, min: number, max: number): Result {
  const name = `PASID_REQUEST, ${flags === VFIO_IOMMU_FLAG_ALLOC_PASID ? 'ALLOC' : 'FREE'} [${min}, ${max}]`
  const arg = vfio_iommu_type1_pasid_request({ flags, range: { min, max } })
  return rig.ioctl(f.process.id, f.fd, name, VFIO_IOMMU_PASID_REQUEST, arg)
}

const alloc = (of: number, n: number, min: number, max: number) =>
  step(
    `alloc(${of}, ${n}, [${min}, ${max}])`,
    s => container(s, of, n),
    (s, rig, f) => void allocFrom(s, rig, f, min, max),
  )

function allocFrom(s: State, rig: Rig, f: Found, min: number, max: number): number | undefined {
  const allowed = m.mayAlloc(s, on(f), min, max)
  const result = request(rig, f, VFIO_IOMMU_FLAG_ALLOC_PASID, min, max)
  if (!expect(result, allowed)) return undefined
  m.alloc(s, on(f), result as number)
  return result as number
}

const free = (of: number, n: number, min: number, max: number) =>
  step(
    `free(${of}, ${n}, [${min}, ${max}])`,
    s => container(s, of, n),
    (s, rig, f) => {
      const allowed = m.mayFree(on(f), min, max)
      if (expect(request(rig, f, VFIO_IOMMU_FLAG_FREE_PASID, min, max), allowed))
        m.freeRange(s, on(f), min, max)
    },
  )

function nestingOp(
  rig: Rig,
  f: Found,
  what: string,
  op: number,
  payload: { readonly bytes: Uint8Array },
): Result {
  const arg = vfio_iommu_type1_nesting_op({ flags: op, data: payload.bytes })
  return rig.ioctl(f.process.id, f.fd, `NESTING_OP, ${what}`, VFIO_IOMMU_NESTING_OP, arg)
}

const bindData = (pasid: number, root: number, guest: number | undefined) =>
  iommu_gpasid_bind_data({
    version: IOMMU_GPASID_BIND_VERSION_1,
    format: IOMMU_PASID_FORMAT_INTEL_VTD,
    addr_width: 48,
    flags: guest === undefined ? 0n : BigInt(IOMMU_SVA_GPASID_VAL),
    gpgd: BigInt(root) * PAGE,
    hpasid: BigInt(pasid),
    gpasid: BigInt(guest ?? 0),
  })

const bind = (of: number, n: number, which: number, root: number, guest: number | undefined) =>
  step(
    `bind(${of}, ${n}, PASID ${which}, root ${root}, guest ${guest})`,
    s => container(s, of, n),
    (s, rig, f) => bindTo(s, rig, f, pasidOf(s, on(f), which), root, guest),
  )

function bindTo(
  s: State,
  rig: Rig,
  f: Found,
  pasid: number,
  root: number,
  guest: number | undefined,
) {
  const allowed = m.mayBind(s, on(f), pasid, guest)
  const what = `BIND PASID ${pasid}, root page ${root}, guest's ${guest ?? 'none'}`
  const data = bindData(pasid, root, guest)
  if (expect(nestingOp(rig, f, what, VFIO_IOMMU_NESTING_OP_BIND_PGTBL, data), allowed))
    m.bind(s, on(f), pasid, root, guest)
}

/** All of the caller's memory mapped at its own place, a PASID, and a table bound to it: shared virtual addressing. */
const share = (of: number, n: number, root: number) =>
  step(
    `share(${of}, ${n}, root ${root})`,
    s => {
      const f = container(s, of, n)
      return f && m.nests(on(f)) === undefined ? f : undefined
    },
    (s, rig, f) => {
      if (on(f).driver!.mappings.length > 0) unmapFrom(s, rig, f, 0, 2 ** 20)
      mapInto(rig, f, 0, 0, PAGES, 3)
      const pasid = allocFrom(s, rig, f, 1, 99)
      if (pasid !== undefined) bindTo(s, rig, f, pasid, root, undefined)
    },
  )

const unbind = (of: number, n: number, which: number) =>
  step(
    `unbind(${of}, ${n}, PASID ${which})`,
    s => container(s, of, n),
    (s, rig, f) => {
      const pasid = pasidOf(s, on(f), which)
      const data = bindData(pasid, 0, undefined)
      const allowed = m.nests(on(f)) ?? OK
      const op = VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL
      if (expect(nestingOp(rig, f, `UNBIND PASID ${pasid}`, op, data), allowed))
        m.unbindAll(s, on(f), pasid)
    },
  )

/** Of a whole PASID without `range`; `caches` as the interface has them. */
const invalidate = (
  of: number,
  n: number,
  which: number,
  caches: number,
  range: { readonly page: number; readonly count: number } | undefined,
) =>
  step(
    `invalidate(${of}, ${n}, PASID ${which}, caches ${caches}, ${range ? `${range.page}+${range.count}` : 'all'})`,
    s => container(s, of, n),
    (s, rig, f) => invalidateOf(s, rig, f, pasidOf(s, on(f), which), caches, range),
  )

/** Of what the last DMA used. */
const invalidateUsed = (caches: number, whole: boolean) =>
  step(
    `invalidateUsed(caches ${caches}, ${whole ? 'all' : 'the page'})`,
    s => (s.used?.pasid === undefined ? undefined : containerOf(s)),
    (s, rig, f) => {
      const { pasid, page } = s.used!
      invalidateOf(s, rig, f, pasid!, caches, whole ? undefined : { page, count: 1 })
    },
  )

/** A descriptor of the container that the last DMA went through. */
function containerOf(s: Readonly<State>): Found | undefined {
  const container = s.used?.device.group.container
  return container && descriptor(s, 0, 0, 'container', f => f.container === container)
}

/** Takes away what the last DMA used: the whole of it, which mostly is all of a process's memory. */
const unmapUsed = () =>
  step('unmapUsed()', containerOf, (s, rig, f) => {
    const maps = on(f).driver?.mappings ?? []
    const owner = maps.find(m => m.owner.fds.get(f.fd)?.container === on(f))?.owner ?? f.process
    unmapFrom(s, rig, { ...f, process: owner }, 0, 2 ** 20)
  })

function invalidateOf(
  s: State,
  rig: Rig,
  f: Found,
  pasid: number,
  caches: number,
  range: { readonly page: number; readonly count: number } | undefined,
): void {
  const info = iommu_cache_invalidate_info({
    version: IOMMU_CACHE_INVALIDATE_INFO_VERSION_1,
    cache: caches,
    granularity: range ? IOMMU_INV_GRANU_ADDR : IOMMU_INV_GRANU_PASID,
  })
  if (range)
    Object.assign(info.granu.addr_info, {
      flags: IOMMU_INV_ADDR_FLAGS_PASID | IOMMU_INV_ADDR_FLAGS_LEAF,
      pasid: BigInt(pasid),
      addr: BigInt(GUEST_PAGE + range.page) * PAGE,
      granule_size: PAGE,
      nb_granules: BigInt(range.count),
    })
  else
    Object.assign(info.granu.pasid_info, {
      flags: IOMMU_INV_PASID_FLAGS_PASID,
      pasid: BigInt(pasid),
    })
  const allowed = m.nests(on(f)) ?? OK
  const what = `CACHE_INVLD PASID ${pasid}, ${range ? `pages ${range.page}+${range.count}` : 'all'}, caches ${caches}`
  const done = expect(nestingOp(rig, f, what, VFIO_IOMMU_NESTING_OP_CACHE_INVLD, info), allowed)
  if (done && caches & IOMMU_CACHE_INV_TYPE_IOTLB) m.invalidate(s, on(f), pasid, range)
}

/** The guest changes a last-level entry of one of its tables, and tells nobody. */
const edit = (of: number, table: number, index: number, page: number, write: boolean) =>
  step(
    `edit(${of}, page ${table}, entry ${index}, ${page === 0 ? 'none' : `page ${page}${write ? '' : ' read-only'}`})`,
    s => {
      const p = process(s, of)
      return p?.protection === 'rw' ? p : undefined
    },
    (_, rig, p) => {
      change(rig, p.pages[table]!, index, page, write)
      rig.say(`process ${p.id}: entry ${index} of page ${table} = ${page || 'none'}`)
    },
  )

/** Makes the entry of one of a guest's addresses lead to a page, or nowhere. */
function change(rig: Rig, table: Page, index: number, page: number, write: boolean): void {
  const entry = page === 0 ? 0 : page * ENTRY.FRAME + (write ? ENTRY.WRITE : 0)
  table.entries.set(GUEST_PAGE + index, entry)
  rig.writeEntry(table, GUEST_PAGE + index)
}

/** The guest changes the entry that the last DMA used. */
const editUsed = (page: number, write: boolean) =>
  step(
    `editUsed(${page === 0 ? 'none' : `page ${page}${write ? '' : ' read-only'}`})`,
    s => {
      const table = s.used && leafTable(s, s.used)
      const p = table && s.processes.find(x => x.pages.includes(table))
      return p?.alive && p.protection === 'rw' && s.used!.page < 4
        ? { p, table: table! }
        : undefined
    },
    (s, rig, { p, table }) => {
      const index = s.used!.page
      change(rig, table, index, page, write)
      rig.say(
        `process ${p.id}: entry ${index} of page ${p.pages.indexOf(table)} = ${page || 'none'}`,
      )
    },
  )

/** The process takes its memory away, or the right to write it. What is pinned stays. */
const protect = (of: number, to: 'rw' | 'ro' | 'none') =>
  step(
    `protect(${of}, ${to})`,
    s => {
      const p = process(s, of)
      return p && p.protection !== 'none' ? p : undefined
    },
    (_, rig, p) => {
      const { vaddr } = rig.memory[p.id]!
      const bytes = PAGES * 4096
      const result = rig.call(p.id, to === 'none' ? 'munmap()' : `mprotect(${to})`, sys => {
        if (to === 'none') sys.munmap(vaddr, bytes)
        else sys.process.memory.mprotect(vaddr, bytes, to === 'rw' ? 3 : 1)
      })
      expect(result, OK)
      p.protection = to
    },
  )

const of = fc.nat({ max: 3 })
const nth = fc.nat({ max: 7 })
const iova = fc.oneof(
  { weight: 4, arbitrary: fc.nat({ max: 14 }) },
  { weight: 9, arbitrary: fc.integer({ min: 12, max: 24 }) },
  { weight: 1, arbitrary: fc.constantFrom(0xfedfe, 0xfedff, 0xfee00, 0xfeeff, 0xfef00) },
)
const pasid = fc.nat({ max: 8 })
const number = fc.nat({ max: 6 })
const count = fc.integer({ min: 1, max: 4 })
const access = fc.constantFrom(3, 3, 3, 1, 2)
const bound = fc.nat({ max: 7 })
const root = fc.constantFrom(0, 0, 4, 1)
const guest = fc.option(fc.nat({ max: 2 }), { nil: undefined })
const caches = fc.constantFrom(
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB | IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
)
const range = fc.option(
  fc.record({ page: fc.nat({ max: 3 }), count: fc.integer({ min: 1, max: 4 }) }),
  { nil: undefined },
)
const { tuple, constant, constantFrom } = fc

/** Commands, and how often each is drawn. */
export const callCommands: { weight: number; arbitrary: fc.Arbitrary<FuzzCommand> }[] = [
  { weight: 5, arbitrary: tuple(of, nth, constantFrom(0, 4)).map(a => share(...a)) },
  { weight: 2, arbitrary: tuple(of, nth).map(([o, n]) => map(o, n, 0, 0, PAGES, 3)) },
  { weight: 3, arbitrary: tuple(of, nth, iova, bound, count, access).map(a => map(...a)) },
  {
    weight: 1,
    arbitrary: tuple(of, nth, iova, constantFrom(11, 12), count, access).map(a => map(...a)),
  },
  {
    weight: 3,
    arbitrary: tuple(of, nth, iova, fc.integer({ min: 1, max: 16 })).map(a => unmap(...a)),
  },
  { weight: 4, arbitrary: tuple(of, nth, constant(1), constantFrom(5, 99)).map(a => alloc(...a)) },
  { weight: 1, arbitrary: tuple(of, nth, number, number).map(a => alloc(...a)) },
  { weight: 2, arbitrary: tuple(of, nth, number, number).map(a => free(...a)) },
  { weight: 7, arbitrary: tuple(of, nth, pasid, root, guest).map(a => bind(...a)) },
  { weight: 2, arbitrary: tuple(of, nth, pasid).map(a => unbind(...a)) },
  { weight: 3, arbitrary: constant(unmapUsed()) },
  { weight: 5, arbitrary: tuple(caches, fc.boolean()).map(a => invalidateUsed(...a)) },
  {
    weight: 6,
    arbitrary: tuple(constantFrom(0, 8, 9, 10, 11), fc.boolean()).map(a => editUsed(...a)),
  },
  { weight: 3, arbitrary: tuple(of, nth, pasid, caches, range).map(a => invalidate(...a)) },
  {
    weight: 4,
    arbitrary: tuple(
      of,
      constantFrom(3, 7),
      fc.nat({ max: 3 }),
      constantFrom(0, 8, 8, 9, 9, 10, 10, 11),
      fc.boolean(),
    ).map(a => edit(...a)),
  },
  {
    weight: 1,
    arbitrary: tuple(of, constantFrom<('rw' | 'ro' | 'none')[]>('rw', 'rw', 'ro', 'none')).map(a =>
      protect(...a),
    ),
  },
]
