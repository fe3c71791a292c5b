import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const guests = resolve(import.meta.dirname, '../guests')
const recorded = readFileSync(join(guests, 'built/toolchain.txt'), 'utf8').trim()
const versionOf = (compiler: string) =>
  spawnSync(compiler, ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0]
const compilers = ['gcc', 'aarch64-linux-gnu-gcc'].map(versionOf).join('\n')

describe('guest images', () => {
  it('name the compilers that built them', () => {
    expect(recorded.split('\n')).toEqual([
      expect.stringMatching(/^gcc/),
      expect.stringMatching(/^aarch64-linux-gnu-gcc/),
    ])
  })

  // Other compilers give other bytes, so only those that built the committed images can be compared.
  it.runIf(compilers === recorded && process.arch === 'x64')('are what their sources build', () => {
    const out = mkdtempSync(join(tmpdir(), 'vfio-emu-guests-'))
    try {
      execFileSync(join(guests, 'build.sh'), [out], { stdio: 'pipe' })
      for (const name of [
        'sva-x86_64.elf',
        'sva-arm64.elf',
        'private-x86_64.elf',
        'sev-x86_64.elf',
      ]) {
        const [built, committed] = [out, join(guests, 'built')].map(d =>
          readFileSync(join(d, name)),
        )
        expect(built!.equals(committed!), name).toBe(true)
      }
    } finally {
      rmSync(out, { recursive: true })
    }
  })
})
