// Root, context and PASID structures of random VT-d cases.
import type { Plan } from './generate.js'
import { REQUESTERS, UNITS } from './units.js'

/** Nothing is there: neither memory nor a device. */
const HOLE = 0x8000_0000n

/** Legacy mode: a root table and a context entry. */
export function drawLegacy(p: Plan, table: number, aw: number): void {
  const { draw, width } = p
  const requester = REQUESTERS[p.device]
  const root = p.alloc()
  const contexts = p.alloc()
  p.root = root
  const at = contexts + requester * 16
  let rootLow = BigInt(contexts) | 1n
  let rootHigh = 0n
  let lo = BigInt(table) | 1n
  let hi = BigInt(aw) | (BigInt(p.did) << 8n)
  if (draw.oneIn(3)) hi |= draw.bits(4) << 3n
  const tt = draw.weighted([
    [8, 0],
    [1, 1],
    [1, 2],
    [draw.oneIn(4) ? 1 : 0, 3],
  ])
  if (tt !== 0) p.about.push(`TT ${tt}`)
  lo |= BigInt(tt) << 2n
  if (draw.oneIn(6)) lo |= 2n
  if (draw.oneIn(6)) {
    const flaw = draw.pick([
      'rtaddr',
      'rootAbsent',
      'rootLow',
      'rootHigh',
      'rootWide',
      'rootHole',
      'absent',
      'aw',
      'low',
      'high',
      'wide',
      'hole',
    ] as const)
    p.about.push(`context: ${flaw}`)
    if (flaw === 'rtaddr') p.root = Number(HOLE)
    else if (flaw === 'rootAbsent') rootLow &= ~1n
    else if (flaw === 'rootLow') rootLow |= draw.bitOf(0xffen)
    else if (flaw === 'rootHigh') rootHigh = 1n << BigInt(draw.below(64))
    else if (flaw === 'rootWide') rootLow |= 1n << BigInt(width + draw.below(64 - width))
    else if (flaw === 'rootHole') rootLow = HOLE | 1n
    else if (flaw === 'absent') lo &= ~1n
    else if (flaw === 'aw') hi = (hi & ~7n) | BigInt(draw.pick([0, 1, 3, 4, 5, 6, 7]))
    else if (flaw === 'low') lo |= draw.bitOf(0xff0n)
    else if (flaw === 'high') hi |= draw.bitOf(0xffff_ffff_ff00_0080n)
    else if (flaw === 'wide') lo |= 1n << BigInt(width + draw.below(64 - width))
    else lo = (lo & 0xfffn) | HOLE
  }
  p.set(root, rootLow)
  p.set(root + 8, rootHigh)
  p.set(at, lo)
  p.set(at + 8, hi)
  p.structures.push(root, at, at, at + 8)
}

/** Scalable mode: root table, context entry, PASID directory, PASID entry. */
export function drawScalable(p: Plan, table: number, aw: number): void {
  const { draw, width, stage } = p
  const { config } = UNITS[p.unit]!
  const requester = REQUESTERS[p.device]
  const [root, contexts, directory, pasids] = [p.alloc(), p.alloc(), p.alloc(), p.alloc()]
  p.root = root | 0x400
  const rootAt = root + (requester & 0x80 ? 8 : 0)
  const at = contexts + (requester & 0x7f) * 32
  let rootEntry = BigInt(contexts) | 1n
  const context = [BigInt(directory) | 1n | (BigInt(draw.below(8)) << 9n), 0n, 0n, 0n]
  if (draw.oneIn(8)) context[0]! |= 2n
  if (config.deviceTlb && draw.oneIn(2)) context[0]! |= draw.oneIn(2) ? 4n : 0x14n
  if (config.pasidBits && draw.oneIn(2)) context[0]! |= 8n
  let entry = BigInt(pasids) | 1n
  if (draw.oneIn(10)) entry |= 2n
  const first = stage === 'first'
  const pasid = [
    (first ? 0n : BigInt(table)) | 1n | (BigInt(aw) << 2n) | ((first ? 1n : 2n) << 6n),
    BigInt(p.did),
    first ? BigInt(table) : 0n,
    ...[0n, 0n, 0n, 0n, 0n],
  ]
  if (draw.oneIn(8)) pasid[0]! |= 2n
  if (first && draw.oneIn(3)) pasid[2]! |= 1n << 5n
  if (draw.oneIn(10)) {
    // Types the unit has or has not.
    const pgtt = draw.below(8)
    pasid[0] = (pasid[0]! & ~(7n << 6n)) | (BigInt(pgtt) << 6n)
    p.about.push(`PGTT ${pgtt}`)
  }
  if (draw.oneIn(5)) {
    const flaw = draw.pick([
      'rtaddr',
      'rootAbsent',
      'rootLow',
      'rootWide',
      'rootHole',
      'absent',
      'context',
      'rid',
      'contextWide',
      'contextHole',
      'directoryAbsent',
      'directoryLow',
      'directoryWide',
      'directoryHole',
      'pasidAbsent',
      'pasidAbsent',
      'aw',
      'fspm',
      'pasidLow',
      'attributes',
      'flags',
      'rest',
      'pasidWide',
      'tableWide',
      'tableHole',
    ] as const)
    p.about.push(`structures: ${flaw}`)
    const wide = () => 1n << BigInt(width + draw.below(64 - width))
    switch (flaw) {
      case 'rtaddr':
        p.root = Number(HOLE) + 0x400
        break
      case 'rootAbsent':
        rootEntry &= ~1n
        break
      case 'rootLow':
        rootEntry |= draw.bitOf(0xffen)
        break
      case 'rootWide':
        rootEntry |= wide()
        break
      case 'rootHole':
        rootEntry = HOLE | 1n
        break
      case 'absent':
        context[0]! &= ~1n
        break
      case 'context':
        context[0]! |= draw.bitOf(0x1fcn)
        break
      case 'rid':
        context[1]! |= 1n << BigInt(draw.below(64))
        break
      case 'contextWide':
        context[0]! |= wide()
        break
      case 'contextHole':
        context[0] = (context[0]! & 0xfffn) | HOLE
        break
      case 'directoryAbsent':
        entry &= ~1n
        break
      case 'directoryLow':
        entry |= draw.bitOf(0xffcn)
        break
      case 'directoryWide':
        entry |= wide()
        break
      case 'directoryHole':
        entry = HOLE | 1n
        break
      case 'pasidAbsent':
        pasid[0]! &= ~1n
        break
      case 'aw':
        pasid[0] = (pasid[0]! & ~0x1cn) | (BigInt(draw.pick([0, 1, 3, 4, 5, 6, 7])) << 2n)
        break
      case 'fspm':
        pasid[2]! |= BigInt(1 + draw.below(3)) << 2n
        break
      case 'pasidLow':
        pasid[0]! |= draw.bitOf(0xe20n)
        break
      case 'attributes':
        pasid[1]! |= draw.bitOf(0xffff_ffff_ffff_0000n)
        break
      case 'flags':
        pasid[2]! |= draw.bitOf(0xfd3n)
        break
      case 'rest':
        pasid[3 + draw.below(5)] = draw.bits(64)
        break
      case 'pasidWide':
        pasid[0]! |= wide()
        break
      case 'tableWide':
        pasid[first ? 2 : 0]! |= wide()
        break
      default:
        pasid[first ? 2 : 0] = (pasid[first ? 2 : 0]! & 0xfffn) | HOLE
    }
  }
  p.set(rootAt, rootEntry)
  for (const [i, word] of context.entries()) p.set(at + i * 8, word)
  p.set(directory, entry)
  for (const [i, word] of pasid.entries()) p.set(pasids + i * 8, word)
  p.structures.push(at, directory, pasids, first ? pasids + 16 : pasids, pasids + 8)
}
