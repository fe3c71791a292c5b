// The guest that commands run on a machine: its image, and the VMM that passes the first device through.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { formatBdf } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { Machine } from '../machine.js'
import { ImageError, readElf } from '../vmm/elf.js'
import { type GuestEnd, Vmm } from '../vmm/vmm.js'
import { UsageError } from './output.js'

/** The guest that `npm start` runs. */
export const GUEST = fileURLToPath(new URL('../../guests/built/sva-x86_64.elf', import.meta.url))
const GUEST_RAM = 64 * 2 ** 20

/** Assigns the machine's first device to a guest and runs it to its end. */
export function runGuest(machine: Machine, image: Uint8Array): GuestEnd {
  const device = machine.fabric.functions()[0]
  if (!device) throw new UsageError('the machine has no device to pass through')
  const at = formatBdf(device.bdf)
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  try {
    const vmm = new Vmm({
      sys,
      trace: machine.trace,
      ramBytes: GUEST_RAM,
      image,
      group: machine.groupOf(at),
      device: at,
    })
    try {
      return vmm.run()
    } finally {
      vmm.close()
      machine.settle()
    }
  } catch (error) {
    if (error instanceof ErrnoError) throw new UsageError(`the machine refused: ${error.message}`)
    throw error
  } finally {
    sys.exit()
    machine.settle()
  }
}

/** The guest image, found good before anything is built around it. */
export function readImage(path: string): Uint8Array {
  let image: Uint8Array
  try {
    image = readFileSync(path)
  } catch (error) {
    throw new UsageError(`cannot read guest image ${path}: ${(error as Error).message}`)
  }
  try {
    readElf(image, GUEST_RAM)
  } catch (error) {
    if (error instanceof ImageError) throw new UsageError(`guest image ${path}: ${error.message}`)
    throw error
  }
  return image
}
