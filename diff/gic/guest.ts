// The guest of this comparison (guest.c): built, its parameters set, and run on our VMM.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createMachine } from '../../src/machine.js'
import { Arm64Vmm } from '../../src/vmm/arm64/vmm.js'

/** Which cases to run, and whether to tell each operation and what was seen after it. */
export interface Parameters {
  readonly seed: number
  readonly from: number
  readonly cases: number
  readonly verbose: boolean
}

const MAGIC = new TextEncoder().encode('paramter')
const RAM = 16 * 2 ** 20

/** A source of this folder, beside this file or, when compiled, beside its original. */
function source(name: string): string {
  const here = join(import.meta.dirname, name)
  return existsSync(here) ? here : resolve(import.meta.dirname, '../../../../diff/gic', name)
}

/** Builds the image; `AARCH64_GCC` names another compiler. */
export function build(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'gic-'))
  try {
    const out = join(folder, 'guest.elf')
    const plain = ['-ffreestanding', '-fno-builtin', '-fno-stack-protector', '-fno-pic', '-fno-pie']
    const arm = ['-mgeneral-regs-only', '-march=armv8-a', '-mstrict-align', '-mno-outline-atomics']
    const link = ['-nostdlib', '-static', '-no-pie', '-s', '-T', source('guest.ld')]
    const linker = ['--build-id=none', '-z,noexecstack', '-z,max-page-size=4096']
    execFileSync(
      process.env['AARCH64_GCC'] ?? 'aarch64-linux-gnu-gcc',
      [
        ...['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', ...plain, ...arm, ...link],
        ...[...linker, '--no-warn-rwx-segments'].map(o => `-Wl,${o}`),
        ...['-fno-asynchronous-unwind-tables', '-fno-ident', source('guest.c'), '-o', out],
      ],
      { stdio: 'pipe' },
    )
    return readFileSync(out)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The image with these parameters in it. */
export function withParameters(image: Uint8Array, p: Parameters): Uint8Array {
  const at = Buffer.from(image).indexOf(MAGIC)
  if (at < 0) throw new Error('the image has no parameters')
  const copy = image.slice()
  const view = new DataView(copy.buffer, copy.byteOffset + at + MAGIC.length)
  for (const [i, v] of [p.seed, p.cases, p.from, p.verbose ? 1 : 0].entries())
    view.setBigUint64(8 * i, BigInt(v), true)
  return copy
}

/** What the image says on our VMM, without the last line, which says that it came to its end. */
export function runOurs(image: Uint8Array): string[] {
  const machine = createMachine({
    iommu: 'smmuv3',
    cpu: 'arm64',
    profile: 'N13',
    ramBytes: 2 * RAM,
  })
  const lines: string[] = []
  machine.trace.listen('guest.console', e => lines.push(e.line))
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Arm64Vmm({ sys, trace: machine.trace, ramBytes: RAM, image, devices: [] })
  const end = vmm.run()
  vmm.close()
  sys.exit()
  if (end.kind !== 'shutdown' || lines.pop() !== 'end')
    throw new Error(`the guest ended by ${end.kind}, with '${lines.at(-1)}'`)
  return lines
}
