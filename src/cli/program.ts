// The `vfio-emu` command line: one file a command beside this one.

import { Command, CommanderError } from 'commander'
import { VERSION } from '../version.js'
import { abiCommand } from './abi.js'
import { explainCommand } from './explain.js'
import { lspciCommand, normaliseDumpFlags } from './lspci.js'
import { UsageError } from './output.js'
import { replayCommand } from './replay.js'
import { runCommand } from './run.js'
import { walkCommand } from './walk.js'

/** Runs one command line; the result is the process's exit status. */
export async function main(args: readonly string[]): Promise<number> {
  const program = new Command('vfio-emu')
    .description(
      'A passthrough stack in a box: PCIe, VT-d, VFIO with virtual SVA, and a guest to use it.',
    )
    .version(VERSION)
    .showHelpAfterError('(add --help for the options)')
    .exitOverride()
  let status = 0
  for (const make of [
    runCommand,
    replayCommand,
    explainCommand,
    walkCommand,
    lspciCommand,
    abiCommand,
  ])
    program.addCommand(
      make(code => {
        status = code
      }).exitOverride(),
    )
  try {
    await program.parseAsync(normaliseDumpFlags(args), { from: 'user' })
    return status
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (error instanceof UsageError) {
      process.stderr.write(`vfio-emu: ${error.message}\n`)
      return 2
    }
    throw error
  }
}
