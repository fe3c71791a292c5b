// How a run of the SVA guest is told: step by step to people, and as NDJSON to programs. `run` and `replay` speak so.

import { explain } from '../explain/index.js'
import type { IommuUnit, Machine } from '../machine.js'
import type { GuestEnd } from '../vmm/vmm.js'
import { describeMachine } from './machine-file.js'
import { columns, formatBytes, formatTime, style, toJson } from './output.js'
import type { Step, Story } from './story.js'

const legend = (first: string, second: string): readonly string[] => [
  `GVA is the process's own pointer; the guest's table makes a GPA of it (${first}), the host's table an HPA (${second}).`,
  'Time is virtual: one guest instruction takes a nanosecond.',
]
const LEGEND = {
  'vt-d': legend('first stage', 'second stage'),
  smmuv3: legend('stage 1', 'stage 2'),
}

/** How a run is told: to people or to programs. */
export interface Teller {
  machine(machine: Machine<IommuUnit>): void
  step(step: Step): void
  end(
    machine: Machine<IommuUnit>,
    story: Story,
    end: GuestEnd,
    holdings: object,
    good: boolean,
  ): void
}

/** Prints a line. */
export const out = (line: string): boolean => process.stdout.write(`${line}\n`)

/** NDJSON: one object a line, the same steps in the same order. */
export function jsonTeller(): Teller {
  return {
    machine: machine => out(toJson({ topic: 'machine', ...describeMachine(machine) })),
    step: ({ at, topic, data, text }) => out(toJson({ at, topic, text, ...data })),
    end: (machine, story, end, holdings, good) => {
      out(toJson({ at: machine.clock.now, topic: 'teardown', ...holdings }))
      out(toJson({ at: machine.clock.now, topic: 'summary', verified: good, end, ...story.totals }))
    },
  }
}

/** For people: sections, aligned lines, restrained colour. */
export function textTeller(): Teller {
  const paint: Partial<Record<Step['topic'], (s: string) => string>> = {
    guest: style.guest,
    fault: style.bad,
  }
  let section = ''
  let iommu: 'vt-d' | 'smmuv3' = 'vt-d'
  const head = (name: string) => {
    if (section === name) return
    section = name
    out(`\n${style.heading(name)}`)
  }
  return {
    machine(machine) {
      iommu = machine.description.iommu ?? 'vt-d'
      head('machine')
      const { host, functions } = describeMachine(machine)
      for (const line of columns(host)) out(`  ${line}`)
      for (const line of columns(functions)) out(`  ${line}`)
    },
    step({ at, topic, text, failed }) {
      if (topic !== 'container' && section !== 'journey') {
        head('journey')
        for (const line of LEGEND[iommu]) out(`  ${style.quiet(line)}`)
      }
      if (topic === 'container') head('container')
      const colour = failed ? style.bad : (paint[topic] ?? ((s: string) => s))
      out(`${style.quiet(formatTime(at))}  ${style.quiet(topic.padEnd(9))}  ${colour(text)}`)
    },
    end(machine, story, end, holdings, good) {
      head('teardown')
      const held = Object.entries(holdings).map(([name, n]) => [name, `${n} left`])
      for (const line of columns(held)) out(`  ${line}`)
      head('summary')
      const t = story.totals
      const rows = [
        ['guest', describeEnd(end, iommu)],
        ['DMA', `${t.dmas} transfers, ${formatBytes(t.bytes)}; ${t.refused} refused or deferred`],
        ...(iommu === 'smmuv3'
          ? [
              ['tables', `${t.binds} of the guest's bound whole`],
              ['stalls', `${t.stalls}`],
            ]
          : [['PASIDs', `${t.pasids} allocated, ${t.binds} bound, ${t.unbinds} unbound`]]),
        ['page requests', `${t.pageRequests}`],
        ['interrupts', `${t.interrupts}`],
        ...(machine.description.detectStaleUse ? [['stale uses', `${t.staleUses}`]] : []),
        ...(machine.description.a64?.sync === 'strict'
          ? [['missing ISBs', `${t.unsynchronised}`]]
          : []),
        ['virtual time', formatTime(machine.clock.now).trim()],
      ]
      for (const line of columns(rows)) out(`  ${line}`)
      for (const use of machine.staleUses) out(`\n${explain(use)}`)
      const verdict = good
        ? style.good('verified by the guest, nothing leaked')
        : style.bad('failed')
      out(`\n${verdict}`)
    },
  }
}

function describeEnd(end: GuestEnd, iommu: 'vt-d' | 'smmuv3'): string {
  switch (end.kind) {
    case 'exit':
      return end.code === 0 ? 'exited 0: every byte verified' : `exited ${end.code}`
    case 'unexpected':
      return `stopped by KVM exit ${end.reason}`
    case 'shutdown':
      return iommu === 'smmuv3' ? 'switched itself off' : 'triple fault'
    case 'stuck':
      return 'halted with nothing left that could wake it'
    case 'limit':
      return 'still running at the limit'
    case 'killed':
      return 'ended by its debugger'
  }
}
