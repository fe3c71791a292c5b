// The rules of DMA: where an address leads, and which staleness is legal. A change of a guest's table that was not
// followed by an invalidation may show or not; a change by an ioctl shows at once.

import {
  type Container,
  type Device,
  ENTRY,
  GUEST_PAGE,
  type Page,
  type State,
  type Translation,
  type Used,
} from './state.js'

/** A request's fate: the pages it may move, and whether it may be refused. */
export interface Fate {
  readonly pages: readonly Page[]
  readonly refused: boolean
}

const NEVER: Fate = { pages: [], refused: true }

/** What may become of a request of one device. `pasid` undefined: without prefix. */
export function fate(
  s: State,
  d: Device,
  pasid: number | undefined,
  page: number,
  write: boolean,
): Fate {
  const container = d.group.container
  if (!d.master || !container?.driver) return NEVER
  const need = write ? 2 : 1
  const current = translate(s, d, container, pasid, page)
  if (pasid === undefined) return current && current.access & need ? sure(current) : NEVER
  const p = s.pasids.get(pasid)
  const binding = p?.bindings.get(d)
  if (binding === undefined || p === undefined) return NEVER
  const possible = current ? [current] : []
  let refused = p.pending || current === undefined || !(current.access & need)
  for (const old of s.remembered.get(container)?.get(`${pasid}/${page}`) ?? []) {
    if (!(old.access & need)) refused = true
    possible.push(old)
  }
  const pages = new Set(possible.filter(t => t.access & need).map(t => t.page))
  return { pages: [...pages], refused }
}

/** Keeps what a request may have left in a cache: a walk that ended at a page, used or not. */
export function remember(s: State, d: Device, pasid: number | undefined, page: number): void {
  const container = d.group.container
  if (pasid === undefined || !d.master || !container?.driver) return
  const t = translate(s, d, container, pasid, page)
  if (t === undefined) return
  let of = s.remembered.get(container)
  if (of === undefined) s.remembered.set(container, (of = new Map()))
  const key = `${pasid}/${page}`
  const known = of.get(key) ?? []
  if (!known.some(k => k.page === t.page && k.access === t.access)) of.set(key, [...known, t])
}

/** Where an address leads now; undefined when nowhere. */
function translate(
  s: State,
  d: Device,
  c: Container,
  pasid: number | undefined,
  page: number,
): Translation | undefined {
  if (pasid === undefined) return second(c, page)
  const binding = s.pasids.get(pasid)?.bindings.get(d)
  return binding && first(c, binding.root, page)
}

/** The page of table whose last-level entry an address uses under a PASID; undefined when there is none. */
export function leafTable(s: State, { device, pasid }: Used): Page | undefined {
  const container = device.group.container
  const binding = pasid === undefined ? undefined : s.pasids.get(pasid)?.bindings.get(device)
  if (!container?.driver || binding === undefined) return undefined
  let frame = binding.root
  for (let level = 0; level < 3; level++) {
    const entry = second(container, frame)?.page.entries.get(0) ?? 0
    if (entry === 0) return undefined
    frame = Math.floor(entry / ENTRY.FRAME)
  }
  return second(container, frame)?.page
}

/** Second stage: the container's mappings. */
function second(c: Container, frame: number): Translation | undefined {
  const m = c.driver!.mappings.find(x => frame >= x.iova && frame < x.iova + x.pages.length)
  return m && { page: m.pages[frame - m.iova]!, access: m.access }
}

/** First stage: four levels, whose upper three are only ever used at their first entry. */
function first(c: Container, root: number, page: number): Translation | undefined {
  let access = 3
  let frame = root
  for (const index of [0, 0, 0, GUEST_PAGE + page]) {
    const table = second(c, frame)
    if (table === undefined || !(table.access & 1)) return undefined
    const entry = table.page.entries.get(index) ?? 0
    if (entry === 0) return undefined
    if (!(entry & ENTRY.WRITE)) access = 1
    frame = Math.floor(entry / ENTRY.FRAME)
  }
  const end = second(c, frame)
  return end && { page: end.page, access: end.access & access }
}

const sure = (t: Translation): Fate => ({ pages: [t.page], refused: false })
