// `vfio-emu walk`: how an address is translated, as a tree of configuration structures and page tables. Runs
// the guest, and looks again at each bind and DMA of the PASID; what is printed is the last look at which the
// address translated, or else the last look of all. With nothing bound, that is the moment before teardown.

import { Command, Option } from 'commander'
import { formatBdf, hex, join, parseBdf } from '../base/addr.js'
import { type WalkTree, walkTree, walkTreeText } from '../explain/index.js'
import { createMachine, type IommuUnit, type Machine } from '../machine.js'
import '../vmm/trace.js'
import { guestOf, readImage, runGuest } from './guest.js'
import { loadMachine } from './machine-file.js'
import { formatTime, style, toJson, UsageError } from './output.js'

interface WalkOptions {
  readonly pasid?: string
  readonly iova?: string
  readonly device?: string
  readonly guest?: string
  readonly machine?: string
  readonly iommu: 'vt-d' | 'smmuv3'
  readonly write?: boolean
  readonly full?: boolean
  readonly json?: boolean
}

/** A look at the tables. */
interface Look {
  readonly at: number
  readonly when: string
  readonly tree: WalkTree
}

/** The `walk` command. */
export function walkCommand(finish: (status: number) => void): Command {
  return new Command('walk')
    .description(
      'Run the guest and print how an address of its device is translated, entry by entry.',
    )
    .option('--pasid <P>', 'PASID; without it, requests that carry none')
    .option('--iova <A>', 'address the device uses: hexadecimal with 0x, or decimal')
    .option('--device <BDF>', 'which function (default: the one passed through)')
    .option('--write', 'walk for a write rather than a read')
    .option('--full', 'also print the second-stage walk of every first-stage entry')
    .addOption(
      new Option('--iommu <kind>', 'the default machine with this IOMMU')
        .choices(['vt-d', 'smmuv3'])
        .default('vt-d'),
    )
    .option('--guest <ELF>', 'guest image: a static ELF for the machine (default: its SVA guest)')
    .option('--machine <FILE>', 'machine description, JSON (see docs/guides/machine-files.md)')
    .option('--json', 'print as JSON')
    .action((options: WalkOptions) => finish(walk(options)))
}

function walk(o: WalkOptions): number {
  const pasid = o.pasid === undefined ? -1 : number('--pasid', o.pasid, 0xf_ffffn)
  const description = loadMachine(o.machine, o.iommu)
  const image = readImage(o.guest ?? guestOf(description), description.iommu)
  const machine: Machine<IommuUnit> = createMachine(description)
  const bdf = deviceOf(machine, o.device)
  if (o.iova === undefined)
    throw new UsageError(`walk: give --iova; ${used(machine, image, bdf, pasid)}`)
  const iova = BigInt(numberText('--iova', o.iova))
  if (iova >= 1n << 64n) throw new UsageError(`--iova ${o.iova}: more than 64 bits`)
  const { write = false, full = false } = o
  const found = run(machine, image, bdf, pasid, () =>
    walkTree(machine, { bdf, pasid, iova, write, full }),
  )
  if (o.json) process.stdout.write(`${toJson({ at: found.at, when: found.when, ...found.tree })}\n`)
  else {
    const when = `as it was ${found.when}, at ${formatTime(found.at).trim()}`
    process.stdout.write(`${walkTreeText(found.tree)}\n${style.quiet(when)}\n`)
  }
  return found.tree.output === undefined ? 1 : 0
}

/** Runs the guest and keeps the look that says most. */
function run(
  machine: Machine<IommuUnit>,
  image: Uint8Array,
  bdf: number,
  pasid: number,
  look: () => WalkTree,
): Look {
  let kept: Look | undefined
  const take = (when: string) => {
    const tree = look()
    if (tree.output !== undefined || kept?.tree.output === undefined)
      kept = { at: machine.clock.now, when, tree }
  }
  const stops = [
    machine.trace.listen('dma', e => {
      if (e.requester === bdf && e.pasid === pasid && e.failure === undefined)
        take(`at the last DMA ${pasid >= 0 ? `of PASID ${pasid}` : 'without a PASID'}`)
    }),
    machine.trace.listen('vmm.bind', e => {
      if (e.operation === 'bind' && e.pasid === pasid && e.refused === undefined)
        take(`when PASID ${pasid} was bound`)
    }),
    machine.trace.listen('guest.exit', () => {
      if (kept === undefined) take('when the guest ended')
    }),
  ]
  try {
    runGuest(machine, image)
    if (kept === undefined) take('after teardown')
  } finally {
    for (const stop of stops) stop()
  }
  return kept!
}

/** What to ask for instead: the pages that the device used under the PASID. */
function used(machine: Machine<IommuUnit>, image: Uint8Array, bdf: number, pasid: number): string {
  const pages = new Set<bigint>()
  const pasids = new Set<number>()
  const stop = machine.trace.listen('dma', e => {
    if (e.requester !== bdf) return
    if (e.pasid >= 0) pasids.add(e.pasid)
    if (e.pasid === pasid) pages.add(join(e.hi, e.lo) & ~0xfffn)
  })
  try {
    runGuest(machine, image)
  } finally {
    stop()
  }
  const who = pasid >= 0 ? `under PASID ${pasid}` : 'without a PASID'
  const list = [...pages].slice(0, 8).map(p => hex(p))
  const more = pages.size > list.length ? ', …' : ''
  const others = [...pasids].filter(p => p !== pasid)
  const hint = others.length > 0 ? ` (it also used --pasid ${others.join(', ')})` : ''
  return list.length > 0
    ? `${who} the device used ${list.join(', ')}${more}${hint}`
    : `${who} the device used no address${hint}`
}

function deviceOf(machine: Machine<IommuUnit>, text: string | undefined): number {
  const there = machine.fabric.functions()
  if (text === undefined) {
    if (!there[0]) throw new UsageError('the machine has no device to pass through')
    return there[0].bdf
  }
  const bdf = parseBdf(text)
  if (bdf === undefined || !there.some(f => f.bdf === bdf))
    throw new UsageError(
      `--device ${text}: the machine has ${there.map(f => formatBdf(f.bdf)).join(', ') || 'no functions'}`,
    )
  return bdf
}

const number = (option: string, text: string, most: bigint): number => {
  const n = BigInt(numberText(option, text))
  if (n > most) throw new UsageError(`${option} ${text}: at most ${hex(most)}`)
  return Number(n)
}

function numberText(option: string, text: string): string {
  if (!/^(0x[0-9a-f]+|[0-9]+)$/i.test(text))
    throw new UsageError(`${option} ${text}: write a number, hexadecimal with 0x`)
  return text
}
