// Random streams and tables of every kind: the unit against a plain reference, outcome, record and flags left in
// memory; 20,000 accesses in every run, 200,000 in a long one.
import { describe, expect, it } from 'vitest'
import { often, PATIENCE } from '../../support/long.js'
import { Bench, command, SID, TLBI } from './bench.js'
import { type Random, random } from './random.js'
import { AREA, Case, type Subject } from './random-tables.js'
import { type Access, type Outcome, reference, type Words } from './reference.js'

const SEED = 0x5e11
const ACCESSES = often(20_000, 200_000)
/** Accesses through one set of tables. */
const PER_CASE = 20
/** RAM that a 48-bit address does not reach. */
const HIGH = 0x5_0000_4000_0000
const RAM = 16 << 20

function plain(): Subject {
  const b = new Bench({ ramBytes: RAM }).start({ cr2: 2 })
  return { b, ram: b.ram.bytes, base: 0, wide: false }
}

function wide(): Subject {
  const b = new Bench({ config: { outputAddressBits: 52 } }).start({ cr2: 2 })
  const ram = new Uint8Array(RAM)
  b.memory.addRam(HIGH, ram)
  return { b, ram, base: HIGH, wide: true }
}

interface Request {
  readonly substream: number
  readonly va: bigint
  readonly access: Access
}

function draw(r: Random, c: Case): Request {
  const substream = r.chance(c.stream.s1CdMax > 0 ? 0.6 : 0.05)
    ? r.chance(0.9)
      ? r.pick(c.substreams)
      : r.below(300)
    : -1
  const write = r.chance(0.4)
  // Without overrides a request is what its PASID prefix says.
  const tagged = substream >= 0
  return {
    substream,
    va: c.pickAddress(),
    access: {
      write,
      execute: !write && (c.fetches || (tagged && r.chance(0.2))),
      privileged: c.privileged || (tagged && r.chance(0.3)),
    },
  }
}

describe('the unit agrees with the reference on random streams', () => {
  it.each([
    ['48-bit addresses, all granules', 0.8, plain],
    ['52-bit addresses', 0.2, wide],
  ] as const)(
    `%s, seed 0x${SEED.toString(16)}: %f of ${ACCESSES} accesses`,
    (_, part, make) => {
      const r = random(SEED)
      const subject = make()
      const { b } = subject
      const tally: Record<string, number> = {}
      const all = Math.ceil((ACCESSES * part) / PER_CASE)
      for (let i = 0; i < all; i++) {
        const c = new Case(r, subject)
        expect(c.next).toBeLessThanOrEqual(subject.base + 0x80_0000)
        b.submit(command.cfgiAll())
        for (let n = 0; n < PER_CASE; n++) {
          // Tables do not change but for flags, so that caches may answer, or not.
          if (n === 0 || r.chance(0.25))
            b.submit(command.tlbi(TLBI.NSNH_ALL), command.tlbi(TLBI.EL2_ALL))
          const q = draw(r, c)
          const expected = predict(c, subject, q)
          const got = ask(b, q)
          if (got !== expected.text) {
            const label = `case ${i} access ${n}: ${q.substream} 0x${q.va.toString(16)} ${JSON.stringify(q.access)}`
            expect(`${label} → ${got}`).toBe(`${label} → ${expected.text}`)
          }
          for (const [at, value] of expected.written)
            if (!c.isRun(Number(at)) && b.load(Number(at)) !== value)
              expect.fail(`case ${i} access ${n}: flags of 0x${at.toString(16)}`)
          const key = got.split(' ')[0]!.replace(/^0x.*/, 'ok')
          tally[key] = (tally[key] ?? 0) + 1
        }
        subject.ram.fill(0, AREA, c.next - subject.base)
      }
      // Every outcome was met often enough to mean something.
      const names = [
        'F_TRANSLATION',
        'F_ADDR_SIZE',
        'F_ACCESS',
        'F_PERMISSION',
        'F_STREAM_DISABLED',
      ]
      for (const name of ['ok', 'C_BAD_SUBSTREAMID', 'C_BAD_CD', ...names])
        expect(tally[name], JSON.stringify(tally)).toBeGreaterThan(15)
    },
    PATIENCE,
  )
})

/** What the reference says, and which descriptors it changed; the memory stays as it was. */
function predict(c: Case, { b, base }: Subject, { substream, va, access }: Request) {
  const written = new Map<bigint, bigint>()
  // A wide unit's bench has RAM at 0 too.
  const isRam = (at: bigint) => [0, base].some(from => at >= from && at < from + RAM)
  const memory: Words = {
    read: at => (isRam(at) ? (written.get(at) ?? b.load(Number(at))) : undefined),
    write: (at, value) => written.set(at, value) !== undefined,
  }
  return { text: print(reference(c.stream, substream, va, access, memory)), written }
}

const print = (o: Outcome): string => {
  if ('output' in o) return `0x${o.output.toString(16)}`
  return 'stage' in o
    ? `${o.event} stage ${o.stage} class ${o.class} ipa 0x${o.ipa.toString(16)}`
    : o.event
}

function ask(b: Bench, { substream, va, access }: Request): string {
  b.faults.length = 0
  const tag = substream >= 0 ? { pasid: substream, ...access } : { write: access.write }
  const got = b.dma(va, { ...tag, requester: SID })
  b.consume()
  if (typeof got === 'number') return `0x${got.toString(16)}`
  const f = b.faults[0]!
  if (!f.name.startsWith('F_') || f.name === 'F_STREAM_DISABLED') return f.name
  return `${f.name} stage ${f.stage} class ${f.class} ipa 0x${(f.ipa - (f.ipa % 4096)).toString(16)}`
}
