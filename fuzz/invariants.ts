// What must hold after every step, whatever was called: compared between the model's sets and what the product says
// it holds. Where deferred work may or may not have run, the product may be anywhere between the two.

import type { Page, State } from './model/state.js'
import { Disagreement, type Rig } from './rig.js'

function equal(what: string, real: number, model: number): void {
  if (real !== model) throw new Disagreement(`${what}: ${real}, where the model says ${model}`)
}

function between(what: string, real: number, low: number, high: number): void {
  if (real < low || real > high)
    throw new Disagreement(
      `${what}: ${real}, where the model says ${low === high ? low : `${low} to ${high}`}`,
    )
}

/** Throws a Disagreement when the product holds something else than the model. */
export function assertInvariants(s: State, rig: Rig): void {
  const { machine } = rig
  const holdings = machine.holdings()
  const drivers = [...s.containers].flatMap(c => (c.driver ? [c.driver] : []))
  const mappings = drivers.flatMap(d => d.mappings)
  equal('containers with a driver', holdings.containers, drivers.length)
  equal('DMA mappings', holdings.mappings, mappings.length)
  const pinned = mappings.reduce((n, m) => n + m.pages.length, 0)
  equal('pinned pages', holdings.pins, pinned)
  equal('open devices', holdings.devices, s.devices.filter(d => d.opens > 0).length)
  equal('PASID contexts', holdings.pasidContexts, s.contexts.size)
  for (const p of s.processes)
    if (p.alive) {
      const { memory } = rig.systems[p.id]!.process
      equal(`locked pages of process ${p.id}`, memory.lockedPages, p.locked)
    }
  assertPasids(s, rig, holdings.pasids)
  assertRequests(s, rig)
  for (const page of reachable(s)) equal('content of a page', rig.tag(page), page.tag)
}

function assertPasids(s: State, rig: Rig, real: number): void {
  const all = [...s.pasids.values()]
  const sure = all.filter(p => !p.pending)
  between('PASIDs held', real, sure.length, all.length)
  const bindings = (of: typeof all) => of.reduce((n, p) => n + p.bindings.size, 0)
  between('bindings', rig.machine.iommu.bindingCount, bindings(sure), bindings(all))
  for (const p of sure) {
    const { owner, state } = {
      owner: rig.machine.ioasid.owner(p.id)?.token,
      state: rig.machine.ioasid.state(p.id),
    }
    if (owner !== rig.systems[p.context.process.id]!.process.mm)
      throw new Disagreement(`PASID ${p.id} does not belong to its owner`)
    const expected = p.bindings.size > 0 ? 'ACTIVE' : 'IDLE'
    if (state !== expected) throw new Disagreement(`PASID ${p.id} is ${state}, not ${expected}`)
  }
}

function assertRequests(s: State, rig: Rig): void {
  const all = s.devices.flatMap(d => d.requests)
  const sure = all.filter(r => r.state === 'waiting' && !r.disturbed).length
  const most = all.filter(r => r.state !== 'over').length
  between('page requests that wait', rig.machine.iommu.pendingPageRequests(), sure, most)
}

/** Pages that a process or a mapping still holds. */
function reachable(s: State): Set<Page> {
  const pages = new Set<Page>()
  for (const p of s.processes)
    if (p.alive && p.protection !== 'none') for (const page of p.pages) pages.add(page)
  for (const c of s.containers)
    for (const m of c.driver?.mappings ?? []) for (const page of m.pages) pages.add(page)
  return pages
}
