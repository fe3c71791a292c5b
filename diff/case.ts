// What is asked and what is answered. A case is complete: tables as words of memory, then steps. Both
// subjects (QEMU, our unit) run the same case; outcomes are plain values that can be compared and kept.

/** Who makes a DMA. `upper` is a device whose number is 16 or more, and so in the upper half of a bus. */
export type Device = 'testdev' | 'upper' | 'edu'

/** One step of a case. */
export type Step =
  /** A DMA: writes of the pattern 0x12345678, or reads (edu). */
  | {
      readonly op: 'dma'
      readonly device: Device
      readonly write: boolean
      readonly iova: bigint
      readonly length: number
    }
  /** Software changes a word of memory. */
  | { readonly op: 'store'; readonly at: number; readonly value: bigint }
  /** Software queues one invalidation descriptor or command. */
  | { readonly op: 'invalidate'; readonly words: readonly [bigint, bigint] }
  /** Software writes a 64-bit register. */
  | { readonly op: 'register'; readonly offset: number; readonly value: bigint }

export interface Case {
  /** `seed/index`. */
  readonly id: string
  /** Which configuration of the IOMMU. */
  readonly unit: string
  /** What the generator meant it to be about: for people. */
  readonly about: string
  /** Values of the registers that find the tables, by name. */
  readonly setup: Readonly<Record<string, bigint>>
  /** Words of memory; everything else is zero. */
  readonly words: readonly (readonly [at: number, value: bigint])[]
  readonly steps: readonly Step[]
  /** Pages that a DMA may land in. */
  readonly pages: readonly number[]
}

/** A fault record or event, field by field; one that is not there is zero. */
export type FaultRecord = Readonly<Record<string, number | bigint>>

/** What became of one DMA. */
export interface DmaOutcome {
  /** For each page piece of it: the physical address where it landed, null for nowhere, -1 for somewhere else. */
  readonly landed: readonly (number | null)[]
  readonly faults: readonly FaultRecord[]
}

/** What became of a case. */
export interface Outcome {
  readonly dma: readonly DmaOutcome[]
  /** Words that are not as software wrote them: accessed and dirty flags. */
  readonly changed: readonly (readonly [at: number, value: bigint])[]
}

/** The words of a case as software leaves them. */
export function wordsAfter(c: Case): Map<number, bigint> {
  const words = new Map(c.words)
  for (const s of c.steps) if (s.op === 'store') words.set(s.at, s.value)
  return words
}

/** The pieces of a DMA: it is split at 4 KiB boundaries. */
export function piecesOf(iova: bigint, length: number): { iova: bigint; length: number }[] {
  const pieces = []
  for (let done = 0; done < length; ) {
    const at = BigInt.asUintN(64, iova + BigInt(done))
    const n = Math.min(length - done, 4096 - Number(at & 0xfffn))
    pieces.push({ iova: at, length: n })
    done += n
  }
  return pieces
}

/** Something that runs cases. */
export interface Subject {
  /** `hints`: more addresses where DMAs may land. */
  run(c: Case, hints: readonly number[]): Promise<Outcome>
  close(): Promise<void>
}

const h = (v: bigint | number): string => v.toString(16)

/** A case and an outcome as one line of text. */
export function encode(c: Case, o: Outcome): string {
  const steps = c.steps.map(s =>
    s.op === 'dma'
      ? `${s.write ? 'w' : 'r'} ${s.device} ${h(s.iova)} ${h(s.length)}`
      : s.op === 'store'
        ? `= ${h(s.at)} ${h(s.value)}`
        : s.op === 'invalidate'
          ? `i ${h(s.words[0])} ${h(s.words[1])}`
          : `m ${h(s.offset)} ${h(s.value)}`,
  )
  const dma = o.dma.map(d => [
    d.landed.map(at => (at === null ? '-' : at < 0 ? '?' : h(at))).join(' '),
    ...d.faults.map(f =>
      Object.entries(f)
        .filter(([, v]) => BigInt(v) !== 0n)
        .map(([k, v]) => `${k}=${h(v)}`)
        .join(' '),
    ),
  ])
  const words = (list: Case['words']) => list.map(([at, v]) => `${h(at)} ${h(v)}`).join(',')
  const setup = Object.fromEntries(Object.entries(c.setup).map(([k, v]) => [k, h(v)]))
  return JSON.stringify({
    id: c.id,
    unit: c.unit,
    about: c.about,
    setup,
    words: words(c.words),
    steps,
    dma,
    ...(o.changed.length && { changed: words(o.changed) }),
  })
}

interface Encoded {
  readonly id: string
  readonly unit: string
  readonly about: string
  readonly setup: Readonly<Record<string, string>>
  readonly words: string
  readonly steps: readonly string[]
  readonly dma: readonly (readonly string[])[]
  readonly changed?: string
}

/** What `encode` wrote. */
export function decode(line: string): { case: Case; outcome: Outcome } {
  const e = JSON.parse(line) as Encoded
  const n = (text: string | undefined) => BigInt(`0x${text}`)
  const words = (text: string | undefined): [number, bigint][] =>
    (text ?? '')
      .split(',')
      .filter(Boolean)
      .map(w => w.split(' '))
      .map(([at, v]) => [Number(n(at)), n(v)])
  const steps = e.steps.map((text): Step => {
    const [op, a, b, c] = text.split(' ')
    if (op === '=') return { op: 'store', at: Number(n(a)), value: n(b) }
    if (op === 'i') return { op: 'invalidate', words: [n(a), n(b)] }
    if (op === 'm') return { op: 'register', offset: Number(n(a)), value: n(b) }
    return { op: 'dma', device: a as Device, write: op === 'w', iova: n(b), length: Number(n(c)) }
  })
  const dma = e.dma.map(
    ([landed, ...faults]): DmaOutcome => ({
      landed: landed!.split(' ').map(at => (at === '-' ? null : at === '?' ? -1 : Number(n(at)))),
      faults: faults.map(f =>
        Object.fromEntries(
          f
            .split(' ')
            .filter(Boolean)
            .map(kv => [kv.split('=')[0]!, n(kv.split('=')[1])]),
        ),
      ),
    }),
  )
  const setup = Object.fromEntries(Object.entries(e.setup).map(([k, v]) => [k, n(v)]))
  return {
    case: {
      id: e.id,
      unit: e.unit,
      about: e.about,
      setup,
      words: words(e.words),
      steps,
      pages: [],
    },
    outcome: { dma, changed: words(e.changed) },
  }
}
