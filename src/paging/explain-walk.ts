/**
 * A walk as lines a person can read: each entry with its address, raw value and flags, and what came of
 * it. The walk itself, as data: walk-steps.ts.
 */
import { hex } from '../base/addr.js'
import type { PageTableFormat } from './format.js'
import {
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  type EntrySource,
  type FailureName,
  PERM_GLOBAL,
} from './walk.js'
import { nestedWalkSteps, type StageWalk, type WalkStep, walkSteps } from './walk-steps.js'

// biome-ignore format: table
const MEANING: Record<FailureName, string> = {
  none:           'translated',
  notPresent:     'not present',
  reserved:       'a reserved bit is set',
  read:           'reads are not permitted',
  write:          'writes are not permitted',
  execute:        'execution is not permitted',
  user:           'not accessible to a user',
  smep:           'a supervisor may not execute a user page (SMEP)',
  smap:           'a supervisor may not access a user page (SMAP)',
  nonCanonical:   'the address is not canonical',
  addressSize:    'the address is too wide',
  unreadable:     'there is no memory at this address',
  accessFlag:     'the access flag is clear',
  flagUpdate:     'its flags cannot be written',
  interruptRange: 'the table lies in the interrupt address range',
}

/** The lines of a walk through one stage, from the input to the output or to where it stops. */
export function explainWalk(
  format: PageTableFormat,
  source: EntrySource,
  root: number,
  input: bigint,
  access: number = ACCESS_READ,
): string[] {
  return stageLines(walkSteps(format, source, root, input, access))
}

/** The lines of a nested walk; what the second stage does for a first-stage entry is indented under it. */
export function explainNestedWalk(
  first: PageTableFormat,
  second: PageTableFormat,
  source: EntrySource,
  firstRoot: number,
  secondRoot: number,
  input: bigint,
  access: number = ACCESS_READ,
): string[] {
  return nestedWalkSteps(first, second, source, firstRoot, secondRoot, input, access).flatMap(w =>
    stageLines(w),
  )
}

/** What a failure means, in words. */
export const failureMeaning = (name: FailureName): string => MEANING[name]

/** The lines of a walk that was made before. */
export function stageLines(w: StageWalk, indent = ''): string[] {
  return [
    `${indent}${w.format}: ${hex(w.input)}, ${accessWords(w.access)}`,
    ...w.steps.flatMap(step => [
      `${indent}  ${step.name} at ${hex(step.at)}${entryText(step)}`,
      ...(step.below ? stageLines(step.below, `${indent}    `) : []),
    ]),
    `${indent}  ${outcome(w)}`,
  ]
}

const entryText = ({ raw, flags }: WalkStep): string =>
  raw === undefined ? '' : ` = ${[hex(raw, 16), ...flags].join(' ')}`

function outcome(w: StageWalk): string {
  if (w.output !== undefined) return granted(w)
  return `stops: ${w.innerFailed ? 'that entry is out of reach' : MEANING[w.failure]}`
}

/** An access in words. */
export function accessWords(access: number): string {
  const kinds = [
    (access & ACCESS_READ) !== 0 && 'read',
    (access & ACCESS_WRITE) !== 0 && 'write',
    (access & ACCESS_EXECUTE) !== 0 && 'execute',
  ]
  const user = (access & ACCESS_USER) !== 0 ? ' by a user' : ''
  return kinds.filter(Boolean).join(' and ') + user
}

/** What a translation grants, in words. */
export function granted({ output, pageBits, permissions }: StageWalk): string {
  const letters = [...'rwxrwx'].map((c, i) => ((permissions & (1 << i)) !== 0 ? c : '-')).join('')
  const global = (permissions & PERM_GLOBAL) !== 0 ? ', global' : ''
  const size =
    pageBits >= 30
      ? `${2 ** (pageBits - 30)} GiB`
      : pageBits >= 20
        ? `${2 ** (pageBits - 20)} MiB`
        : `${2 ** (pageBits - 10)} KiB`
  return `gives ${hex(output!)}: ${size}, supervisor ${letters.slice(0, 3)}, user ${letters.slice(3)}${global}`
}
