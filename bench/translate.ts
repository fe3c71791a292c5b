// Translation with every cache warm, and a nested walk with no cache at all.

import {
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../src/iommu/vtd/tables.js'
import { vtdFirstStage, vtdSecondStage } from '../src/paging/formats-vtd.js'
import { createNestedWalker } from '../src/paging/nested.js'
import { ACCESS_READ, ACCESS_USER, Walk } from '../src/paging/walk.js'
import { MemoryRequest, Translation } from '../src/pci/request.js'
import { nanoseconds, type Row } from './harness.js'
import { GVA_HI, GVA_LO, type NestedHost, nestedHost, PAGES } from './nested-host.js'

/** Memory reads of a hit: tag words, address words, permission, and the memo in front. */
const HIT_READS = 8
/** Entries of a 4-level walk through a 4-level stage: 4 x (4 + 1) + 4. */
const WALK_READS = 24

/** A loop that reads `reads` 32-bit words of a table for each repetition: what the bare memory costs. */
export function bareReads(reads: number): (n: number) => void {
  const words = new Int32Array(1 << 14).map((_, i) => i * 2654435761)
  return n => {
    let sum = 0
    for (let i = 0; i < n; i++)
      for (let r = 0; r < reads; r++) sum += words[(i * 97 + r * 8) & 0x3fff]!
    sink(sum)
  }
}

/** Keeps a result alive, so that the loop that made it is not optimised away. */
function sink(v: number): void {
  if (v === 0.5) throw new Error('an integer sum is no half')
}

export function translateRows(): Row[] {
  const host = nestedHost()
  const { unit } = host.machine
  const request = new MemoryRequest()
  request.requester = host.function.bdf
  request.pasid = host.pasid
  request.hi = GVA_HI
  request.length = 64
  const answer = new Translation()
  const hit = (n: number) => {
    for (let i = 0; i < n; i++) {
      request.lo = (GVA_LO + ((i * 37) & (PAGES - 1)) * 4096) | 0
      unit.translate(request, answer)
      if (answer.status !== 0) throw new Error(`translation refused: ${answer.status}`)
    }
  }

  const roots = rootsOf(host)
  const walk = createNestedWalker(
    vtdFirstStage({ levels: 4 }),
    vtdSecondStage({ levels: 4 }),
    host.machine.memory,
  )
  const w = new Walk()
  const miss = (n: number) => {
    for (let i = 0; i < n; i++) {
      const lo = (GVA_LO + ((i * 37) & (PAGES - 1)) * 4096) | 0
      if (!walk(roots.first, roots.second, GVA_HI, lo, ACCESS_READ | ACCESS_USER, w))
        throw new Error(`walk failed: ${w.failure}`)
    }
  }
  miss(PAGES)
  return [
    nanoseconds({
      id: 'translate-hit',
      what: `translation of a nested, PASID-tagged request, ${PAGES} pages warm in the IOTLB`,
      body: hit,
      baseline: bareReads(HIT_READS),
      target: 15,
    }),
    nanoseconds({
      id: 'walk-nested',
      what: 'nested walk, 4-level through 4-level, 4 KiB pages, no caches',
      body: miss,
      baseline: bareReads(WALK_READS),
      target: 150,
    }),
  ]
}

/** Roots of both stages, read from the unit's own tables in memory. */
function rootsOf({ machine, function: fn, pasid }: NestedHost): { first: number; second: number } {
  const { memory, unit } = machine
  const root = SM_ROOT_ENTRY.create()
  memory.read(unit.rootTable + (fn.bdf >> 8) * 16, root.bytes)
  const context = SM_CONTEXT_ENTRY.create()
  memory.read(root.LCTP + (fn.bdf & 127) * 32, context.bytes)
  const directory = PASID_DIRECTORY_ENTRY.create()
  memory.read(context.PASIDDIRPTR + (pasid >> 6) * 8, directory.bytes)
  const entry = PASID_ENTRY.create()
  memory.read(directory.SMPTBLPTR + (pasid & 63) * 64, entry.bytes)
  return { first: entry.FSPTPTR, second: entry.SSPTPTR }
}
