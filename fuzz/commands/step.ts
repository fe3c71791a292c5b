// What every command is made of, and how a command that was drawn at random finds something to work on.

import type { Command } from 'fast-check'
import { assertInvariants } from '../invariants.js'
import type { Allowed } from '../model/outcome.js'
import { settle } from '../model/pasids.js'
import type { Container, Device, File, PageRequest, Process, State } from '../model/state.js'
import { Disagreement, type Result, type Rig } from '../rig.js'

export type FuzzCommand = Command<State, Rig>

/**
 * A command: `pick` finds what it works on, undefined when it makes no sense now; `act` does it and compares. After
 * each, the invariants must hold.
 */
export function step<T>(
  name: string,
  pick: (s: Readonly<State>) => T | undefined,
  act: (s: State, rig: Rig, on: T) => void,
): FuzzCommand {
  return {
    check: s => pick(s) !== undefined,
    run(s, rig) {
      act(s, rig, pick(s)!)
      assertInvariants(s, rig)
    },
    toString: () => name,
  }
}

/** Compares what a call answered with what it may: 'ok' stands for any number. Whether it succeeded. */
export function expect(result: Result, allowed: Allowed): boolean {
  const ok = typeof result === 'number'
  if (allowed.includes(String(result)) || (ok && allowed.includes('ok'))) return ok
  throw new Disagreement(`answered ${result}, where the model allows ${allowed.join(' or ')}`)
}

/** The living process that a number picks. */
export function process(s: Readonly<State>, n: number): Process | undefined {
  const living = s.processes.filter(p => p.alive)
  return living[n % living.length]
}

/** A descriptor, and whose it is. */
export interface Found {
  readonly process: Process
  readonly fd: number
  readonly file: File
}

/**
 * The descriptor of a kind that a number picks among those of a process, or of the next that has one; `where` narrows
 * the choice.
 */
export function descriptor(
  s: Readonly<State>,
  of: number,
  n: number,
  kind: File['kind'],
  where: (f: File) => boolean = () => true,
): Found | undefined {
  const living = s.processes.filter(p => p.alive)
  for (let i = 0; i < living.length; i++) {
    const owner = living[(of + i) % living.length]!
    const found = [...owner.fds].filter(([, f]) => f.kind === kind && where(f))
    if (found.length === 0) continue
    const [fd, file] = found[n % found.length]!
    return { process: owner, fd, file }
  }
  return undefined
}

/** Numbers below this pick among what exists; above, they are taken as they are. */
const PICKS = 8

/** The PASID that a number picks among those a container's process holds; a number that picks none stands for itself. */
export function pasidOf(s: Readonly<State>, c: Container, n: number): number {
  const mine = [...s.pasids.values()].filter(p => p.context === c.driver?.context)
  return n < PICKS && mine.length > 0 ? mine[n % mine.length]!.id : n % PICKS
}

/** The PASID that a number picks among those bound on a device; a number that picks none stands for itself. */
export function boundOn(s: Readonly<State>, d: Device, n: number): number {
  const bound = [...s.pasids.values()].filter(p => p.bindings.has(d))
  return n < PICKS && bound.length > 0 ? bound[n % bound.length]!.id : (n % PICKS) + 1
}

/** The device that a number picks among those that `where` takes, those that can make requests before others. */
export function deviceOf(
  s: Readonly<State>,
  n: number,
  where: (d: Device) => boolean,
  withPasid: boolean,
): Device | undefined {
  const some = s.devices.filter(where)
  const ready = some.filter(d => d.master && d.group.container?.driver)
  const bound = ready.filter(d => [...s.pasids.values()].some(p => p.bindings.has(d)))
  const choices = withPasid ? [bound, ready, some] : [ready, some]
  const from = n < PICKS ? choices.find(c => c.length > 0)! : some
  return from[n % from.length]
}

/** Lets everything run that is due, and compares what became of page requests. */
export function settleAll(s: State, rig: Rig): void {
  rig.machine.settle()
  settle(s)
  for (const d of s.devices) {
    for (const r of d.requests) {
      const { code } = rig.requests.get(r)!
      if (r.state === 'sent') arrive(s, d, r)
      if (r.disturbed || code === r.answer) continue
      throw new Disagreement(
        `a page request of ${d.facts.name}, PASID ${r.pasid}, has answer ${code}, where the model says ${r.answer}`,
      )
    }
    d.requests = d.requests.filter(r => r.state !== 'over')
  }
}

/** A request on its way arrives at its user, or is answered INVALID where there is none. */
function arrive(s: State, d: Device, r: PageRequest): void {
  const bound = s.pasids.get(r.pasid)?.bindings.has(d)
  const waits = r.answer === undefined && d.delivers && bound
  r.state = r.disturbed ? 'unclear' : waits ? 'waiting' : 'over'
  if (!waits) r.answer = INVALID
}

/** The answer to what nobody takes. */
export const INVALID = 1
