// One case: a program of attribute changes, holes, slots, mappings and accesses by vCPUs, host and device, on a fresh
// machine beside the model; shrunk when they disagree.

import fc from 'fast-check'
import type { CampaignFailure, Subject } from '../campaign.js'
import { Disagreement } from '../rig.js'
import {
  FILE_PAGES,
  GUEST_PAGES,
  type ModelSlot,
  PrivateModel,
  SLOTS,
  USER_PAGES,
} from './model.js'
import { PrivateWorld, type WorldOptions } from './world.js'

/** How a case is drawn and run. */
export interface PrivateCaseOptions extends WorldOptions {
  /** Most commands of a case. */
  readonly commands: number
  readonly shrink?: boolean
}

type Command = fc.Command<PrivateModel, PrivateWorld>

/** A command from its words, when it can run, and what it does to both. */
function command(
  words: string,
  run: (m: PrivateModel, w: PrivateWorld) => void,
  check: (m: Readonly<PrivateModel>) => boolean = () => true,
): Command {
  return {
    check,
    run(m, w) {
      run(m, w)
      look(m, w)
    },
    toString: () => words,
  }
}

const gfn = fc.nat(GUEST_PAGES - 1)
const userPage = fc.nat(USER_PAGES - 1)
const filePage = fc.nat(FILE_PAGES - 1)
const cpu = fc.nat(1)
const value = fc.integer({ min: 1, max: 200 })
const id = fc.nat(SLOTS - 1)
const pagesUpTo = (most: number) => fc.integer({ min: 1, max: most })

const attributes = fc
  .tuple(gfn, pagesUpTo(GUEST_PAGES), fc.boolean())
  .map(([first, most, isPrivate]) => {
    const pages = Math.min(most, GUEST_PAGES - first)
    return command(`make ${first}+${pages} ${isPrivate ? 'private' : 'shared'}`, (m, w) => {
      w.attributes(first, pages, isPrivate)
      m.isPrivate.fill(isPrivate, first, first + pages)
    })
  })

const addSlot = fc
  .tuple(id, gfn, pagesUpTo(8), userPage, fc.oneof(filePage, fc.constant(-1)))
  .map(([slot, first, most, user, file]) => {
    const room = [GUEST_PAGES - first, USER_PAGES - user, file < 0 ? most : FILE_PAGES - file]
    const made: ModelSlot = { first, pages: Math.min(most, ...room), user, file }
    const { pages } = made
    return command(
      `slot ${slot}: ${first}+${pages}, owner's ${user}, file ${file < 0 ? 'none' : file}`,
      (m, w) => same(w.addSlot(slot, made), m.addSlot(slot, made), 'the slot'),
      m => !m.slots.has(slot),
    )
  })

const deleteSlot = id.map(slot =>
  command(
    `delete slot ${slot}`,
    (m, w) => {
      w.deleteSlot(slot)
      m.slots.delete(slot)
    },
    m => m.slots.has(slot),
  ),
)

const hole = fc.tuple(filePage, pagesUpTo(FILE_PAGES)).map(([first, pages]) =>
  command(
    `punch ${first}+${pages}`,
    (m, w) => {
      w.punch(first, pages)
      m.file.fill(undefined, first, Math.min(first + pages, FILE_PAGES))
    },
    m => m.fileOpen,
  ),
)

const allocate = fc.tuple(filePage, pagesUpTo(4)).map(([first, most]) => {
  const pages = Math.min(most, FILE_PAGES - first)
  return command(
    `allocate ${first}+${pages}`,
    (m, w) => {
      w.allocate(first, pages)
      for (let i = first; i < first + pages; i++) m.file[i] ??= { value: 0 }
    },
    m => m.fileOpen,
  )
})

const closeFile = fc.constant(
  command(
    'close the file',
    (m, w) => {
      w.closeFile()
      m.fileOpen = false
      m.file.fill(undefined)
    },
    m => m.fileOpen,
  ),
)

const guestRead = fc.tuple(cpu, gfn).map(([n, at]) =>
  command(`vCPU ${n} reads ${at}`, (m, w) => {
    const end = m.guest(at)
    same(w.guestRead(n, at), typeof end === 'string' ? end : end.value, 'the guest')
  }),
)

const guestWrite = fc.tuple(cpu, gfn, value).map(([n, at, v]) =>
  command(`vCPU ${n} writes ${v} to ${at}`, (m, w) => {
    const end = m.guest(at)
    same(w.guestWrite(n, at, v), typeof end === 'string' ? end : '', 'the guest')
    if (typeof end === 'string') return
    end.value = v
  }),
)

const hostWrite = fc.tuple(userPage, value).map(([page, v]) =>
  command(
    `the host writes ${v} to ${page}`,
    (m, w) => {
      w.hostWrite(page, v)
      m.user[page]!.value = v
    },
    m => m.user[page] !== undefined,
  ),
)

const remap = userPage.map(page =>
  command(`the owner maps or unmaps ${page}`, (m, w) => {
    if (m.user[page] !== undefined) {
      w.unmapUser(page)
      m.user[page] = undefined
    } else {
      w.mapUser(page)
      m.user[page] = { value: 0 }
    }
  }),
)

const mapDma = userPage.map(page =>
  command(`map ${page} for the device`, (m, w) => same(w.mapDma(page), m.mapDma(page), 'MAP_DMA')),
)

const unmapDma = userPage.map(page =>
  command(`unmap ${page} for the device`, (m, w) => {
    w.unmapDma(page)
    m.dma.delete(page)
  }),
)

const deviceRead = userPage.map(page =>
  command(`the device reads ${page}`, (m, w) =>
    same(w.deviceRead(page), m.device(page)?.value, 'the device'),
  ),
)

const deviceWrite = fc.tuple(userPage, value).map(([page, v]) =>
  command(`the device writes ${v} to ${page}`, (m, w) => {
    const frame = m.device(page)
    same(w.deviceWrite(page, v), frame !== undefined, 'the device')
    if (frame !== undefined) frame.value = v
  }),
)

const anyCommand: fc.Arbitrary<Command> = fc.oneof(
  { arbitrary: attributes, weight: 5 },
  { arbitrary: addSlot, weight: 5 },
  { arbitrary: deleteSlot, weight: 1 },
  { arbitrary: hole, weight: 2 },
  { arbitrary: allocate, weight: 1 },
  { arbitrary: guestRead, weight: 6 },
  { arbitrary: guestWrite, weight: 6 },
  { arbitrary: hostWrite, weight: 3 },
  { arbitrary: remap, weight: 1 },
  { arbitrary: mapDma, weight: 4 },
  { arbitrary: unmapDma, weight: 1 },
  { arbitrary: deviceRead, weight: 5 },
  { arbitrary: deviceWrite, weight: 4 },
  { arbitrary: closeFile, weight: 1 },
)

/** Private memory against its model. */
export const privateSubject = (options: PrivateCaseOptions): Subject => ({
  name: 'private memory',
  run: seed => runPrivateCase(seed, options),
})

/** What became of a case. */
export interface PrivateCaseResult {
  readonly steps: number
  readonly failure: CampaignFailure | undefined
}

/** Runs the case of a seed. */
export function runPrivateCase(seed: number, options: PrivateCaseOptions): PrivateCaseResult {
  let steps = 0
  const counted = anyCommand.map(
    (c): Command => ({
      check: m => c.check(m),
      run(m, w) {
        steps++
        c.run(m, w)
      },
      toString: () => c.toString(),
    }),
  )
  const commands = fc.commands([counted], { maxCommands: options.commands, size: 'max' })
  const property = fc.property(fc.noBias(commands), drawn => {
    const made = { model: new PrivateModel(), real: new PrivateWorld(options) }
    fc.modelRun(() => made, drawn)
    finish(made.real)
  })
  const out = fc.check(property, { seed, numRuns: 1, endOnFailure: options.shrink === false })
  if (!out.failed) return { steps, failure: undefined }
  const ran = retell([...out.counterexample![0]], options)
  const report = [
    `seed ${seed}: ${ran.message.split('\n')[0]}`,
    `  commands, after ${out.numShrinks} shrinks:`,
    ...ran.commands.map(line => `    ${line}`),
    '  again:',
    `    npm run fuzz -- --private --seed ${seed} --runs 1`,
  ].join('\n')
  return { steps, failure: { seed, message: ran.message, report } }
}

function retell(commands: readonly Command[], options: PrivateCaseOptions) {
  const model = new PrivateModel()
  const real = new PrivateWorld(options)
  const ran: string[] = []
  let message = 'it did not fail again'
  try {
    for (const c of commands) {
      if (!c.check(model)) continue
      ran.push(c.toString())
      c.run(model, real)
    }
    finish(real)
  } catch (error) {
    message = error instanceof Disagreement ? error.message : String((error as Error).stack)
  }
  return { commands: ran, message }
}

/** What must hold after every step. */
function look(m: PrivateModel, w: PrivateWorld): void {
  m.user.forEach((frame, page) => {
    if (frame !== undefined) same(w.hostRead(page), frame.value, `the host at ${page}`)
  })
  // Files may have allocated more at a time.
  const files = m.file.filter(frame => frame !== undefined).length
  if (w.states.count < files)
    throw new Disagreement(`${w.states.count} pages are marked, where the model says ${files}`)
}

function finish(w: PrivateWorld): void {
  const left = w.end()
  same(JSON.stringify(left), JSON.stringify({ frames: 0, marked: 0 }), 'what is left')
}

function same(real: unknown, model: unknown, who: string): void {
  if (real !== model) throw new Disagreement(`${who}: ${real}, where the model says ${model}`)
}
