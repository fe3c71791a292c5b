// The guests that commands run on a machine: their images, and the VMM that passes devices through. On a machine with
// VT-d an x86-64 guest gets the first device; with an SMMUv3 an arm64 guest gets all of them.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { formatBdf } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { IommuUnit, Machine } from '../machine.js'
import type { Sys } from '../sys/sys.js'
import { Arm64Vmm } from '../vmm/arm64/vmm.js'
import { ARM64_IMAGE, ImageError, readElf, X86_64_IMAGE } from '../vmm/elf.js'
import { type GuestEnd, Vmm } from '../vmm/vmm.js'
import { type GdbOptions, serveGdb } from './gdb.js'
import type { AnyDescription } from './machine-file.js'
import { UsageError } from './output.js'

const built = (name: string) =>
  fileURLToPath(new URL(`../../guests/built/${name}`, import.meta.url))
/** The guests that `npm start` runs. */
export const GUEST = built('sva-x86_64.elf')
export const ARM64_GUEST = built('sva-arm64.elf')
const GUEST_RAM = 64 * 2 ** 20

/** The SVA guest of a machine. */
export const guestOf = ({ iommu }: AnyDescription): string =>
  iommu === 'smmuv3' ? ARM64_GUEST : GUEST

/** Assigns the machine's devices to a guest and runs it to its end. */
export function runGuest(machine: Machine<IommuUnit>, image: Uint8Array): GuestEnd {
  return withGuest(machine, image, vmm => vmm.run())
}

/** The same with a debugger at a TCP port, who says when the guest runs. */
export function debugGuest(
  machine: Machine<IommuUnit>,
  image: Uint8Array,
  options: GdbOptions,
): Promise<GuestEnd> {
  return withGuest(machine, image, vmm => serveGdb(machine.clock, vmm, options))
}

// Builds a guest, has it used, and takes it apart; a promise is waited for.
function withGuest<T extends GuestEnd | Promise<GuestEnd>>(
  machine: Machine<IommuUnit>,
  image: Uint8Array,
  use: (vmm: Vmm | Arm64Vmm) => T,
): T {
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const leave = () => {
    sys.exit()
    machine.settle()
  }
  let vmm: Vmm | Arm64Vmm
  try {
    vmm = monitor(machine, sys, image)
  } catch (error) {
    leave()
    throw told(error)
  }
  const close = () => {
    vmm.close()
    machine.settle()
    leave()
  }
  let used: T
  try {
    used = use(vmm)
  } catch (error) {
    close()
    throw told(error)
  }
  if (used instanceof Promise) return used.finally(close) as T
  close()
  return used
}

const told = (error: unknown): unknown =>
  error instanceof ErrnoError ? new UsageError(`the machine refused: ${error.message}`) : error

function monitor(machine: Machine<IommuUnit>, sys: Sys, image: Uint8Array): Vmm | Arm64Vmm {
  const { description, fabric, trace } = machine
  const places = fabric.functions().map(f => formatBdf(f.bdf))
  const [first] = places
  if (first === undefined) throw new UsageError('the machine has no device to pass through')
  const common = { sys, trace, ramBytes: GUEST_RAM, image }
  if (description.iommu !== 'smmuv3')
    return new Vmm({ ...common, group: machine.groupOf(first), device: first })
  const { stalling = [] } = description
  const devices = places.map(device => ({
    group: machine.groupOf(device),
    device,
    stalling: stalling.includes(device),
  }))
  return new Arm64Vmm({ ...common, devices })
}

/** The guest image, found good before anything is built around it. */
export function readImage(path: string, iommu: AnyDescription['iommu'] = 'vt-d'): Uint8Array {
  let image: Uint8Array
  try {
    image = readFileSync(path)
  } catch (error) {
    throw new UsageError(`cannot read guest image ${path}: ${(error as Error).message}`)
  }
  try {
    readElf(image, GUEST_RAM, iommu === 'smmuv3' ? ARM64_IMAGE : X86_64_IMAGE)
  } catch (error) {
    if (error instanceof ImageError) throw new UsageError(`guest image ${path}: ${error.message}`)
    throw error
  }
  return image
}
