// The real gdb-multiarch at `run --gdb`, scripted end to end on the guests of both machines: registers, memory, steps,
// breakpoints in memory and in hardware, watchpoints, and on to the guest's own end.
import { execFile, spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { debugGuest, guestOf, readImage } from '../../src/cli/guest.js'
import { loadMachine } from '../../src/cli/machine-file.js'
import { createMachine } from '../../src/machine.js'

const GDB = 'gdb-multiarch'
const found = spawnSync(GDB, ['--version']).status === 0
const long = process.env['VFIO_EMU_LONG'] !== undefined

/** Commands, and the lines that must appear, in order. `$a` is a word of stack that both calls use. */
interface Script {
  readonly iommu: 'vt-d' | 'smmuv3'
  readonly architecture: string
  readonly commands: readonly string[]
  readonly expected: readonly RegExp[]
}

const SCRIPTS: readonly Script[] = [
  {
    iommu: 'vt-d',
    architecture: 'i386:x86-64',
    commands: [
      'info registers rip',
      'x/i $pc',
      'stepi',
      'stepi',
      'info registers rip',
      'break *0x101680',
      'continue',
      'p/x $rsp',
      'delete',
      'set $keep = $r15',
      'set var $r15 = 0x1234',
      'p/x $r15',
      'set var $r15 = $keep',
      'set $keep = *(int*)0x10c000',
      'set var *(int*)0x10c000 = 0x11223344',
      'x/xw 0x10c000',
      'set var *(int*)0x10c000 = $keep',
      'hbreak *0x101681',
      'stepi',
      'delete',
      'stepi 20',
      'set $a = $rsp - 8',
      'watch *(long*)$a',
      'continue',
      'delete',
      'continue',
    ],
    expected: [
      /rip +0x100000/,
      /=> 0x100000:\tlea/,
      /rip +0x100009/,
      /Breakpoint 1, 0x0000000000101680/,
      /\$1 = 0x/,
      /\$2 = 0x1234/,
      /0x10c000:\t0x11223344/,
      /Hardware watchpoint 3/,
      /New value/,
      /exited normally/,
    ],
  },
  {
    iommu: 'smmuv3',
    architecture: 'aarch64',
    commands: [
      'info registers pc cpsr',
      'x/i $pc',
      'stepi',
      'info registers pc',
      'break *0x40080034',
      'continue',
      'delete',
      'hbreak *0x40080040',
      'continue',
      'delete',
      'p/x $SCTLR_EL1',
      // The MMU is on after these: addresses are the kernel's from here.
      'stepi 200',
      'p/x (unsigned long)$pc >> 48',
      'set $keep = $x19',
      'set var $x19 = 0x1234',
      'p/x $x19',
      'set var $x19 = $keep',
      'set $a = $sp - 8',
      'watch *(long*)$a',
      'continue',
      'delete',
      'rwatch *(long*)$a',
      'continue',
      'delete',
      'continue',
    ],
    expected: [
      /pc +0x40080000/,
      /cpsr +0x3c5/,
      /=> 0x40080000:\tmov/,
      /pc +0x40080004/,
      /Breakpoint 1, 0x0000000040080034/,
      /Breakpoint 2, 0x0000000040080040/,
      /\$1 = 0x30d50998/,
      /\$2 = 0xffff/,
      /\$3 = 0x1234/,
      /Hardware watchpoint 3/,
      /New value/,
      /Hardware read watchpoint 4/,
      /Value =/,
      /exited normally/,
    ],
  },
]

function gdb(port: number, { architecture, commands }: Script): Promise<string> {
  const script = [
    'set pagination off',
    'set confirm off',
    `set architecture ${architecture}`,
    `target remote 127.0.0.1:${port}`,
    ...commands,
  ]
  const args = ['-nx', '-batch', ...script.flatMap(line => ['-ex', line])]
  return new Promise((resolve, reject) => {
    execFile(GDB, args, (error, out, said) => (error ? reject(error) : resolve(out + said)))
  })
}

describe.runIf(found && long)('gdb-multiarch', () => {
  it.each(SCRIPTS)(
    'debugs the guest behind $iommu to its end',
    async script => {
      const description = loadMachine(undefined, script.iommu)
      const machine = createMachine(description)
      let session: Promise<string> | undefined
      const end = await debugGuest(machine, readImage(guestOf(description), script.iommu), {
        port: 0,
        listening: port => {
          session = gdb(port, script)
        },
      })
      let said = (await session)!
      expect(said).not.toMatch(/Could not load|Remote failure|protocol error/i)
      for (const pattern of script.expected) {
        const at = said.search(pattern)
        expect(at, `${pattern} in what gdb says:\n${said}`).toBeGreaterThanOrEqual(0)
        said = said.slice(at)
      }
      // The guest verified its own data although it was stopped, watched and stepped.
      expect(end).toEqual({ kind: 'exit', code: 0 })
      expect(Object.values(machine.holdings()).every(n => n === 0)).toBe(true)
    },
    60_000,
  )
})
