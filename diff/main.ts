// `npm run diff:qemu`: random configurations and accesses on QEMU and on us.
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ARCHITECTURES, type Architecture } from './architectures.js'
import { type Case, encode, type Outcome, type Subject } from './case.js'
import { judge } from './compare.js'
import { MissingQemu, qemuVersion } from './qtest.js'
import { Draw } from './random.js'
import { kindOf, report } from './report.js'

const HELP = `npm run diff:qemu -- --arch vt-d|smmuv3 [OPTIONS]
  --arch NAME     vt-d or smmuv3
  --count N       cases (default 1000)
  --seed S        seed of the first draw (default 1); a case is named SEED/INDEX
  --from N        index of the first case (default 0): --from N --count 1 runs one case again
  --record FILE   also write a selection of the cases, with what QEMU answered, as lines of JSON
  --per-kind N    cases of one kind in the selection: unit, reasons and deviations alike (default 2)
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
  readonly perKind: number
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
      'per-kind': { type: 'string', default: '2' },
      only: { type: 'string', default: '' },
      help: { type: 'boolean', default: false },
    },
  })
  const arch = ARCHITECTURES[values.arch ?? '']
  const numbers = [values.count, values.seed, values.from, values.show, values['per-kind']].map(
    Number,
  )
  if (values.help || !arch || !numbers.every(Number.isInteger)) return undefined
  const [count, seed, from, show, perKind] = numbers as [number, number, number, number, number]
  return { arch, count, seed, from, show, perKind, record: values.record, only: values.only }
}

function count(map: Map<string, number>, name: string): number {
  const n = (map.get(name) ?? 0) + 1
  map.set(name, n)
  return n
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
  readonly #recorded: string[] = []
  readonly #recordedKinds = new Map<string, number>()

  constructor(options: Options) {
    this.#options = options
  }

  async all(): Promise<number> {
    const { from, count } = this.#options
    const started = Date.now()
    try {
      for (let i = from; i < from + count; i += BATCH) {
        const n = Math.min(BATCH, from + count - i)
        await this.#batch(i, n)
        this.#progress(count)
      }
    } finally {
      for (const s of this.#subjects.values()) await s.close()
    }
    this.#save()
    this.#summary((Date.now() - started) / 1000)
    return this.#unexplained > 0 ? 1 : 0
  }

  async #batch(from: number, n: number): Promise<void> {
    try {
      await Promise.all(Array.from({ length: n }, (_, k) => this.#one(from + k)))
    } catch (e) {
      if (e instanceof Error && !(e instanceof MissingQemu))
        e.message += `\nCases ${from} to ${from + n - 1} of seed ${this.#options.seed} were under way.`
      throw e
    }
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
  }

  #judge(c: Case, ours: ReturnType<Architecture['answer']>, qemu: Outcome): void {
    const { arch, show } = this.#options
    this.#done++
    count(this.#units, c.unit)
    const judged = judge(arch, c, ours, qemu)
    if (judged.length === 0) this.#equal++
    const names = judged.flatMap(({ known }) => (known ?? []).map(({ name }) => name))
    this.#select(c, qemu, [...new Set(names)].sort().join('+'))
    let told = false
    for (const { difference: d, known } of judged) {
      if (known) for (const { name } of known) count(this.#known, name)
      else {
        if (!told && this.#unexplained < show) process.stdout.write(`\n${report(arch, d, ours)}\n`)
        if (!told) this.#unexplained++
        told = true
        count(this.#kinds, kindOf(d))
      }
    }
  }

  /** Keeps a case unless there are enough of its kind. */
  #select(c: Case, qemu: Outcome, explanations: string): void {
    const reasons = qemu.dma.flatMap(d => d.faults.map(f => f['reason'] ?? f['type'] ?? 0))
    const kind = [c.unit, explanations, ...new Set(reasons.sort())].join('|')
    if (count(this.#recordedKinds, kind) <= this.#options.perKind)
      this.#recorded.push(encode(c, qemu))
  }

  #save(): void {
    const { record, arch, seed, from, count, perKind } = this.#options
    if (record === undefined) return
    const oracle = `${arch.oracle}, QEMU ${qemuVersion(arch.binary)}`
    const header = { oracle, selection: { seed, from, count, perKind } }
    writeFileSync(record, `${[JSON.stringify(header), ...this.#recorded].join('\n')}\n`)
    process.stdout.write(`${this.#recorded.length} cases are in ${record}\n`)
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
      `\n${this.#options.arch.name} against ${this.#options.arch.oracle} of QEMU: ` +
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
