// Runs the guest of guests/x86_64/private on a small machine.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { createMachine } from '../../src/machine.js'
import { PrivateGuest, type PrivateGuestOptions } from '../../src/vmm/private-guest.js'

export const image = readFileSync(
  resolve(import.meta.dirname, '../../guests/built/private-x86_64.elf'),
)

/** Hypercalls of the conversion program: there and back, odd frames and all; five ranges, twice. */
export const conversionsOf = (vcpus: number) => vcpus * 2 * (5 * 4 + 2 * 256)

export function runPrivateGuest(
  options: Partial<PrivateGuestOptions> & Pick<PrivateGuestOptions, 'program'>,
) {
  const machine = createMachine({ ramBytes: 64 << 20 })
  const { used } = machine.kernel.frames
  const sys = machine.spawn()
  const guest = new PrivateGuest({ sys, image, ...options })
  const end = guest.run()
  guest.close()
  return { end, machine, sys, used }
}
