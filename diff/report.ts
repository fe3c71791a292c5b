// A difference as text: what was asked, the memory it was asked of, what each answered, and how we got there.
import type { Architecture, OurAnswer } from './architectures.js'
import type { DmaOutcome, Outcome, Step } from './case.js'
import type { Difference } from './deviation.js'

const hex = (v: bigint | number): string => `0x${v.toString(16)}`

/** Everything one needs to look into a difference. */
export function report(arch: Architecture, d: Difference, ours: OurAnswer): string {
  const c = d.case
  const lines = [
    `${arch.name} case ${c.id}: unit ${c.unit}; ${c.about}`,
    `  set up: ${Object.entries(c.setup)
      .map(([k, v]) => `${k} ${hex(v)}`)
      .join(', ')}`,
    ...c.words.map(([at, v]) => `  ${hex(at)} = ${hex(v)}`),
  ]
  let n = 0
  for (const s of c.steps) {
    if (s.op !== 'dma') {
      lines.push(`  ${stepText(s)}`)
      continue
    }
    const [mine, theirs] = [d.all.ours.dma[n], d.all.qemu.dma[n]]
    const differs = n === d.index
    lines.push(`${differs ? '> ' : '  '}${stepText(s)}`)
    const [a, b] = [dmaText(mine), dmaText(theirs)]
    if (a === b) lines.push(`      both: ${a}`)
    else lines.push(`      ours: ${a}`, `      QEMU: ${b}`)
    const fault = ours.faults[n]
    if (fault) {
      lines.push(`      our fault: ${fault.name}: ${fault.meaning}`)
      for (const e of fault.entries)
        lines.push(
          `        ${e.kind}${e.level ? ` level ${e.level}` : ''} at ${hex(e.at)} = ${hex(BigInt.asUintN(64, e.value))}`,
        )
    }
    n++
  }
  if (d.index < 0) lines.push(...wordsText(d.all.ours, d.all.qemu))
  const walks = arch.story(c).map(l => `    ${l}`)
  return [...lines, ...(walks.length ? ['  our walks that led somewhere:', ...walks] : [])].join(
    '\n',
  )
}

/** A translation that one of our units traced. */
export function translationText(e: {
  readonly address: bigint
  readonly mode: string
  readonly output: bigint
  readonly cached: boolean
  readonly stages: readonly {
    readonly stage: string | number
    readonly input: bigint
    readonly output: bigint
    readonly pageBits: number
  }[]
}): string[] {
  const how = e.cached ? `${e.mode}, cached` : e.mode
  return [
    `${hex(BigInt.asUintN(64, e.address))}: ${how}, to ${hex(e.output)}`,
    ...e.stages.map(
      s =>
        `  stage ${s.stage}: ${hex(BigInt.asUintN(64, s.input))} to ${hex(s.output)}, 2^${s.pageBits} bytes`,
    ),
  ]
}

/** A difference in a few words, the same for differences of one kind. */
export function kindOf(d: Difference): string {
  const { unit } = d.case
  if (d.index < 0) return `${unit}: words left in memory`
  const text = ({ landed, faults }: DmaOutcome) => {
    const end = landed.some(at => at !== null && at < 0)
      ? 'landed elsewhere'
      : landed.includes(null)
        ? 'refused'
        : 'landed'
    const { reason, type, queueError } = faults[0] ?? {}
    return [
      end,
      ...(faults.length ? [queueError ? 'queue error' : hex(reason ?? type ?? 0)] : []),
    ].join(' ')
  }
  const [mine, theirs] = [text(d.ours), text(d.qemu)]
  const why = d.fault?.name
  return `${unit}: ours ${mine}${why ? ` (${why})` : ''}, QEMU ${theirs}`
}

function stepText(s: Step): string {
  switch (s.op) {
    case 'dma':
      return `${s.device} ${s.write ? 'writes' : 'reads'} ${s.length} bytes at ${hex(s.iova)}`
    case 'store':
      return `${hex(s.at)} becomes ${hex(s.value)}`
    case 'invalidate':
      return `invalidation ${hex(s.words[0])} ${hex(s.words[1])}`
    case 'register':
      return `register ${hex(s.offset)} becomes ${hex(s.value)}`
  }
}

function dmaText(d: DmaOutcome | undefined): string {
  if (!d) return 'nothing'
  const landed = d.landed.map(at => (at === null ? 'refused' : at < 0 ? 'elsewhere' : hex(at)))
  const faults = d.faults.map(f =>
    Object.entries(f)
      .map(([k, v]) => `${k} ${hex(v)}`)
      .join(' '),
  )
  return [landed.join(', '), ...faults].join(' | ')
}

function wordsText(ours: Outcome, qemu: Outcome): string[] {
  const text = (o: Outcome) => o.changed.map(([at, v]) => `${hex(at)} = ${hex(v)}`).join(', ')
  return [
    `> words left: ours ${text(ours) || 'as they were'}`,
    `              QEMU ${text(qemu) || 'as they were'}`,
  ]
}
