/**
 * Configuration space as text: the hex dump that `lspci -F FILE` reads, and a decoded listing. Pure
 * functions of the bytes.
 * Next: config-image.ts (what the bytes mean).
 */
import { formatBdf, hex } from '../base/addr.js'
import {
  type CapabilityFacts,
  type ConfigFacts,
  type ConfigImage,
  decodeConfig,
  type WindowFacts,
} from './config-image.js'
import { CAPABILITY_NAMES, CLASS_NAMES, EXTENDED_NAMES } from './ids.js'
import type { PciNode } from './node.js'

/** How much of configuration space a dump shows: the header, 256 bytes, or all (`-x`, `-xxx`, `-xxxx`). */
export type DumpLength = 64 | 256 | 4096

/** The configuration bytes of nodes, as reads see them now, in order of bus, device and function. */
export const configImages = (nodes: readonly PciNode[]): ConfigImage[] =>
  nodes.map(n => ({ bdf: n.bdf, bytes: n.config.dump() })).sort((a, b) => a.bdf - b.bdf)

/** The dump of functions, one after the other, each under its heading. */
export function dumpText(images: readonly ConfigImage[], length: DumpLength): string {
  return images.map(i => `${headline(decodeConfig(i))}\n${hexLines(i.bytes, length)}\n`).join('\n')
}

/** One line a function: address, class, ids, revision. */
export const listText = (images: readonly ConfigImage[]): string =>
  images.map(i => `${headline(decodeConfig(i))}\n`).join('')

/** The decoded listing: enables, BARs, bridge windows, capabilities and what they say. */
export function describeText(images: readonly ConfigImage[]): string {
  return images
    .map(i => {
      const facts = decodeConfig(i)
      const lines = [headline(facts), ...headerLines(facts), ...facts.capabilities.map(capability)]
      return `${lines.join('\n')}\n`
    })
    .join('\n')
}

function headline(f: ConfigFacts): string {
  const code = f.classCode >>> 8
  const name = CLASS_NAMES[code] ?? 'Class'
  const id = `${four(f.vendorId)}:${four(f.deviceId)}`
  const revision = f.revision ? ` (rev ${two(f.revision)})` : ''
  return `${formatBdf(f.bdf)} ${name} [${four(code)}]: ${id}${revision}`
}

function headerLines(f: ConfigFacts): string[] {
  const sign = (on: boolean) => (on ? '+' : '-')
  const out = [`    Control: Mem${sign(f.memoryEnable)} BusMaster${sign(f.busMaster)}`]
  for (const b of f.bars) {
    const kind = `${b.wide ? '64' : '32'}-bit, ${b.prefetchable ? '' : 'non-'}prefetchable`
    out.push(`    BAR ${b.index}: memory at ${hex(b.address)} (${kind})`)
  }
  if (f.bridge) {
    const { primary, secondary, subordinate, memory, prefetchable } = f.bridge
    const buses = `primary ${two(primary)}, secondary ${two(secondary)}, subordinate ${two(subordinate)}`
    out.push(`    Bus: ${buses}`)
    out.push(`    Memory behind bridge: ${window(memory)}`)
    out.push(`    Prefetchable memory behind bridge: ${window(prefetchable)}`)
  }
  return out
}

const window = (w: WindowFacts | undefined) => (w ? `${hex(w.first)}-${hex(w.last)}` : 'none')

function capability(c: CapabilityFacts): string {
  const name = (c.extended ? EXTENDED_NAMES : CAPABILITY_NAMES)[c.id] ?? `id ${hex(c.id)}`
  const version = c.version === undefined ? '' : ` v${c.version}`
  const values = Object.entries(c.values)
    .map(([k, v]) => `${k} ${v < 10 ? v : hex(v)}`)
    .join(', ')
  return `    [${c.offset.toString(16)}${version}] ${name}${values ? `: ${values}` : ''}`
}

function hexLines(bytes: Uint8Array, length: DumpLength): string {
  const out: string[] = []
  for (let at = 0; at < Math.min(length, bytes.length); at += 16) {
    const row = Array.from(bytes.subarray(at, at + 16), two).join(' ')
    out.push(`${two(at)}: ${row}`)
  }
  return out.join('\n')
}

const two = (v: number) => v.toString(16).padStart(2, '0')
const four = (v: number) => v.toString(16).padStart(4, '0')
