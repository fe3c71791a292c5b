// `npm run diff:qemu`: random configurations and accesses on QEMU and on us.
import { appendFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ARCHITECTURES, type Architecture } from './architectures.js'
import { type Case, encode, type Outcome, type Subject } from './case.js'
import { compare, explainAll } from './compare.js'
import { MissingQemu } from './qtest.js'
import { Draw } from './random.js'
import { kindOf, report } from './report.js'

const HELP = `npm run diff:qemu -- --arch vt-d|smmuv3 [OPTIONS]
  --arch NAME     vt-d or smmuv3
  --count N       cases (default 1000)
  --seed S        seed of the first draw (default 1); a case is named SEED/INDEX
  --from N        index of the first case (default 0): --from N --count 1 runs one case again
  --record FILE   also write the cases, with what QEMU answered, as lines of JSON
  --only TEXT     only cases whose unit's name contains TEXT; the others are drawn and passed over
  --show N        differences to print in full (default 5)
  --help          this text
QEMU is found by QEMU, QEMU_WRAP and QT_TMP in the environment, or on PATH.
The exit status is 1 when a difference has no explanation, 2 when QEMU is missing.`

/** Cases on their way to QEMU at a time. */
const BATCH = 24

interface Options {
  readonly arch: Architecture
  readonly count: number
  readonly seed: number
  readonly from: number
  readonly record: string | undefined
  readonly show: number
  readonly only: string
}

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      arch: { type: 'string' },
      count: { type: 'string', default: '1000' },
      seed: { type: 'string', default: '1' },
      from: { type: 'string', default: '0' },
      record: { type: 'string' },
      show: { type: 'string', default: '5' },
      only: { type: 'string', default: '' },
      help: { type: 'boolean', default: false },
    },
  })
  const arch = ARCHITECTURES[values.arch ?? '']
  const [count, seed, from, show] = [values.count, values.seed, values.from, values.show].map(
    Number,
  )
  if (values.help || !arch || ![count, seed, from, show].every(Number.isInteger)) return undefined
  return {
    arch,
    count: count!,
    seed: seed!,
    from: from!,
    record: values.record,
    show: show!,
    only: values.only,
  }
}

function count(map: Map<string, number>, name: string): void {
  map.set(name, (map.get(name) ?? 0) + 1)
}

class Run {
  readonly #options: Options
  readonly #subjects = new Map<string, Subject>()
  readonly #known = new Map<string, number>()
  readonly #units = new Map<string, number>()
  readonly #kinds = new Map<string, number>()
  #done = 0
  #equal = 0
  #unexplained = 0
  #header = false

  constructor(options: Options) {
    this.#options = options
  }

  async all(): Promise<number> {
    const { from, count } = this.#options
    const started = Date.now()
    try {
      for (let i = from; i < from + count; i += BATCH) {
        const n = Math.min(BATCH, from + count - i)
        await Promise.all(Array.from({ length: n }, (_, k) => this.#one(i + k)))
        this.#progress(count)
      }
    } finally {
      for (const s of this.#subjects.values()) await s.close()
    }
    this.#summary((Date.now() - started) / 1000)
    return this.#unexplained > 0 ? 1 : 0
  }

  async #one(index: number): Promise<void> {
    const { arch, seed, only } = this.#options
    const c = arch.draw(new Draw(seed, index), `${seed}/${index}`)
    if (!c.unit.includes(only)) return
    const ours = arch.answer(c)
    const subject = await this.#subject(c)
    const hints = ours.outcome.dma.flatMap(d => d.landed.filter(at => at !== null))
    const qemu = await subject.run(c, hints)
    this.#judge(c, ours, qemu)
    this.#write(c, qemu)
  }

  #judge(c: Case, ours: ReturnType<Architecture['answer']>, qemu: Outcome): void {
    const { arch, show } = this.#options
    this.#done++
    count(this.#units, c.unit)
    const differences = compare(c, ours, qemu)
    if (differences.length === 0) this.#equal++
    let told = false
    const explanations = explainAll(arch.deviations, differences, arch.answer)
    for (const [i, d] of differences.entries()) {
      const known = explanations[i]
      if (known) for (const { name } of known) count(this.#known, name)
      else {
        if (!told && this.#unexplained < show) process.stdout.write(`\n${report(arch, d, ours)}\n`)
        if (!told) this.#unexplained++
        told = true
        count(this.#kinds, kindOf(d))
      }
    }
  }

  #write(c: Case, qemu: Outcome): void {
    const { record, arch } = this.#options
    if (record === undefined) return
    if (!this.#header) writeFileSync(record, `${JSON.stringify({ oracle: arch.oracle })}\n`)
    this.#header = true
    appendFileSync(record, `${encode(c, qemu)}\n`)
  }

  async #subject(c: Case): Promise<Subject> {
    const key = this.#options.arch.subjectOf(c)
    let s = this.#starting.get(key)
    if (!s) {
      s = this.#options.arch.start(key).then(subject => {
        this.#subjects.set(key, subject)
        return subject
      })
      this.#starting.set(key, s)
    }
    return s
  }
  readonly #starting = new Map<string, Promise<Subject>>()

  #progress(count: number): void {
    if (!process.stderr.isTTY && this.#done % (BATCH * 40) !== 0) return
    process.stderr.write(`\r${this.#done}/${count}, ${this.#unexplained} unexplained `)
    if (!process.stderr.isTTY) process.stderr.write('\n')
  }

  #summary(seconds: number): void {
    const line = (name: string, n: number) => `  ${String(n).padStart(7)}  ${name}\n`
    const rows = (map: Map<string, number>) =>
      [...map]
        .sort((a, b) => b[1] - a[1])
        .map(([name, n]) => line(name, n))
        .join('')
    process.stdout.write(
      `\n${this.#options.arch.name} against ${this.#options.arch.oracle}: ` +
        `${this.#done} cases in ${seconds.toFixed(1)} s\n${rows(this.#units)}` +
        `${this.#equal} answered alike in everything. Differences that are known:\n${rows(this.#known)}` +
        `${this.#unexplained} cases with a difference nobody explains\n${rows(this.#kinds)}`,
    )
  }
}

const options = readOptions()
if (!options) {
  console.log(HELP)
  process.exitCode = process.argv.includes('--help') ? 0 : 2
} else {
  try {
    process.exitCode = await new Run(options).all()
  } catch (e) {
    if (!(e instanceof MissingQemu)) throw e
    console.error(e.message)
    process.exitCode = 2
  }
}
