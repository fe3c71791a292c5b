// The rules of DMA mappings, PASIDs, bindings and invalidations.

import { forget, free, NESTING, TYPE1, unbind } from './files.js'
import { type Allowed, OK } from './outcome.js'
import {
  CAPACITY,
  type Container,
  type Context,
  type Device,
  ENTRY_LIMIT,
  type Mapping,
  MEMLOCK,
  PAGES,
  PASID_LIMIT,
  type Pasid,
  type Process,
  QUOTA,
  type State,
} from './state.js'

/** First and last page of the interrupt messages' range: never in a valid IOVA range. */
const MESSAGES = [0xfee00, 0xfeeff] as const

// ---- mappings ----

/** MAP_DMA of `pages` pages of the caller from page `at` on. */
export function mayMap(
  c: Container,
  by: Process,
  iova: number,
  at: number,
  pages: number,
  access: number,
): Allowed {
  const driver = c.driver
  if (driver === undefined) return ['EINVAL']
  const last = iova + pages - 1
  if (driver.mappings.some(m => iova < m.iova + m.pages.length && m.iova <= last)) return ['EEXIST']
  if (driver.mappings.length >= ENTRY_LIMIT) return ['ENOSPC']
  if (iova <= MESSAGES[1] && last >= MESSAGES[0]) return ['EINVAL']
  const present = Math.max(0, Math.min(pages, PAGES - at))
  if (by.protection === 'none' || present === 0) return ['EFAULT']
  if (by.protection === 'ro' && access & 2) return ['EFAULT']
  if (by.locked + present > MEMLOCK) return ['ENOMEM']
  return present < pages ? ['EFAULT'] : OK
}

export function map(
  c: Container,
  by: Process,
  iova: number,
  at: number,
  pages: number,
  access: number,
): void {
  const mapping: Mapping = { iova, owner: by, pages: by.pages.slice(at, at + pages), access }
  c.driver!.mappings = [...c.driver!.mappings, mapping].sort((a, b) => a.iova - b.iova)
  by.locked += pages
}

const overlapping = (c: Container, iova: number, pages: number): Mapping[] =>
  c.driver!.mappings.filter(m => iova < m.iova + m.pages.length && m.iova < iova + pages)

/** UNMAP_DMA: types but the first refuse to cut a mapping. */
export function mayUnmap(c: Container, iova: number, pages: number): Allowed {
  if (c.driver === undefined) return ['EINVAL']
  const end = iova + pages
  const cut = overlapping(c, iova, pages).some(m => m.iova < iova || m.iova + m.pages.length > end)
  return cut && c.driver.type !== TYPE1 ? ['EINVAL'] : OK
}

/** Removes what the call removes, and answers how many pages that is. */
export function unmap(s: State, c: Container, by: Process, iova: number, pages: number): number {
  let removed = 0
  for (const m of overlapping(c, iova, pages)) {
    // A mapping of another process, or one that begins before the range, ends the call.
    if (m.owner !== by || m.iova < iova) break
    c.driver!.mappings = c.driver!.mappings.filter(other => other !== m)
    m.owner.locked -= m.pages.length
    removed += m.pages.length
  }
  if (removed > 0) s.remembered.delete(c)
  return removed
}

// ---- PASIDs ----

const held = (s: State, c: Context): Pasid[] => [...s.pasids.values()].filter(p => p.context === c)

/** ALLOC in [min, max]: the PASIDs it may answer, and the refusals. */
export function mayAlloc(s: State, c: Container, min: number, max: number): Allowed {
  if (c.driver === undefined) return ['EINVAL']
  if (min > max) return ['EINVAL']
  const context = c.driver.context
  if (context === undefined) return ['EOPNOTSUPP']
  const mine = held(s, context)
  const sure = mine.filter(p => !p.pending).length
  if (sure >= QUOTA) return ['ENOSPC']
  const answers: string[] = mine.length >= QUOTA ? ['ENOSPC'] : []
  for (let id = Math.max(min, 1); id <= Math.min(max, CAPACITY - 1); id++) {
    const p = s.pasids.get(id)
    if (p === undefined || p.pending) answers.push(String(id))
    // Beyond the first that is surely free nothing can be the lowest.
    if (p === undefined) return answers
  }
  return [...answers, 'ENOSPC']
}

export function alloc(s: State, c: Container, id: number): void {
  const context = c.driver!.context!
  const before = s.pasids.get(id)
  if (before) for (const d of [...before.bindings.keys()]) unbind(s, before, d)
  s.pasids.set(id, { id, context, pending: false, guest: undefined, bindings: new Map() })
}

export function mayFree(c: Container, min: number, max: number): Allowed {
  if (c.driver === undefined || min > max) return ['EINVAL']
  return c.driver.context === undefined ? ['EOPNOTSUPP'] : OK
}

export function freeRange(s: State, c: Container, min: number, max: number): void {
  for (const p of held(s, c.driver!.context!))
    if (p.id >= min && p.id <= max && !p.pending) free(s, p)
}

/** Deferred work has run: what was freed while bound is unbound and gone. */
export function settle(s: State): void {
  for (const p of [...s.pasids.values()])
    if (p.pending) for (const d of [...p.bindings.keys()]) unbind(s, p, d)
}

// ---- bindings ----

/** BIND of a guest's table; `guest` is the PASID the guest knows it by. */
export function mayBind(s: State, c: Container, id: number, guest: number | undefined): Allowed {
  const refused = nests(c)
  if (refused) return refused
  const answers: string[] = []
  for (const d of c.groups[0]!.devices) {
    const one = mayBindOn(s, c, d, id, guest)
    if (!one.includes('ok')) return [...answers, ...one]
    answers.push(...one.filter(a => a !== 'ok'))
  }
  return [...answers, 'ok']
}

function mayBindOn(
  s: State,
  c: Container,
  d: Device,
  id: number,
  guest: number | undefined,
): Allowed {
  if (d.facts.pasidWidth !== 20) return ['EINVAL']
  if (id === 0 || id >= PASID_LIMIT) return ['EINVAL']
  const p = s.pasids.get(id)
  if (p === undefined || p.pending) return ['ENOENT']
  if (p.context !== c.driver!.context) return ['EACCES']
  if (p.bindings.has(d)) return ['EBUSY']
  if (guest === undefined) return OK
  if (p.guest !== undefined && p.guest !== guest) return ['EINVAL']
  const taken = held(s, p.context).find(other => other !== p && other.guest === guest)
  if (taken === undefined) return OK
  return taken.pending ? ['EINVAL', 'ok'] : ['EINVAL']
}

export function bind(
  s: State,
  c: Container,
  id: number,
  root: number,
  guest: number | undefined,
): void {
  const p = s.pasids.get(id)!
  if (guest !== undefined) p.guest = guest
  for (const d of c.groups[0]!.devices)
    p.bindings.set(d, { container: c, root, named: guest !== undefined })
}

/** UNBIND and CACHE_INVLD tell nothing of what came of them. */
export const nests = (c: Container): Allowed | undefined => {
  if (c.driver === undefined) return ['EINVAL']
  return c.driver.type === NESTING ? undefined : ['EOPNOTSUPP']
}

export function unbindAll(s: State, c: Container, id: number): void {
  const p = mine(s, c, id)
  if (p) for (const d of c.groups[0]!.devices) unbind(s, p, d)
}

/** Invalidates translations of a bound PASID: all, or of `count` pages from `page` on. */
export function invalidate(
  s: State,
  c: Container,
  id: number,
  range: { readonly page: number; readonly count: number } | undefined,
): void {
  const p = mine(s, c, id)
  if (p === undefined || !c.groups[0]!.devices.some(d => p.bindings.has(d))) return
  if (range === undefined) forget(s, c, id)
  else for (let i = 0; i < range.count; i++) forget(s, c, id, range.page + i)
}

const mine = (s: State, c: Container, id: number): Pasid | undefined => {
  const p = s.pasids.get(id)
  return p !== undefined && !p.pending && p.context === c.driver!.context ? p : undefined
}
