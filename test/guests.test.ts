import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const guests = resolve(import.meta.dirname, '../guests')
const recorded = readFileSync(join(guests, 'built/toolchain.txt'), 'utf8').trim()
const compiler = spawnSync('gcc', ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0]

describe('guest images', () => {
  it('name the compiler that built them', () => expect(recorded).toMatch(/gcc/i))

  // Another compiler gives other bytes, so only the one that built the committed image can be compared.
  it.runIf(compiler === recorded && process.arch === 'x64')('are what their sources build', () => {
    const out = mkdtempSync(join(tmpdir(), 'vfio-emu-guests-'))
    try {
      execFileSync(join(guests, 'build.sh'), [out], { stdio: 'pipe' })
      const [built, committed] = [out, join(guests, 'built')].map(d =>
        readFileSync(join(d, 'sva-x86_64.elf')),
      )
      expect(built!.equals(committed!)).toBe(true)
    } finally {
      rmSync(out, { recursive: true })
    }
  })
})
