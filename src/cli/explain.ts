// `vfio-emu explain`: faults in words. From a trace that `run --trace` wrote, from a fault reason or event, or
// from a record that a real machine's log shows.

import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import {
  type Explainable,
  type Explanation,
  explainSmmuEvent,
  explainSmmuRecord,
  explainVtdReason,
  explainVtdRecord,
  explanation,
  explanationText,
  RecordError,
} from '../explain/index.js'
import { EVENTS, type EventName, eventName } from '../iommu/smmu/events.js'
import { FAULT_REASONS, type FaultName, faultName } from '../iommu/vtd/fault-reasons.js'
import { toJson, UsageError } from './output.js'
import { readTrace, type TracedEvent } from './trace-file.js'

interface ExplainOptions {
  readonly vtdReason?: string
  readonly vtdRecord?: readonly string[]
  readonly smmuEvent?: readonly string[]
  readonly dma?: boolean
  readonly json?: boolean
}

/** The `explain` command. */
export function explainCommand(finish: (status: number) => void): Command {
  return new Command('explain')
    .description('Explain faults: what was asked, what was read, which bit refused it, what to do.')
    .argument('[FILE]', 'a trace that `vfio-emu run --trace FILE` wrote, NDJSON or Perfetto')
    .option('--vtd-reason <N>', 'a VT-d fault reason: 0x59, 59h, or its name or condition')
    .option(
      '--vtd-record <HEX...>',
      'a VT-d fault record: two 64-bit words, low half first, or four of 32 bits',
    )
    .option(
      '--smmu-event <HEX...>',
      'an SMMUv3 event record: four 64-bit words in order, eight of 32 bits; or an event name',
    )
    .option('--dma', 'with FILE: also explain requests that a device was refused without a fault')
    .option('--json', 'print as JSON, one explanation a line')
    .action((file: string | undefined, options: ExplainOptions) => {
      const found = explanations(file, options)
      for (const [i, e] of found.entries()) print(e, i > 0, options.json === true)
      if (found.length === 0 && file !== undefined && !options.json)
        process.stdout.write(
          `no faults in ${file}${options.dma ? '' : '; --dma explains refused requests too'}\n`,
        )
      finish(0)
    })
}

function print(e: Explanation, another: boolean, json: boolean): void {
  if (json) process.stdout.write(`${toJson(e)}\n`)
  else process.stdout.write(`${another ? `\n${'─'.repeat(80)}\n\n` : ''}${explanationText(e)}\n`)
}

function explanations(file: string | undefined, o: ExplainOptions): Explanation[] {
  const given = [file, o.vtdReason, o.vtdRecord, o.smmuEvent].filter(g => g !== undefined)
  if (given.length !== 1)
    throw new UsageError('explain: give one of FILE, --vtd-reason, --vtd-record, --smmu-event')
  if (o.vtdReason !== undefined) return [explainVtdReason(reasonOf(o.vtdReason))]
  if (o.vtdRecord)
    return [fromRecord(o.vtdRecord, '--vtd-record', 2, ([lo, hi]) => explainVtdRecord(lo!, hi!))]
  if (o.smmuEvent) {
    const event = eventOf(o.smmuEvent)
    return [
      event
        ? explainSmmuEvent(event)
        : fromRecord(o.smmuEvent, '--smmu-event', 4, explainSmmuRecord),
    ]
  }
  return fromTrace(file!, o.dma === true)
}

/** Everything a trace holds that was refused, in order. */
function fromTrace(file: string, dma: boolean): Explanation[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`cannot read trace ${file}: ${(error as Error).message}`)
  }
  return readTrace(text, file)
    .filter(e => isRefusal(e, dma))
    .map(({ name, event }) => {
      try {
        return explanation(event as unknown as Explainable)
      } catch {
        throw new UsageError(
          `${file}: a ${name} event lacks what an explanation needs; was it written by another version?`,
        )
      }
    })
}

const isRefusal = ({ name, event }: TracedEvent, dma: boolean): boolean =>
  name === 'vtd.fault' ||
  name === 'stale-use' ||
  name === 'smmu.fault' ||
  (dma && name === 'dma' && event['failure'] !== undefined)

/** A reason by number (`0x59`, `59h`, `89`), by our name, or by the specification's condition (`SPT.2`). */
function reasonOf(text: string): FaultName {
  if (text in FAULT_REASONS) return text as FaultName
  const byCondition = Object.entries(FAULT_REASONS).find(
    ([, r]) => r.condition.toLowerCase() === text.toLowerCase(),
  )
  if (byCondition) return byCondition[0] as FaultName
  const number = /^[0-9a-f]+h$/i.test(text) ? Number.parseInt(text, 16) : Number(text)
  const name = Number.isInteger(number) ? faultName(number) : undefined
  if (!name)
    throw new UsageError(
      `no VT-d fault reason '${text}' is modelled here; write it as 0x59, 59h, SPT.2 or pasidEntryNotPresent`,
    )
  return name
}

/** An event named, or given as its number alone. */
function eventOf(words: readonly string[]): EventName | undefined {
  if (words.length !== 1) return undefined
  const [word] = words as [string]
  if (word.toUpperCase() in EVENTS) return word.toUpperCase() as EventName
  return /^(0x)?[0-9a-f]{1,2}$/i.test(word) ? eventName(Number.parseInt(word, 16)) : undefined
}

/** Explains a record given as hexadecimal words. */
function fromRecord(
  given: readonly string[],
  option: string,
  count: number,
  make: (words: readonly bigint[]) => Explanation,
): Explanation {
  const words = wordsOf(given, option, count)
  try {
    return make(words)
  } catch (error) {
    if (error instanceof RecordError) throw new UsageError(`${option}: ${error.message}`)
    throw error
  }
}

/** `count` 64-bit words from words of 64 or 32 bits in address order, however they are separated. */
function wordsOf(given: readonly string[], option: string, count: number): bigint[] {
  const parts = given
    .join(' ')
    .split(/[\s,_]+/)
    .filter(p => p !== '')
    .map(p => p.replace(/^0x/i, ''))
  const bad = parts.find(p => !/^[0-9a-f]{1,16}$/i.test(p))
  if (bad !== undefined)
    throw new UsageError(`${option}: '${bad}' is no hexadecimal word of up to 64 bits`)
  const words = parts.map(p => BigInt(`0x${p}`))
  if (words.length === count) return words
  if (words.length === 2 * count && words.every(w => w < 1n << 32n))
    return Array.from({ length: count }, (_, i) => words[2 * i]! | (words[2 * i + 1]! << 32n))
  throw new UsageError(
    `${option}: give ${count} words of 64 bits or ${2 * count} of 32; here are ${words.length}`,
  )
}
