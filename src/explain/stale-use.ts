/** Stale uses explained: who changed which table, what still held the old translation, what was not invalidated. */
import { formatBdf, hex } from '../base/addr.js'
import type { StaleUse, TableChange } from '../iommu/stale-use.js'
import type { ExplainedNode, Explanation } from './explanation.js'

/** A stale use as an explanation; the tree is the words that changed. */
export function explainStaleUse(u: StaleUse): Explanation {
  const who = formatBdf(u.requester)
  const under = u.pasid >= 0 ? ` with PASID ${u.pasid}` : ''
  const where =
    u.used >= 0
      ? `went to ${hex(u.used)}, which the ${u.cache} still held`
      : `was translated by an entry that the ${u.cache} still held`
  const now =
    u.used < 0 ? '' : u.now >= 0 ? ` A walk now gives ${hex(u.now)}.` : ' A walk now refuses it.'
  const wrote = u.changes.map(wording).join('; ')
  return {
    title: `Stale use of the ${u.cache}: ${u.access} at ${hex(u.address)}${u.pasid >= 0 ? `, PASID ${u.pasid}` : ''}`,
    summary: `${who} wanted to ${u.access} at ${hex(u.address)}${under}; it ${where}.${now}${wrote === '' ? '' : ` ${wrote}.`}`,
    request: [
      ['source', who],
      ['PASID', u.pasid >= 0 ? `${u.pasid} (${hex(u.pasid)})` : 'none'],
      ['address', hex(u.address)],
      ['access', u.access],
      ['time', `${u.time} ns`],
    ],
    heading: 'What changed',
    tree: u.changes.map(changeNode),
    section: u.section,
    cause: `The tables were changed and the ${u.cache} was not told before the device used it again.`,
    cure: `Between the write and the device's next request: ${u.missing}. Wait for its completion.`,
  }
}

const WRITERS: Readonly<Record<TableChange['by'], string>> = {
  'guest processor': "the guest's processor",
  host: 'the host',
  'host driver': "the host's IOMMU driver",
  'device DMA': "a device's DMA",
  unseen: 'somebody past the memory system (a process through a mapping of its own)',
}

const wording = ({ entry, at, by, time }: TableChange): string =>
  by === 'unseen'
    ? `The ${entry} at ${hex(at)} was changed by ${WRITERS[by]}, before ${time} ns`
    : `The ${entry} at ${hex(at)} was written by ${WRITERS[by]} at ${time} ns`

const changeNode = (c: TableChange): ExplainedNode => ({
  text: `${c.entry} at ${hex(c.at)}: was ${hex(c.before, 16)}, is ${hex(c.after, 16)}`,
})
