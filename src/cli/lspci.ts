// `vfio-emu lspci`: the machine's functions, decoded, or as the hex dump that `lspci -F FILE` reads.

import { Command } from 'commander'
import { createMachine } from '../machine.js'
import {
  configImages,
  type DumpLength,
  describeText,
  dumpText,
  listText,
} from '../pci/config-text.js'
import { loadMachine } from './machine-file.js'
import { UsageError } from './output.js'

interface LspciOptions {
  readonly machine?: string
  readonly verbose?: boolean
  readonly x?: boolean
  readonly xxx?: boolean
  readonly xxxx?: boolean
}

/** Commander takes only one letter after a single dash; these are lspci's own spellings. */
const SPELLINGS: Readonly<Record<string, string>> = { '-xxx': '--xxx', '-xxxx': '--xxxx' }

/** Turns lspci's `-xxx` and `-xxxx` into options commander knows. */
export const normaliseDumpFlags = (args: readonly string[]): string[] =>
  args.map(a => SPELLINGS[a] ?? a)

/** The `lspci` command. */
export function lspciCommand(finish: (status: number) => void): Command {
  return new Command('lspci')
    .description("List the machine's PCI functions; the dumps are what `lspci -F FILE` reads.")
    .option('-v, --verbose', 'decode base addresses, windows and capabilities')
    .option('-x', 'dump the first 64 bytes of each function')
    .option('--xxx', 'dump 256 bytes (also -xxx)')
    .option('--xxxx', 'dump 4096 bytes, extended space included (also -xxxx)')
    .option('--machine <FILE>', 'machine description, JSON')
    .action((options: LspciOptions) => {
      process.stdout.write(text(options))
      finish(0)
    })
}

function text(options: LspciOptions): string {
  const dumps = (
    [
      ['x', 64],
      ['xxx', 256],
      ['xxxx', 4096],
    ] as const
  ).filter(([name]) => options[name])
  if (dumps.length > 1 || (dumps.length && options.verbose))
    throw new UsageError('lspci: choose one of -v, -x, -xxx, -xxxx')
  const images = configImages(createMachine(loadMachine(options.machine)).fabric.nodes())
  const length: DumpLength | undefined = dumps[0]?.[1]
  if (length !== undefined) return dumpText(images, length)
  return options.verbose ? describeText(images) : listText(images)
}
